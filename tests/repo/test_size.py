"""How large Corral is: statements, which say how much there is to understand, and no lines.

A docstring or a comment costs nothing here. Each limit is the state of the day it was set, and a
tenth on top; a change that needs more raises it, and its commit says why.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import corral
from corral import hookspecs, sql_hookspecs
from corral.settings import Settings, WorkerSettings

MAX_STATEMENTS = {
    "the API": 4_400,
    "app": 1_200,
    "board": 2_300,
    "catalog": 530,
    "cli": 1_100,
    "embedded": 450,
    "fleet": 270,
    "inspector": 1_700,
    "observe": 900,
    "plugins": 550,
    "sql": 480,
    "store": 1_700,
    "testing": 950,
    "worker": 2_050,
}
"""Statements of Python, by package of `core/corral`; "the API" is what lies beside the packages."""
MAX_LUA_LINES = {"fleet": 25, "inspector": 1_900, "observe": 70, "store": 2_400}
"""Lines of Lua that are neither blank nor a comment."""
MAX_FILE_STATEMENTS = 420
MAX_FUNCTION_STATEMENTS = 60
MAX_PARAMETERS = 16
"""`self` counts."""
MAX_HOOKS = 8
MAX_SETTINGS = 24

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
    assert found.keys() == MAX_STATEMENTS.keys()
    assert {name: n for name, n in found.items() if n > MAX_STATEMENTS[name]} == {}
    print(f"statements: {dict(sorted(found.items()))}, {found.total()} in all")


def test_the_scripts_stay_within_their_limit(written: tuple[Path, ...], root: Path) -> None:
    found: Counter[str] = Counter()
    for path in written:
        if path.suffix == ".lua" and path.is_relative_to(root / "core"):
            text = path.read_text("utf-8")
            found[path.parent.parent.name] += len(re.findall(r"^\s*(?!--)\S", text, re.MULTILINE))
    assert {name: n for name, n in found.items() if n > MAX_LUA_LINES.get(name, 0)} == {}
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
    for what, limit in (
        (files, MAX_FILE_STATEMENTS),
        (functions, MAX_FUNCTION_STATEMENTS),
        (parameters, MAX_PARAMETERS),
    ):
        assert {name: n for name, n in what.items() if n > limit} == {}
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
    assert 0 < len(specified) <= MAX_HOOKS, specified


def test_the_core_has_at_most_24_settings() -> None:
    count = len(Settings.model_fields.keys() - {"worker"}) + len(WorkerSettings.model_fields)
    assert count <= MAX_SETTINGS


def test_no_module_has_a_name_that_says_nothing(written: tuple[Path, ...], root: Path) -> None:
    modules = [
        path.relative_to(root)
        for path in written
        if path.suffix == ".py" and "tests" not in path.parts
    ]
    vague = [path for path in modules if NAMES_THAT_SAY_NOTHING & {*path.parent.parts, path.stem}]
    assert vague == []
