"""What a job carries is data: nothing here can make code of it (S-16)."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

MODULES = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "marshal",
    "shelve",
    "jsonpickle",
    "joblib",
    "yaml",
    "xmlrpc",
    "code",
}
"""They make objects, and thereby run code, of bytes; YAML by its default loader."""
CALLS = {"eval", "exec", "compile", "__import__"}
ATTRIBUTES = {"system", "popen", "import_module", "literal_eval", "load_extension"}
ALLOWED = {
    ("core/corral/cli/__init__.py", "import_module"),  # commands, from a table
    ("core/corral/on_demand.py", "import_module"),  # public names, from tables
    ("core/corral/testing/__init__.py", "import_module"),
}


def made(path: Path) -> Iterator[str]:
    """What of the above a file imports or calls."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case ast.Import(names):
                yield from (each.name for each in names if each.name.partition(".")[0] in MODULES)
            case ast.ImportFrom(module=str(module), names=names):
                if module.partition(".")[0] in MODULES:
                    yield module
                yield from (each.name for each in names if each.name in ATTRIBUTES)
            case ast.Call(func=ast.Name(name)) if name in CALLS:
                yield name
            case ast.Call(func=ast.Attribute(attr=name)) if name in ATTRIBUTES:
                yield name
            case _:
                pass


def test_nothing_makes_code_of_bytes(written: tuple[Path, ...], root: Path) -> None:
    sources = [
        path
        for path in written
        if path.suffix == ".py"
        and "tests" not in path.parts
        and path.relative_to(root).parts[0] in {"core", "plugins", "examples"}
    ]
    assert len(sources) > 100
    found = {(str(path.relative_to(root)), each) for path in sources for each in made(path)}
    assert found <= ALLOWED


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from marshal import loads",
        "import yaml",
        "eval(x)",
        "importlib.import_module(x)",
        "os.system(x)",
    ],
)
def test_that_rule_would_find_it(tmp_path: Path, line: str) -> None:
    path = tmp_path / "bad.py"
    path.write_text(line, "utf-8")
    assert list(made(path))


def test_ruffs_rules_on_this_hold_for_all_but_tests(root: Path) -> None:
    """S301 to S307 and S506: pickle, marshal, hashes, mktemp, eval; yaml."""
    lint = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["ruff"]["lint"]
    assert "S" in lint["select"]
    off = {rule for rule in lint["ignore"] if rule.startswith("S") and rule[1:].isdecimal()}
    for pattern, rules in lint["per-file-ignores"].items():
        if "tests" not in pattern and not pattern.startswith("bench/"):
            off |= {rule for rule in rules if rule == "S" or rule.startswith(("S3", "S5"))}
    assert off == set()
