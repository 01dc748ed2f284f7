"""How large Corral is: statements, which say how much there is to understand, and no lines.

10 % air above the present, rounded up to tens; a limit is raised by a commit that says why. A
docstring or a comment costs nothing here.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import corral
from corral import hookspecs, sql_hookspecs
from corral.settings import Settings, WorkerSettings


class Size(NamedTuple):
    """A limit, and how large it was when the limit was set."""

    present: int
    limit: int


STATEMENTS = {
    "the API": Size(3_204, limit=3_530),
    "app": Size(1_068, limit=1_180),
    "board": Size(2_267, limit=2_500),
    "catalog": Size(459, limit=510),
    "cli": Size(974, limit=1_080),
    "embedded": Size(326, limit=360),
    "fleet": Size(233, limit=260),
    "inspector": Size(1_746, limit=1_930),  # edits keep bytes: their text is parsed for that
    "observe": Size(787, limit=870),
    "plugins": Size(756, limit=840),
    "sql": Size(428, limit=480),
    "store": Size(1_268, limit=1_400),
    "testing": Size(840, limit=930),
    "worker": Size(1_833, limit=2_020),
}
"""Of Python, by package of `core/corral`; "the API" is what lies beside the packages."""

LUA_LINES = {
    "fleet": Size(19, limit=30),
    "inspector": Size(985, limit=1_090),
    "observe": Size(58, limit=70),
    "store": Size(2_068, limit=2_280),
}
"""By package of `core/corral`: lines that are neither blank nor a comment."""

LARGEST = {
    "statements of a file": Size(320, limit=360),
    "statements of a function": Size(32, limit=40),
    "parameters of a function": Size(14, limit=16),
    "hooks": Size(8, limit=8),
    "settings": Size(22, limit=24),
}
"""`self` counts as a parameter. The last three are not rounded up to tens, and hooks have no air:
each is a promise to plugins.
"""

NAMES_THAT_SAY_NOTHING = {
    *("utils", "util", "helpers", "helper", "common", "base", "manager", "types", "models", "misc"),
}


def statements(node: ast.AST) -> int:
    """How many statements there are in a module or a function, docstrings not counted."""
    every = (each for each in ast.walk(node) if isinstance(each, ast.stmt) and each is not node)
    return sum(not _is_docstring(each) for each in every)


def _is_docstring(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def core_modules(written: tuple[Path, ...], root: Path) -> Iterator[tuple[str, Path, ast.Module]]:
    """Package, file and tree of each module of the core."""
    core = root / "core" / "corral"
    for path in written:
        if path.suffix == ".py" and path.is_relative_to(core):
            parts = path.relative_to(core).parts
            yield (
                "the API" if len(parts) == 1 else parts[0],
                path,
                ast.parse(path.read_text("utf-8")),
            )


def test_each_package_stays_within_its_limit(written: tuple[Path, ...], root: Path) -> None:
    found: Counter[str] = Counter()
    for package, _, tree in core_modules(written, root):
        found[package] += statements(tree)
    assert found.keys() == STATEMENTS.keys()
    assert {name: n for name, n in found.items() if n > STATEMENTS[name].limit} == {}
    print(f"statements: {dict(sorted(found.items()))}, {found.total()} in all")


def test_the_scripts_stay_within_their_limit(written: tuple[Path, ...], root: Path) -> None:
    found: Counter[str] = Counter()
    for path in written:
        if path.suffix == ".lua" and path.is_relative_to(root / "core"):
            text = path.read_text("utf-8")
            found[path.parent.parent.name] += len(re.findall(r"^\s*(?!--)\S", text, re.MULTILINE))
    assert found.keys() == LUA_LINES.keys()
    assert {name: n for name, n in found.items() if n > LUA_LINES[name].limit} == {}
    print(f"lines of Lua: {dict(found)}")


def test_files_and_functions_can_be_read_at_one_sitting(
    written: tuple[Path, ...], root: Path
) -> None:
    files: dict[str, int] = {}
    functions: dict[str, int] = {}
    parameters: dict[str, int] = {}
    for _, path, tree in core_modules(written, root):
        files[str(path.relative_to(root))] = statements(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{path.stem}.{node.name}"
                functions[name] = max(functions.get(name, 0), statements(node))
                taken = node.args
                count = len(taken.posonlyargs) + len(taken.args) + len(taken.kwonlyargs)
                parameters[name] = max(parameters.get(name, 0), count)
    for largest, what in (
        ("statements of a file", files),
        ("statements of a function", functions),
        ("parameters of a function", parameters),
    ):
        assert {name: n for name, n in what.items() if n > LARGEST[largest].limit} == {}
        print(sorted(what.items(), key=lambda item: -item[1])[:3])


def test_each_public_name_exists_and_is_in_order() -> None:
    assert [name for name in corral.__all__ if not hasattr(corral, name)] == []
    assert list(corral.__all__) == sorted(set(corral.__all__)), "so that a reader finds a name"


def test_there_are_at_most_eight_hooks() -> None:
    modules = (hookspecs, sql_hookspecs)
    specified = [
        name
        for module in modules
        for name, value in vars(module).items()
        if hasattr(value, "corral_spec")
    ]
    assert 0 < len(specified) <= LARGEST["hooks"].limit, specified


def test_the_core_has_at_most_24_settings() -> None:
    count = len(Settings.model_fields.keys() - {"worker"}) + len(WorkerSettings.model_fields)
    assert count <= LARGEST["settings"].limit


def test_no_module_has_a_name_that_says_nothing(written: tuple[Path, ...], root: Path) -> None:
    modules = [
        path.relative_to(root)
        for path in written
        if path.suffix == ".py" and "tests" not in path.parts
    ]
    vague = [path for path in modules if NAMES_THAT_SAY_NOTHING & {*path.parent.parts, path.stem}]
    assert vague == []
