"""docs/architecture.md names files and values that are there, and docs/glossary.md is in order."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def page(root: Path) -> str:
    return (root / "docs" / "architecture.md").read_text("utf-8")


def test_every_file_of_the_page_is_there(root: Path, page: str) -> None:
    named = re.findall(r"`((?:core|tests|plugins|examples|docs)/[\w/.-]+)`", page)
    assert len(named) > 40
    assert [path for path in named if not (root / path).exists()] == []


def test_every_class_that_a_walk_names_is_in_the_core(root: Path, page: str) -> None:
    named = set(re.findall(r"`([A-Z][A-Za-z]+)`", page))
    assert {"CheckedJob", "FetchedJob", "FinishedJob", "Outcome", "BoardContext"} <= named
    core = "\n".join(path.read_text("utf-8") for path in (root / "core").rglob("*.py"))
    missing = [
        name
        for name in named
        if not re.search(rf"^(?:class {name}\b|{name}(?: =|: ))", core, re.MULTILINE)
    ]
    assert missing == []


def test_every_layer_of_the_contract_is_on_the_page(root: Path, page: str) -> None:
    linter = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    (contract,) = linter["contracts"]
    modules = set(re.findall(r"\w+", " ".join(contract["layers"]))) - {"__main__"}
    helpers = {"frozen_for_checkers", "payload_schema", "round_trip", "unknown_fields"}
    table = page.partition("## Layers")[2].partition("Three rules")[0]
    assert modules - helpers <= set(re.findall(r"`(\w+)`", table))


def test_the_glossary_is_sorted_and_has_one_sentence_for_each_term(root: Path) -> None:
    text = (root / "docs" / "glossary.md").read_text("utf-8")
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| (.+) \|$", text, re.MULTILINE)
    terms = [term for term, _ in rows]
    assert len(terms) > 40
    assert terms == sorted(terms)
    assert len(set(terms)) == len(terms)
    assert [term for term, meaning in rows if re.search(r"\. [A-Z]", meaning)] == []
