"""Each trap of sharing a queue with BullMQ has a test that is marked with its number, or a reason
why it has none.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from interop.test_traps import REASONS, TRAPS


def marked(path: Path) -> Iterator[tuple[int, str]]:
    """The numbers of `@pytest.mark.trap(…)` in a file, each with the name of its test."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith(
            "test_"
        ):
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.trap":
                    for number in mark.args:
                        assert isinstance(number, ast.Constant), (
                            f"{path}: {node.name}: a number is wanted"
                        )
                        yield number.value, node.name


@pytest.fixture
def tests(written: tuple[Path, ...], root: Path) -> dict[int, list[str]]:
    """The marked tests by number, as `<path>::<name>`."""
    found: dict[int, list[str]] = defaultdict(list)
    for path in written:
        if path.suffix == ".py" and path.name.startswith("test_"):
            for number, name in marked(path):
                found[number].append(f"{path.relative_to(root)}::{name}")
    return found


@pytest.fixture
def figure() -> Callable[[str], None]:
    return print


def test_every_trap_has_a_test_or_a_reason(
    tests: dict[int, list[str]], figure: Callable[[str], None]
) -> None:
    assert sorted(TRAPS) == list(range(1, 29))
    assert tests.keys() | REASONS.keys() == TRAPS.keys()
    for number in REASONS:
        figure(f"trap {number}, {TRAPS[number]}: {REASONS[number]}")
    shown = [number for number in TRAPS if number in tests]
    figure(f"{len(shown)} of {len(TRAPS)} traps have {sum(map(len, tests.values()))} tests")


def test_marks_of_every_kind_are_found(tmp_path: Path) -> None:
    source = """
@pytest.mark.trap(3, 4)
def test_one(): ...
class TestThem:
    @pytest.mark.parametrize("a", [])
    @pytest.mark.trap(5)
    async def test_two(self): ...
    @pytest.mark.timing
    def test_three(self): ...
"""
    (tmp_path / "test_it.py").write_text(source, "utf-8")
    assert sorted(marked(tmp_path / "test_it.py")) == [
        (3, "test_one"),
        (4, "test_one"),
        (5, "test_two"),
    ]
