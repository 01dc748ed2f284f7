"""Engines: what each URL means, which transactions SQLite makes wait, and errors of a database."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
import traceback
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from corral import Deps, sql, testing
from corral.errors import ConfigurationError, CorralError, DatabaseUnavailable, MissingExtra
from corral.plugins import Plugins
from corral.sql.creating import create_tables


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the caller, and a working directory of its own."""
    for name in ("CORRAL_DATABASE_URL", "CORRAL_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.asyncio
async def test_a_worker_shares_one_engine_on_the_database_that_is_named(
    database_url, monkeypatch
) -> None:
    monkeypatch.setenv("CORRAL_DATABASE_URL", database_url)
    async with AsyncExitStack() as resources:
        deps = Deps(testing.RecordingJobScheduler(), Plugins.load([]), resources)
        engine = await deps.enter(sql.engine)
        assert engine is await deps.enter(sql.engine)
        async with engine.connect() as connection:
            assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1
    assert engine.pool.checkedout() == 0


@pytest.mark.asyncio
async def test_without_a_name_it_is_a_file_in_the_data_directory(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CORRAL_DATA_DIR", str(tmp_path / "data"))
    engine = sql.create_engine()
    async with engine.connect() as connection:
        assert (await connection.execute(text("PRAGMA journal_mode"))).scalar_one() == "wal"
    await engine.dispose()
    assert (tmp_path / "data" / "corral.db").is_file()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("sqlite:///x.db", "sqlite+aiosqlite"),
        ("sqlite://", "sqlite+aiosqlite"),
        ("postgres://app@db/app", "postgresql+asyncpg"),
        ("postgresql://app@db/app", "postgresql+asyncpg"),
        ("postgresql+asyncpg://app@db/app", "postgresql+asyncpg"),
    ],
)
async def test_the_driver_may_be_left_out(url, driver) -> None:
    engine = sql.create_engine(url)
    assert engine.url.drivername == driver
    await engine.dispose()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("hunter2", "CORRAL_DATABASE_URL is no URL of a database"),
        (
            "mysql://app:hunter2@db/app",
            "names the database 'mysql', which is neither SQLite nor PostgreSQL",
        ),
        ("postgresql+psycopg2://app:hunter2@db/app", "cannot be used: |psycopg2 is not installed"),
    ],
)
async def test_a_url_that_cannot_be_used_is_refused_without_its_password(url, message) -> None:
    with pytest.raises(CorralError, match=message) as refused:
        sql.create_engine(url)
    assert refused.value.exit_code == 2
    assert "hunter2" not in str(refused.value)


@pytest.mark.asyncio
async def test_transactions_that_read_and_then_write_wait_for_each_other(
    engine: AsyncEngine,
) -> None:
    """What SQLite refuses out of the box: `database is locked`, at once, for whoever read before
    another wrote.
    """
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE counter (n INTEGER NOT NULL)"))
        await connection.execute(text("INSERT INTO counter VALUES (0)"))

    async def count() -> None:
        async with engine.begin() as connection:
            query = "SELECT n FROM counter" + (
                " FOR UPDATE" if engine.dialect.name == "postgresql" else ""
            )
            n = (await connection.execute(text(query))).scalar_one()
            await connection.execute(text("UPDATE counter SET n = :n"), {"n": n + 1})

    await asyncio.gather(*(count() for _ in range(20)))
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT n FROM counter"))).scalar_one() == 20


@pytest.mark.asyncio
async def test_a_transaction_that_only_reads_need_not_wait_for_one_that_writes(
    engine: AsyncEngine,
) -> None:
    reading = engine.execution_options(sqlite_begin="DEFERRED")
    async with engine.begin() as writing:
        await writing.execute(sql.metadata.tables["corral_ledger"].delete())
        async with asyncio.timeout(5), reading.connect() as connection:
            assert (
                await connection.execute(text("SELECT count(*) FROM corral_ledger"))
            ).scalar_one() == 0


@pytest.mark.asyncio
async def test_foreign_keys_are_enforced(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE parcels (id INTEGER PRIMARY KEY)"))
        await connection.execute(
            text("CREATE TABLE lines (parcel INTEGER REFERENCES parcels (id))")
        )
    async with engine.connect() as connection:
        with pytest.raises(IntegrityError):
            await connection.execute(text("INSERT INTO lines VALUES (1)"))


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////proc/self/corral.db",
        "postgresql://app:hunter2@127.0.0.1:1/app",
        "postgresql://app:hunter2@/app?host=/nowhere",
    ],
)
async def test_a_database_that_does_not_answer_is_reported_in_one_sentence(url, wait_until) -> None:
    engine = sql.create_engine(url)
    with pytest.raises(DatabaseUnavailable, match=r"the database at .* is unavailable: ") as raised:
        await create_tables(engine, Plugins.load([]))
    await engine.dispose()
    left = [thread for thread in threading.enumerate() if "_connection_worker" in thread.name]
    await wait_until(
        lambda: not any(map(threading.Thread.is_alive, left)), "the driver's thread has ended"
    )
    assert raised.value.exit_code == 4
    assert "hunter2" not in str(raised.value)


