"""What a real process loads: an idle worker and a command have only what they use.

`tests/wheels/test_cost.py` bounds the memory and the seconds; `tests/unit/test_imports.py` holds
the same for imports alone.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.asyncio]

REDIS_PY = {"redis", "redis.client", "redis.asyncio"}
DATABASE = {"sqlalchemy", "sqlalchemy.orm", "corral.sql", "aiosqlite", "asyncpg"}
TERMINAL = {"rich.console", "rich.table", "rich.traceback"}
BOARD = {"corral.board", "starlette", "uvicorn", "jinja2", "prometheus_client"}
TESTS = {"corral.testing", "pytest", "hypothesis"}
NOT_FOR_A_WORKER = REDIS_PY | DATABASE | TERMINAL | BOARD | TESTS
NOT_FOR_ONE_JOB = NOT_FOR_A_WORKER | {
    *(
        "corral.worker.worker",
        "corral.worker.consumer",
        "corral.app.working",
        "corral.app.scheduling",
    ),
    *(
        "corral.inspector.inspector",
        "corral.inspector.bulk",
        "corral.observe.http_server",
        "http.server",
        "cronsim",
    ),
}

TELLING = """
import atexit, sys
atexit.register(lambda: print("loaded:", *sys.modules, file=sys.stderr))
"""


@pytest.fixture
def loads(command: Any, acme: Path) -> Callable[..., Loads]:
    """`loads("worker", …)`: a command that says at its end what it has loaded."""
    (acme / "sitecustomize.py").write_text(TELLING, "utf-8")
    return lambda *arguments, **settings: Loads(command(*arguments, **settings))


class Loads:
    """A command and, once it has ended, the modules that it has loaded."""

    def __init__(self, command: Any) -> None:
        self.command = command

    def modules(self) -> set[str]:
        assert self.command.wait() == 0, self.command.said
        return set(self.command.said.splitlines()[-1].removeprefix("loaded: ").split())

    async def once_it_works(self, wait_until: Any) -> set[str]:
        await wait_until(lambda: "worker started" in self.command.said, "the worker to start")
        self.command.process.send_signal(signal.SIGTERM)
        return self.modules()


async def test_a_command_that_enqueues_loads_no_worker_and_no_other_client(loads: Any) -> None:
    modules = loads("enqueue", "acme-letters", '{"text": "a"}').modules()
    assert {"corral.producer", "corral.store.wire", "acme_letters", "hiredis"} <= modules
    assert modules & NOT_FOR_ONE_JOB == set()


async def test_a_worker_without_a_database_loads_none_and_no_other_client(
    loads: Any, wait_until: Any
) -> None:
    modules = await loads("worker").once_it_works(wait_until)
    assert {"corral.worker.consumer", "corral.inspector.inspector"} <= modules
    assert modules & NOT_FOR_A_WORKER == set()


async def test_what_a_worker_uses_it_loads(loads: Any, wait_until: Any, store_url: str) -> None:
    """The names that these tests look for are the real ones."""
    settings = {
        "REDIS_URL": f"{store_url}?client_name=app",
        "CORRAL_DATABASE_URL": "sqlite+aiosqlite:///:memory:",
    }
    modules = await loads("worker", **settings).once_it_works(wait_until)
    assert modules >= REDIS_PY | {"sqlalchemy", "sqlalchemy.orm", "corral.sql", "aiosqlite"}
