"""Corral stays small: files that can be read at one sitting, and a core inside its budget."""

from __future__ import annotations

from pathlib import Path

import corral
from corral import hookspecs
from corral.settings import Settings, WorkerSettings

MAX_FILE_LINES = 900
MAX_PUBLIC_NAMES = 26
MAX_HOOKS = 7
MAX_SETTINGS = 22
"""Three of them are the lock file's: where it is, whether there must be one, and what becomes of patch releases."""
MAX_ENGINE_PYTHON = 6_800
MAX_ENGINE_LUA = 2_500
"""With some air. What a script does where a key is damaged is a third of the Lua; its lean paths are a tenth."""
ENGINE = ("catalog", "lock", "store", "worker", "producer")
"""What carries a job: modules or packages of core/corral. Commands, settings and the test kit are not in it."""
BESIDE = {"embedded.py", "data_directory.py", "server_binary.py", "minutes.py"}
"""In store/, and yet no part of that: no job passes through them. They start a server for whoever has none, and keep
the figures that the board draws."""

NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "common", "base", "manager", "types", "models", "misc"}


def lines(path: Path) -> int:
    return len(path.read_text("utf-8").splitlines())


def written_lines(path: Path) -> int:
    return sum(bool(line.strip()) for line in path.read_text("utf-8").splitlines())


def test_no_file_is_longer_than_900_lines(written: tuple[Path, ...], root: Path) -> None:
    sizes = {str(path.relative_to(root)): lines(path) for path in written if path.suffix in {".py", ".lua"}}
    assert {name: size for name, size in sizes.items() if size > MAX_FILE_LINES} == {}


def test_catalog_store_worker_and_producer_stay_within_their_budget(written: tuple[Path, ...], root: Path) -> None:
    """Docstrings and comments count, blank lines do not: the budget is about what has to be read."""
    core = root / "core" / "corral"
    engine = [
        path for path in written if path.is_relative_to(core) and _top(path, core) in ENGINE and path.name not in BESIDE
    ]
    python = sum(written_lines(path) for path in engine if path.suffix == ".py")
    lua = sum(written_lines(path) for path in engine if path.suffix == ".lua")
    assert 0 < python <= MAX_ENGINE_PYTHON, f"{python} lines of Python"
    assert 0 < lua <= MAX_ENGINE_LUA, f"{lua} lines of Lua"


def _top(path: Path, core: Path) -> str:
    return path.relative_to(core).parts[0].removesuffix(".py")


def test_the_surface_has_at_most_26_names_and_each_exists() -> None:
    assert len(corral.__all__) <= MAX_PUBLIC_NAMES, sorted(corral.__all__)
    assert [name for name in corral.__all__ if not hasattr(corral, name)] == []
    assert list(corral.__all__) == sorted(set(corral.__all__)), "in order, so that a reader finds a name"


def test_there_are_at_most_seven_hooks() -> None:
    specified = [name for name, value in vars(hookspecs).items() if hasattr(value, "corral_spec")]
    assert 0 < len(specified) <= MAX_HOOKS, specified


def test_the_core_has_at_most_22_settings() -> None:
    assert len(Settings.model_fields.keys() - {"worker"}) + len(WorkerSettings.model_fields) <= MAX_SETTINGS


def test_no_module_has_a_name_that_says_nothing(written: tuple[Path, ...], root: Path) -> None:
    modules = [path.relative_to(root) for path in written if path.suffix == ".py" and "tests" not in path.parts]
    vague = [path for path in modules if NAMES_THAT_SAY_NOTHING & {*path.parent.parts, path.stem}]
    assert vague == []