@pytest.mark.asyncio
async def test_a_database_that_does_not_exist_is_reported_too(request) -> None:
    server = request.getfixturevalue("_corral_postgresql")
    engine = sql.create_engine(f"postgresql://corral@/nothing?host={server.folder}")
    with pytest.raises(DatabaseUnavailable, match='database "nothing" does not exist'):
        await create_tables(engine, Plugins.load([]))
    await engine.dispose()


def test_the_file_in_the_data_directory_is_no_other_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CORRAL_DATABASE_URL", raising=False)
    monkeypatch.setenv("CORRAL_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o755)
    sql.create_engine()
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    (tmp_path / "data" / "notes.txt").touch()
    (tmp_path / "data").chmod(0o755)
    with pytest.raises(ConfigurationError, match="is open to other users"):
        sql.create_engine()


@pytest.mark.asyncio
async def test_a_folder_that_cannot_be_made_is_reported() -> None:
    with pytest.raises(ConfigurationError, match="cannot make the folder '/proc/corral'"):
        sql.create_engine("sqlite:////proc/corral/corral.db")


@pytest.mark.parametrize("missing", ["sqlalchemy", "aiosqlite"])
def test_without_the_extra_one_sentence_names_the_installation(missing) -> None:
    script = (
        "import sys\n"
        f"sys.modules[{missing!r}] = None\n"
        "try:\n    import corral.sql\n    corral.sql.create_engine('sqlite://')\n"
        "except ImportError as error:\n    print(type(error).__name__, error)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert said.startswith(MissingExtra.__name__)
    assert said.endswith(" is not installed: install the extra 'sql' from where you got corral\n")
    assert said.count("\n") == 1


@pytest.mark.asyncio
async def test_an_unusable_transaction_is_refused_before_it_commits_nothing(engine) -> None:
    """On PostgreSQL the commit would say nothing; SQLite goes on after a failed statement, and
    nothing is lost.
    """
    async with engine.connect() as connection:
        await sql.ensure_unspoilt(connection, "acme_hook")
        with contextlib.suppress(Exception):
            await connection.execute(text("INSERT INTO no_such_table VALUES (1)"))
        if engine.dialect.name == "sqlite":
            await sql.ensure_unspoilt(connection, "acme_hook")
            return
        with pytest.raises(
            sql.TransactionSpoilt, match="acme_hook left the transaction unusable"
        ) as spoilt:
            await sql.ensure_unspoilt(connection, "acme_hook")
        assert "begin_nested" in str(spoilt.value.hint)


@pytest.mark.asyncio
async def test_a_transaction_that_a_hook_ended_is_refused(engine) -> None:
    async with engine.begin() as connection:
        await connection.rollback()
        with pytest.raises(sql.TransactionSpoilt, match="acme_hook left the transaction unusable"):
            await sql.ensure_unspoilt(connection, "acme_hook")


@pytest.mark.asyncio
async def test_an_error_does_not_show_the_parameters_of_its_statement(bare_engine) -> None:
    """Its traceback has the driver's own error, in which PostgreSQL quotes the key that is there,
    or the whole row.
    """
    add = text("INSERT INTO readers VALUES (:id, :email)")
    async with bare_engine.begin() as connection:
        await connection.execute(
            text("CREATE TABLE readers (id VARCHAR(9) PRIMARY KEY, email TEXT NOT NULL)")
        )
        await connection.execute(add, {"id": "r-1", "email": "ada@example.org"})
    raised = []
    for row in ({"id": "r-1", "email": "bob@example.org"}, {"id": "r-2", "email": None}):
        with pytest.raises(IntegrityError) as refused:
            async with bare_engine.begin() as connection:
                await connection.execute(add, row)
        raised.append(refused.value)
    assert not [
        error
        for error in raised
        if "r-1" in str(error) or "r-2" in str(error) or "bob" in str(error)
    ]
    at_length = ["".join(traceback.format_exception(error)) for error in raised]
    assert "bob@example.org" not in at_length[0]
    quoted = bare_engine.dialect.name == "postgresql"
    assert ["(r-1)" in at_length[0], "(r-2, null)" in at_length[1]] == [quoted, quoted]
