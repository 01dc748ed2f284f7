"""`corral db create`, `corral outbox relay`, and the relay beside a worker, as their users see them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

ENQUEUE = """
import asyncio, sys
import corral
from corral import sql
from acme_letters import Letter, letters

async def main():
    async with corral.connect() as jobs:
        engine = sql.create_engine()
        async with engine.begin() as connection:
            for text in sys.argv[1:]:
                job = await sql.Outbox(jobs).within(connection).enqueue(letters, Letter(text=text))
                print("job", job.id)
        await engine.dispose()

asyncio.run(main())
"""


@pytest.fixture
def enqueue(acme: Path, store_url: str, tmp_path: Path) -> Callable[..., list[str]]:
    """An application that commits jobs to the outbox, and ends."""

    def enqueue(database: str | None, *texts: str) -> list[str]:
        own = {"PYTHONPATH": str(acme), "REDIS_URL": store_url}
        own |= {"CORRAL_DATABASE_URL": database} if database else {}
        ran = subprocess.run(
            [sys.executable, "-W", "error", "-c", ENQUEUE, *texts],
            cwd=tmp_path / "work",
            env={**os.environ, **own},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return [
            line.removeprefix("job ") for line in ran.stdout.splitlines() if line.startswith("job ")
        ]

    return enqueue


def done(command: Any) -> str:
    assert command.wait() == 0, command.said
    return command.result


def test_create_says_what_it_made_and_is_safe_to_repeat(command, database_url) -> None:
    first = command("db", "create", CORRAL_DATABASE_URL=database_url)
    rows = [line.split() for line in done(first).splitlines()]
    assert rows[0] == ["TABLE", "DISTRIBUTION", "VERSION", "STATE"]
    assert {(row[0], row[1], row[3]) for row in rows[1:]} >= {
        ("corral_ledger", "corral", "created"),
        ("corral_outbox", "corral", "created"),
    }
    again = json.loads(done(command("db", "create", "--json", CORRAL_DATABASE_URL=database_url)))
    assert [row["table"] for row in again] == [row[0] for row in rows[1:]]
    assert not any(row["made"] for row in again)
    assert {row["distribution"] for row in again} >= {"corral"}


def test_relay_once_carries_what_there_is(command, database_url, enqueue, store_url) -> None:
    done(command("db", "create", CORRAL_DATABASE_URL=database_url))
    enqueue(database_url, "a", "b")
    assert (
        done(command("outbox", "relay", "--once", CORRAL_DATABASE_URL=database_url))
        == "2 relayed, 0 set aside\n"
    )
    assert (
        done(command("outbox", "relay", "--once", CORRAL_DATABASE_URL=database_url))
        == "0 relayed, 0 set aside\n"
    )
    with redis.Redis.from_url(store_url) as client:
        assert client.llen("bull:acme-letters:wait") == 2


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "arguments", [("outbox", "relay"), ("worker", "acme-letters")], ids=" ".join
)
async def test_what_is_committed_while_it_runs_is_relayed_until_it_is_stopped(
    command, database_url, enqueue, raw, wait_until, arguments
) -> None:
    done(command("db", "create", CORRAL_DATABASE_URL=database_url))
    relaying = command(*arguments, CORRAL_DATABASE_URL=database_url)
    (first,) = enqueue(database_url, "a")

    async def arrived(job: str) -> bool:
        return await raw.exists(f"bull:acme-letters:{job}") == 1

    await wait_until(lambda: arrived(first), "the first job is in the store")
    (second,) = enqueue(database_url, "b")
    await wait_until(lambda: arrived(second), "the second job is in the store")
    relaying.process.send_signal(signal.SIGTERM)
    assert relaying.wait() == 0, relaying.said
    assert relaying.result == ""
    assert "Traceback" not in relaying.said


@pytest.mark.asyncio
async def test_a_worker_relays_the_file_of_its_data_directory_where_there_is_one(
    command, enqueue, raw, wait_until
) -> None:
    done(command("db", "create"))
    worker = command("worker", "acme-letters")
    (job,) = enqueue(None, "a")

    async def ran() -> bool:
        return await raw.zscore("bull:acme-letters:completed", job) is not None

    await wait_until(ran, "the job has run")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.wait() == 0, worker.said


@pytest.mark.asyncio
async def test_a_worker_without_an_outbox_says_so_and_works(
    command, database_url, raw, wait_until
) -> None:
    worker = command(
        "worker", "acme-letters", CORRAL_DATABASE_URL=database_url, CORRAL_LOG_FORMAT="json"
    )
    job = done(command("enqueue", "acme-letters", "{}")).strip()

    async def ran() -> bool:
        return await raw.zscore("bull:acme-letters:completed", job) is not None

    await wait_until(ran, "the job has run")
    await wait_until(lambda: "relaying the outbox failed" in worker.said, "it is reported")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.wait() == 0
    lines = [
        json.loads(line)
        for line in worker.said.splitlines()
        if "relaying the outbox failed" in line
    ]
    assert [line["hint"] for line in lines] == ["corral db create"]


def test_refusals_are_a_sentence_and_an_exit_code(command) -> None:
    away = command(
        "db", "create", CORRAL_DATABASE_URL="postgresql://app:hunter2@/app?host=/nowhere"
    )
    assert away.wait() == 4
    assert away.said.startswith("error: the database at postgresql+asyncpg://app:***@/app")
    assert "Traceback" not in away.said
    other = command("outbox", "relay", "--once", CORRAL_DATABASE_URL="mysql://app@db/app")
    assert other.wait() == 2
    assert other.said.startswith("error: CORRAL_DATABASE_URL names the database 'mysql'")
    bare = command("outbox", "relay", "--once")
    assert bare.wait() == 2
    assert bare.said.splitlines()[1] == "  hint: corral db create"
    assert "lacks a table" in bare.said


def test_without_the_extra_a_command_and_a_worker_name_the_installation(command, acme) -> None:
    (acme / "sqlalchemy.py").write_text("raise ModuleNotFoundError(name='sqlalchemy')\n", "utf-8")
    for arguments in [("db", "create"), ("worker", "acme-letters")]:
        refused = command(*arguments, CORRAL_DATABASE_URL="sqlite:///x.db")
        assert refused.wait() == 2
        assert refused.said.splitlines()[-1].endswith(
            "corral.sql needs SQLAlchemy, which is not installed: install the extra 'sql' from where you got corral"
        )
        assert "Traceback" not in refused.said


SHOP = """
from sqlalchemy import Column, Integer, MetaData, Table
from corral import hookimpl

