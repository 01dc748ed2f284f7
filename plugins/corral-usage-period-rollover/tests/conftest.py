"""Both databases, empty, with the plugin's tables; and the plugin's hooks, with subscribers of a test."""

from __future__ import annotations

import asyncio
import inspect
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pluggy
import pytest
import pytest_asyncio
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

import corral_usage_period_rollover
from corral import hookspecs, testing
from corral.sql import create_engine
from corral_usage_period_rollover.rollover import Closed, Rollover
from corral_usage_period_rollover.tables import metadata, usage_periods, usage_totals

SECONDS = 60
"""How long a program may take; a database cluster is made in two."""


NO_SERVER = "no PostgreSQL server is installed (Debian: apt-get install postgresql)"


def server_programs() -> Path | None:
    """The folder of PostgreSQL's programs; Debian keeps them off the PATH."""
    found = [Path(path).resolve().parent for path in [shutil.which("initdb")] if path]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in found if (folder / "pg_ctl").exists()), None)


def somebody_else() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """A PostgreSQL of this test run alone, on a unix socket."""
    programs = server_programs()
    if programs is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(NO_SERVER)
    with tempfile.TemporaryDirectory(prefix="corral-pg-") as name:
        folder, data, other = Path(name), Path(name) / "data", somebody_else()
        if other:
            os.chown(folder, other["user"], other["group"])

        def run(program: str, *arguments: object) -> None:
            with (folder / "out").open("ab") as out:  # not a pipe: the server would keep it open
                command = [programs / program, "-D", data, *map(str, arguments)]
                ended = subprocess.run(
                    command, cwd=folder, stdout=out, stderr=out, check=False, timeout=SECONDS, **other
                )
            assert ended.returncode == 0, (folder / "out").read_text("utf-8", "replace")

        run("initdb", "--no-sync", "--auth=trust", "--username=corral", "--encoding=UTF8")
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
        run("pg_ctl", "start", "-w", "-o", options)
        try:
            yield f"postgresql+asyncpg://corral@/postgres?host={folder}"
        finally:
            run("pg_ctl", "stop", "-w", "-m", "immediate")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database; SQLite's is a file, because rollovers have several connections."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/usage.db"
    url: str = request.getfixturevalue("postgresql_url")
    return url


@pytest_asyncio.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """The database with our tables, and nothing in them."""
    engine = create_engine(database_url)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.drop_all)
        await connection.run_sync(metadata.create_all)
    yield engine
    await engine.dispose()


class Books:
    """A database and its rollover.

    Attributes:
        engine: The database.
        rollover: Closes its periods.
    """

    def __init__(self, engine: AsyncEngine, rollover: Rollover) -> None:
        self.engine = engine
        self.rollover = rollover

    async def run(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """One of the application's calls, in a transaction of its own."""
        async with self.engine.begin() as connection:
            return await function(connection, *arguments, **named)

    async def close(self, now: datetime, tick: datetime | None = None) -> Closed:
        async with asyncio.timeout(SECONDS):
            return await self.rollover.close_due(now, tick or now)

    async def periods(self, subscription_id: str = "ada") -> list[tuple[datetime, datetime, datetime | None]]:
        """Its periods in order: start, end, and when each was closed."""
        told = usage_periods.c
        query = select(told.started_at, told.ends_at, told.closed_at).where(told.subscription_id == subscription_id)
        async with self.engine.connect() as connection:
            return [tuple(row) for row in await connection.execute(query.order_by(told.started_at))]

    async def totals(self, subscription_id: str = "ada") -> dict[tuple[datetime, str], int]:
        """What was totalled, by the beginning of the period and the metric."""
        told = usage_totals.c
        query = select(told.started_at, told.metric, told.amount).where(told.subscription_id == subscription_id)
        async with self.engine.connect() as connection:
            return {(start, metric): amount for start, metric, amount in await connection.execute(query)}


def hook_of(**subscribers: Callable[..., Any]) -> pluggy.HookRelay:
    """The plugin's hooks as a worker calls them, with a subscriber for each hook that is named."""
    manager = pluggy.PluginManager("corral")
    manager.add_hookspecs(hookspecs)
    for offered in corral_usage_period_rollover.corral_hookspecs():
        manager.add_hookspecs(offered)
    manager.register(corral_usage_period_rollover)
    manager.register(SimpleNamespace(**{name: hookspecs.hookimpl(made) for name, made in subscribers.items()}))
    manager.check_pending()
    return manager.hook


@pytest.fixture
def books(engine: AsyncEngine) -> Callable[..., Books]:
    """`books(corral_usage_period_closed=…)`: the database, its rollover, and subscribers to its hooks."""
    return lambda **subscribers: Books(
        engine, Rollover(engine, hook_of(**subscribers), testing.RecordingJobScheduler())
    )


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    """`await wait_until(predicate, "what is awaited")`, bounded; the predicate may be a coroutine function."""

    async def wait(predicate: Callable[[], Any], what: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not (await met if inspect.isawaitable(met := predicate()) else met):
            assert time.monotonic() < deadline, f"waited {SECONDS} s in vain until {what}"
            await asyncio.sleep(0.02)

    return wait


@pytest.fixture
def python() -> Callable[..., str]:
    """Runs a program to its end in an interpreter of its own, and returns what it printed."""

    def run(program: str) -> str:
        command = [sys.executable, "-c", program]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS).stdout.strip()

    return run
