"""Plugins, examples and pages use what other people may use: names in `__all__` of a public module.

The public modules are listed in one place, `[tool.corral]` in pyproject.toml; the reference is made
from the same list.

Within the core, a function or class without a leading underscore is defined in one module, and a
file name is used once: searching for a name finds one place.
"""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

FENCE = re.compile(r"^ *```python\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)

IMPORT = re.compile(r"^ *((?:from corral[\w.]* import [\w, ]+|import corral[\w.]*))", re.MULTILINE)

DEFINED_TWICE = {
    "connect": {"__init__.py", "app/producing.py"},
    "connect_blocking": {"__init__.py", "app/producing.py"},
    "open_inspector": {"__init__.py", "app/operating.py"},
    "main": {"__main__.py", "cli/__init__.py"},
}
"""Names of the core that two modules define, with these modules.

`corral` is imported without the store's client, so its functions import the ones of `corral.app`
when they are called. `main` is what a program starts with.
"""

FILES_OF_EACH_PACKAGE = {"__init__.py", "__main__.py"}


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


def module_level(statements: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, those inside `if`, `try` and `with` included."""
    for node in statements:
        yield node
        if isinstance(node, ast.If | ast.Try | ast.With):
            for name in ("body", "orelse", "finalbody"):
                yield from module_level(getattr(node, name, ()))
            for handler in getattr(node, "handlers", ()):
                yield from module_level(handler.body)


def defined(source: str) -> set[str]:
    """The public functions and classes of a module, without implementations of hooks.

    An implementation has the name of its hook.
    """
    return {
        node.name
        for node in module_level(ast.parse(source).body)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not any(ast.unparse(each).startswith("hookimpl") for each in node.decorator_list)
    }


def defined_twice(sources: dict[str, str]) -> dict[str, set[str]]:
    """The names that more than one of these modules defines, with the modules."""
    places: dict[str, set[str]] = defaultdict(set)
    for module, source in sources.items():
        for name in defined(source):
            places[name].add(module)
    return {name: modules for name, modules in places.items() if len(modules) > 1}


def test_a_name_of_the_core_is_defined_in_one_module(written: tuple[Path, ...], root: Path) -> None:
    core = root / "core" / "corral"
    sources = {
        path.relative_to(core).as_posix(): path.read_text("utf-8")
        for path in written
        if path.suffix == ".py" and path.is_relative_to(core)
    }
    assert len(sources) > 150
    assert defined_twice(sources) == DEFINED_TWICE


def test_a_file_name_of_the_core_is_used_once(written: tuple[Path, ...], root: Path) -> None:
    core = root / "core" / "corral"
    names = Counter(
        path.name for path in written if path.suffix == ".py" and path.is_relative_to(core)
    )
    assert names.keys() > FILES_OF_EACH_PACKAGE
    twice = {name for name, count in names.items() if count > 1}
    assert twice - FILES_OF_EACH_PACKAGE == set()


def test_a_name_that_two_modules_define_is_found() -> None:
    sources = {
        "a.py": "class Address: ...\nasync def read(): ...\ndef _hidden(): ...\n",
        "b.py": "try:\n    import x\nexcept ImportError:\n    def read(): ...\ndef _hidden(): ...\n",
        "c.py": "if True:\n    class Address: ...\nclass Other:\n    def read(self): ...\n",
        "d.py": "@hookimpl\ndef hook(): ...\n",
        "e.py": "@hookspec\ndef hook(): ...\n@overload\ndef one(): ...\ndef one(): ...\n",
    }
    assert defined_twice(sources) == {"Address": {"a.py", "c.py"}, "read": {"a.py", "b.py"}}
