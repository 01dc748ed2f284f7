"""docs/wire.md holds what code and tests refer to: its sections, its traps, the tests that it
names.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

from interop.matrix import ROWS
from interop.test_traps import TRAPS

from .test_docs import named_tests

REFERENCE = re.compile(
    r"\bwire\s+(?:#\s*)?(?:page\'s\s+)?§\s*(?:#\s*)?(\d+(?:\.\d+)?(?:\s*(?:,|to|and)\s+§\s*\d+(?:\.\d+)?)*)"
)
"""`wire § 6.12`, also across a line of a comment, and the further ones of `wire § 3, § 4`."""
TRAP = re.compile(r"\btraps?\s+T(\d+)")


@pytest.fixture(scope="session")
def page(root: Path) -> str:
    return (root / "docs" / "wire.md").read_text("utf-8")


@pytest.fixture(scope="session")
def sections(page: str) -> set[str]:
    """The numbers of its headings."""
    return set(re.findall(r"^#{2,3} (\d+(?:\.\d+)?) ", page, re.MULTILINE))


def referred(text: str) -> set[str]:
    """The sections that a text refers to."""
    return {
        number
        for found in REFERENCE.findall(text)
        for number in re.findall(r"\d+(?:\.\d+)?", found)
    }


def test_every_section_that_is_referred_to_is_there(
    written: tuple[Path, ...], root: Path, sections: set[str]
) -> None:
    looked_at = [path for path in written if path.suffix in {".py", ".lua", ".md", ".mjs"}]
    found = {
        path.relative_to(root).as_posix(): numbers
        for path in looked_at
        if path != Path(__file__) and (numbers := referred(path.read_text("utf-8")))
    }
    assert len(found) > 20
    assert {
        path: missing for path, numbers in found.items() if (missing := numbers - sections)
    } == {}


def test_every_section_that_the_page_refers_to_itself_is_there(
    page: str, sections: set[str]
) -> None:
    assert set(re.findall(r"§ (\d+(?:\.\d+)?)", page)) <= sections


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("a rule (wire § 6.12).", {"6.12"}),
        ("# as it is (wire §\n# 6.21)", {"6.21"}),
        ("spelt in the store (wire § 3, § 4).", {"3", "4"}),
        ("from wire § 6.14 to § 6.19.", {"6.14", "6.19"}),
        ("see § 6.14 of another page", set()),
    ],
)
def test_references_of_every_form_are_found(text: str, numbers: set[str]) -> None:
    assert referred(text) == numbers


def test_the_sections_are_in_order_and_none_is_left_out(page: str) -> None:
    headings = re.findall(r"^(##|###) (\d+)(?:\.(\d+))? ", page, re.MULTILINE)
    above = [int(number) for level, number, _ in headings if level == "##"]
    assert above == list(range(1, 16))
    below = defaultdict(list)
    for level, number, part in headings:
        if level == "###":
            below[number].append(int(part))
    assert below
    assert all(parts == list(range(1, len(parts) + 1)) for parts in below.values())


def test_every_trap_is_on_the_page_and_every_trap_that_is_named_exists(
    written: tuple[Path, ...], page: str
) -> None:
    assert [
        int(number) for number in re.findall(r"^\| \*\*T(\d+)\*\* \|", page, re.MULTILINE)
    ] == sorted(TRAPS)
    named = {
        int(number)
        for path in written
        if path.suffix in {".py", ".lua", ".md"}
        for number in TRAP.findall(path.read_text("utf-8"))
    }
    assert len(named) > 10
    assert named <= TRAPS.keys()


def test_every_test_that_the_page_names_is_there(root: Path, page: str) -> None:
    named = re.findall(r"`([\w/.-]+\.py)::([\w:]+)`", page)
    assert len(named) > 80
    assert [f"{path}::{name}" for path, name in named if name not in named_tests(root / path)] == []


def test_the_rows_of_the_matrix_are_on_the_page_with_their_tests(root: Path, page: str) -> None:
    shown = {
        int(number): (title, set(re.findall(r"`([^`]+)`", tests)))
        for number, title, tests in re.findall(
            r"^\| (\d+) \| ([^|]+) \| (`.*) \|$", page, re.MULTILINE
        )
    }
    marked: dict[int, set[str]] = defaultdict(set)
    for path in sorted((root / "tests" / "interop").glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for mark in node.decorator_list:
                    if (
                        isinstance(mark, ast.Call)
                        and ast.unparse(mark.func) == "pytest.mark.matrix"
                    ):
                        for row in mark.args:
                            name = f"{path.relative_to(root).as_posix()}::{node.name}"
                            marked[ast.literal_eval(row)].add(name)
    assert shown == {row: (title, marked[row]) for row, title in ROWS.items()}


def test_every_key_of_ours_is_on_the_page(root: Path) -> None:
    """Keys that BullMQ does not know: they begin with `corral:`, and then name their queue or its
    prefix.
    """
    core = root / "core" / "corral"
    scripts = "\n".join(path.read_text("utf-8") for path in sorted(core.rglob("*.lua")))
    keys = (core / "store" / "keys.py").read_text("utf-8")  # the only module that spells a key
    of_a_queue = set(re.findall(r"'corral:' \.\. (?:base|KEYS\[1\]) \.\. '([\w-]+)", scripts))
    of_a_queue |= set(re.findall(r"\{_OWN\}\{base\}([\w-]+)", keys))
    of_a_prefix = set(re.findall(r"\{_OWN\}\{prefix\}:([\w-]+)", keys))
    assert {"quarantine", "call", "minutes", "removed-schedules", "probe"} <= of_a_queue
    assert {"alive", "catalog", "audit"} <= of_a_prefix
    page = (root / "docs" / "wire.md").read_text("utf-8")
    written = {f"`corral:<prefix>:<queue>:{name}" for name in of_a_queue} | {
        f"`corral:<prefix>:{name}`" for name in of_a_prefix
    }
    assert {key for key in written if key not in page} == set()