metadata = MetaData()
Table("shop_orders", metadata, Column("id", Integer, primary_key=True))

@hookimpl
def corral_tables():
    return [metadata]
"""


@pytest.mark.parametrize("is_named", [False, True])
def test_dev_makes_the_tables_of_its_own_database_and_of_no_other(
    command, acme, tmp_path, is_named
) -> None:
    (acme / "shop.py").write_text(SHOP, "utf-8")
    named = f"sqlite:///{tmp_path}/named.db"
    with tempfile.TemporaryDirectory(prefix="corral-dev-") as folder:  # a socket's path is short
        dev = command(
            "dev",
            REDIS_URL=None,
            CORRAL_ENV=None,
            CORRAL_DATA_DIR=folder,
            CORRAL_APP="shop",
            CORRAL_DATABASE_URL=named if is_named else None,
        )
        while "worker started" not in dev.said:
            assert dev.process.poll() is None, dev.said
            with contextlib.suppress(subprocess.TimeoutExpired):
                dev.process.wait(0.02)
        dev.process.send_signal(signal.SIGINT)
        assert dev.wait() == 0
        files = [
            path for path in (Path(folder) / "corral.db", tmp_path / "named.db") if path.exists()
        ]
        tables = {
            name
            for path in files
            for (name,) in sqlite3.connect(path).execute("SELECT name FROM sqlite_master")
        }
    assert ("shop_orders" in tables) is not is_named
    assert ("tables_made" in dev.said) is not is_named
