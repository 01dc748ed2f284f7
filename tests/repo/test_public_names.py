"""Plugins, examples and pages use what other people may use: names in `__all__` of a public module.

The public modules are listed in one place, `[tool.corral]` in pyproject.toml; the reference is made
from the same list.
"""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

FENCE = re.compile(r"^ *```python\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)

IMPORT = re.compile(r"^ *((?:from corral[\w.]* import [\w, ]+|import corral[\w.]*))", re.MULTILINE)


@pytest.fixture(scope="session")
def public(root: Path) -> dict[str, set[str]]:
    """The public modules, each with its public names."""
    listed = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["corral"]
    return {name: set(importlib.import_module(name).__all__) for name in listed["public-modules"]}


def imported(source: str) -> Iterator[tuple[str, str | None]]:
    """Modules of Corral that a source imports, each with the name that is taken from it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "corral":
            yield from ((str(node.module), each.name) for each in node.names)
        elif isinstance(node, ast.Import):
            yield from ((each.name, None) for each in node.names if is_ours(each.name))


def is_ours(module: str) -> bool:
    return module.split(".", maxsplit=1)[0] == "corral"


def private(source: str, public: dict[str, set[str]]) -> set[str]:
    """What of Corral a source imports that is not public."""
    return {
        module if name is None else f"{module}.{name}"
        for module, name in imported(source)
        if (module not in public if name is None else name not in public.get(module, set()))
        and f"{module}.{name}" not in public
    }


def source_of(path: Path) -> str:
    """The Python of a file: all of it, or the imports in the blocks of a page.

    A block may leave something out with `…`, and cannot be parsed as a whole.
    """
    text = path.read_text("utf-8")
    if path.suffix == ".py":
        return text
    blocks = "\n".join(FENCE.findall(text))
    return "\n".join(IMPORT.findall(blocks))


def test_only_public_names_are_imported(
    written: tuple[Path, ...], root: Path, public: dict[str, set[str]]
) -> None:
    folders = ("plugins", "examples", "docs")
    looked_at = [
        path
        for path in written
        if path.suffix in {".py", ".md"}
        and (path.parent == root or path.relative_to(root).parts[0] in folders)
        and path.name != "toxfile.py"
    ]
    assert len(looked_at) > 100
    found: dict[str, set[str]] = {}
    for path in looked_at:
        if names := private(source_of(path), public):
            found[path.relative_to(root).as_posix()] = names
    assert found == {}


def test_a_name_that_is_not_public_is_found() -> None:
    public = {"corral": {"Queue"}, "corral.sql": {"Outbox"}}
    source = "import corral\nfrom corral import Queue, sql, tasks\nfrom corral.sql import Outbox, hidden\nimport corral.app\n"
    assert private(source, public) == {"corral.tasks", "corral.sql.hidden", "corral.app"}


def test_every_public_name_exists(public: dict[str, set[str]]) -> None:
    assert {"corral", "corral.errors", "corral.outcome", "corral.testing"} <= public.keys()
    missing = [
        f"{module}.{name}"
        for module, names in public.items()
        for name in names
        if not hasattr(importlib.import_module(module), name)
    ]
    assert missing == []
