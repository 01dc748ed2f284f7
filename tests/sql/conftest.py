"""Every test here runs on SQLite and on a real PostgreSQL: a throw-away cluster that listens on a unix socket only."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from corral import sql
from integration.conftest import acme, command

__all__ = ["acme", "command"]

REASON = "no PostgreSQL server is installed (Debian: apt-get install postgresql): its half of tests/sql is skipped"


def _programs() -> Path | None:
    """The folder of `initdb`, `pg_ctl` and `postgres`: Debian keeps them off the PATH."""
    found = [Path(path).resolve().parent for path in (shutil.which("initdb"), shutil.which("postgres")) if path]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in found if all((folder / name).exists() for name in ("initdb", "pg_ctl"))), None)


def _somebody() -> dict[str, Any]:
    """PostgreSQL refuses to run as root: then it runs as its own user, or as nobody."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    other = names.get("postgres") or names["nobody"]
    return {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": []}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Path]:
    """The folder of the socket of a PostgreSQL that lives as long as the session; trusts everybody who reaches it."""
    programs = _programs()
    if programs is None:
        if os.environ.get("CI") == "true":
            pytest.fail(REASON, pytrace=False)
        pytest.skip(REASON)
    somebody = _somebody()
    with tempfile.TemporaryDirectory(prefix="corral-pg-") as name:
        folder, data = Path(name), Path(name) / "data"
        if somebody:
            os.chown(folder, somebody["user"], somebody["group"])

        def run(program: str, *arguments: object) -> None:
            log = folder / f"{program}.out"
            with log.open("ab") as out:
                done = subprocess.run(
                    [programs / program, *map(str, arguments)],
                    cwd=folder,
                    stdout=out,
                    stderr=out,
                    timeout=60,
                    check=False,
                    **somebody,
                )
            assert done.returncode == 0, log.read_text("utf-8", "replace")

        run("initdb", "-D", data, "-U", "corral", "--auth=trust", "--no-sync", "--encoding=UTF8", "--no-locale")
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off -c max_connections=50"
        run("pg_ctl", "-D", data, "-w", "-t", "30", "-l", folder / "server.log", "-o", options, "start")
        try:
            yield folder
        finally:
            run("pg_ctl", "-D", data, "-w", "-t", "30", "-m", "immediate", "stop")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Give all tests that PostgreSQL's absence skips one place, so that they are told in one counted line."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple) and REASON in report.longrepr[2]:
        report.longrepr = (__file__, 1, report.longrepr[2])
    return report


_numbers = itertools.count(1)


@pytest_asyncio.fixture(params=["sqlite", "postgresql"])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """The URL of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path}/corral.db"
        return
    cluster = request.getfixturevalue("cluster")
    name = f"test_{next(_numbers)}"
    admin = await asyncpg.connect(host=str(cluster), user="corral", database="postgres")
    try:
        await admin.execute(f"CREATE DATABASE {name}")
        yield f"postgresql+asyncpg://corral@/{name}?host={cluster}"
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()


@pytest_asyncio.fixture
async def bare_engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """An engine on a database without tables."""
    engine = sql.create_engine(database_url)
    yield engine
    await engine.dispose()


@pytest_asyncio.fixture
async def engine(bare_engine: AsyncEngine) -> AsyncEngine:
    """An engine on a database that has the core's tables."""
    async with bare_engine.begin() as connection:
        await connection.run_sync(sql.metadata.create_all)
    return bare_engine
