"""What an import loads.

A producer loads declarations only, and `corral --help` the commands' names only.
`python -m bench.import_costs` prints the costs; these tests hold the reasons for them.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest

DECLARATION = """
from corral import Payload, Processor, Queue, hookimpl

class ReportExport(Payload):
    report_id: str

report_exports = Queue("report-exports", ReportExport)

@hookimpl
def corral_queues() -> list[Queue]:
    return [report_exports]

@hookimpl
def corral_processors() -> list[Processor]:
    from heavy_processor import export_report
    return [report_exports.processed_by(export_report)]
"""

STORE = {"redis", "hiredis", "corral.store", "corral.producer"}
REDIS_PY = {"redis", "redis.asyncio"}
WORKER = {
    "corral.worker",
    "corral.app",
    "corral.catalog",
    "corral.plugins",
    "corral.sql",
    "sqlalchemy",
    "cronsim",
}
TERMINAL = {"structlog", "rich", "logging.config"}
TRACES = {"opentelemetry.trace"}
SETTINGS = {"pydantic_settings", "dotenv", "corral.settings"}
NOT_FOR_A_DECLARATION = (
    STORE
    | WORKER
    | TERMINAL
    | TRACES
    | SETTINGS
    | {"asyncio", "click", "corral.cli", "corral.testing"}
)
NOT_FOR_HELP = (
    STORE
    | WORKER
    | TERMINAL
    | TRACES
    | SETTINGS
    | {"asyncio", "pydantic", "pluggy", "corral.testing"}
)


TELLING = """
import atexit, sys
atexit.register(lambda: print("loaded:", *sys.modules, file=sys.stderr))
"""


def loaded_by(*arguments: str, folder: Path) -> set[str]:
    """The names of the modules that an interpreter, run on `arguments`, has loaded at its end."""
    (folder / "sitecustomize.py").write_text(TELLING, "utf-8")
    output = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stderr
    return set(output.splitlines()[-1].removeprefix("loaded: ").split())


@pytest.mark.parametrize("statement", ["import corral", "import my_queue"])
def test_a_producer_loads_the_declaration_and_nothing_that_works(
    statement: str, tmp_path: Path
) -> None:
    (tmp_path / "my_queue.py").write_text(DECLARATION, "utf-8")
    loaded = loaded_by("-c", statement, folder=tmp_path)
    assert statement.split()[1] in loaded
    assert loaded & NOT_FOR_A_DECLARATION == set()


def test_a_part_of_a_package_loads_alone(tmp_path: Path) -> None:
    loaded = loaded_by("-c", "from corral.app import read_installed", folder=tmp_path)
    assert "corral.app.installed" in loaded
    assert (
        loaded
        & {"corral.app.working", "corral.app.producing", "corral.inspector", "corral.store.wire"}
        == set()
    )
    loaded = loaded_by("-c", "from corral.inspector import DamagedKey", folder=tmp_path)
    assert "corral.inspector.refusals" in loaded
    assert loaded & {"corral.inspector.inspector", "corral.store.wire"} == set()


@pytest.mark.parametrize("package", ["corral", "corral.app", "corral.inspector"])
def test_every_name_of_a_package_is_configured_when_it_is_asked_for(package: str) -> None:
    module = importlib.import_module(package)
    offered = dir(module)
    for name in module.__all__:
        assert name in offered
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'queues'"):
        _ = module.queues


def test_help_loads_the_names_of_the_commands_and_nothing_that_runs_them(tmp_path: Path) -> None:
    loaded = loaded_by("-m", "corral", "--help", folder=tmp_path)
    assert {"click", "corral.cli"} <= loaded
    assert loaded & NOT_FOR_HELP == set()


def test_a_command_that_logs_nothing_loads_neither_structlog_nor_rich(tmp_path: Path) -> None:
    loaded = loaded_by("-m", "corral", "check", "--json", folder=tmp_path)
    assert loaded & {"structlog", "rich"} == set()


def test_a_worker_s_logs_load_structlog_and_not_rich_even_where_it_is_installed(
    tmp_path: Path,
) -> None:
    """structlog itself would load rich: 0.3 s of a worker's start, for local variables in logs."""
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text("", "utf-8")
    loaded = loaded_by("-c", "import corral.observe.logs", folder=tmp_path)
    assert "structlog" in loaded
    assert not {name for name in loaded if name.partition(".")[0] == "rich"}


def test_the_core_does_not_need_rich() -> None:
    """It changes the tracebacks of every host that has it: structlog shows local variables there."""
    needed = {re.split(r"[^\w-]", each)[0].lower() for each in requires("corral") or ()}
    assert "structlog" in needed
    assert not {"rich", "typer"} & needed


def test_whoever_needs_the_store_gets_it(tmp_path: Path) -> None:
    """The names these tests look for are the real ones: loading the store shows them."""
    connection = loaded_by("-c", "import corral.store.connection", folder=tmp_path)
    assert {"hiredis", "corral.store"} <= connection
    assert connection & REDIS_PY == set(), "60 ms and 7 MiB, for a URL that is out of the ordinary"
    assert loaded_by("-c", "import corral.store.redis_py", folder=tmp_path) >= REDIS_PY
    assert loaded_by("-m", "corral", "plugins", folder=tmp_path) >= TRACES


PRODUCER_WITHOUT_POSIX = """
import asyncio, os, signal, sys

MISSING = {"fcntl", "pwd", "grp", "termios", "resource"}

class NoPosixModules:
    def find_spec(self, name, path=None, target=None):
        if name in MISSING:
            raise ImportError(f"no module named {name}")

for name in MISSING:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, NoPosixModules())
for module, names in (
    (os, "fork register_at_fork getuid geteuid getgid setsid killpg posix_spawn O_NOFOLLOW"),
    (signal, "SIGCHLD SIGHUP SIGUSR1 SIGKILL pthread_sigmask"),
):
    for name in names.split():
        delattr(module, name)

import corral
import corral.app.producing
from corral.blocking import BlockingJobScheduler

for name in corral.__all__:
    getattr(corral, name)

async def connect() -> None:
    async with corral.connect() as jobs:
        print(type(jobs).__name__)

asyncio.run(connect())
with corral.connect_blocking() as jobs:
    print(isinstance(jobs, BlockingJobScheduler))
"""


def test_a_producer_loads_and_connects_where_python_has_no_posix_modules(tmp_path: Path) -> None:
    """As on Windows: `fcntl`, `pwd` and others are not there, nor are POSIX calls and signals."""
    result = subprocess.run(
        [sys.executable, "-c", PRODUCER_WITHOUT_POSIX],
        env=os.environ | {"REDIS_URL": "redis://127.0.0.1:1/0", "CORRAL_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["RedisJobScheduler", "True"]
