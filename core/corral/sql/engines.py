"""Makes every connection to the SQL database: SQLite for one machine, PostgreSQL for many.

By default SQLite fails where PostgreSQL waits: of two transactions that read first and write then,
the second fails at once with "database is locked". So here every SQLite transaction takes the write
lock when it begins.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import URL, Insert, Table, event, make_url
from sqlalchemy import Connection as BlockingConnection
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    NotSupportedError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine

from corral.embedded.data_directory import ensure_private
from corral.errors import ConfigurationError, DatabaseUnavailable, MissingExtra
from corral.redactor import masked
from corral.settings import Settings

if TYPE_CHECKING:
    from corral.deps import Deps

__all__ = [
    "Connection",
    "connection_of",
    "create_engine",
    "database_errors",
    "engine",
    "insert_if_absent",
]

Connection = AsyncConnection | AsyncSession
"""What a caller has its transaction on."""

TURN_SECONDS: Final = 30.0
"""How long a SQLite transaction waits for the write lock before it fails."""

_URL_HINT: Final = (
    "write sqlite+aiosqlite:///path/to.db or postgresql+asyncpg://user:password@host/name"
)
_DRIVERS: Final = {"sqlite": "aiosqlite", "postgresql": "asyncpg"}
_ALIASES: Final = {
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "sqlite": "sqlite+aiosqlite",
}
"""URLs without a driver: for these, SQLAlchemy would take one that blocks the event loop."""


@asynccontextmanager
async def engine(deps: Deps) -> AsyncIterator[AsyncEngine]:  # noqa: ARG001  # `deps.enter` passes it
    """The engine of a worker: `await deps.enter(corral.sql.engine)`.

    Its database is the one that `CORRAL_DATABASE_URL` names. It connects when it is first used.

    Raises:
        ConfigurationError: As for `create_engine`.
    """
    opened = create_engine()
    try:
        yield opened
    finally:
        await opened.dispose()


def create_engine(url: str | None = None) -> AsyncEngine:
    """Create an engine outside of a worker, in an API process for example.

    The caller disposes of it: `await engine.dispose()`.

    On SQLite, files are in WAL mode, foreign keys are enforced, and a transaction begins with
    `BEGIN IMMEDIATE`: writers wait for each other, up to 30 s. A transaction that only reads need
    not wait: `engine.execution_options(sqlite_begin="DEFERRED")`. The text of a statement's error
    does not contain its parameters.

    Args:
        url: `sqlite+aiosqlite:///…` or `postgresql+asyncpg://…`; the driver may be left out. None
            for `CORRAL_DATABASE_URL`, or without that for `corral.db` in the data directory.

    Raises:
        ConfigurationError: It is no URL, or of a database that is not supported; or the data
            directory is open to other users.
        MissingExtra: The database's driver is not installed.
    """
    in_data_dir = False
    if url is None:
        settings = Settings.read(None)
        url, in_data_dir = (
            settings.effective_database_url.get_secret_value(),
            settings.database_url is None,
        )
    parsed = _parsed(url)
    sqlite = parsed.get_backend_name() == "sqlite"
    if sqlite:
        _make_folder(parsed, private=in_data_dir)
    options: dict[str, Any] = (
        {"connect_args": {"timeout": TURN_SECONDS}} if sqlite else {"pool_pre_ping": True}
    )
    try:
        # hide_parameters: an error's text becomes a failed job's reason, and a line of the log.
        # Neither is a place for addresses and ids.
        made = create_async_engine(parsed, hide_parameters=True, **options)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"{error.name} is not installed: install the extra 'sql' from where you got corral"
        ) from error
    except SQLAlchemyError as error:
        raise ConfigurationError(
            f"CORRAL_DATABASE_URL {masked(str(parsed))!r} cannot be used: {error}"
        ) from error
    if sqlite:
        event.listen(made.sync_engine, "connect", _prepare_sqlite)
        event.listen(made.sync_engine, "begin", _begin_sqlite)
    return made


async def connection_of(given: Connection) -> AsyncConnection:
    """The connection that has the caller's transaction, of a session or of itself."""
    return await given.connection() if isinstance(given, AsyncSession) else given


def insert_if_absent(connection: AsyncConnection, table: Table) -> Insert:
    """An INSERT that leaves out rows whose unique key exists; `returning` has the new ones only.

    Where another transaction inserts the same key, it waits for that one's end.

    Args:
        connection: What it is executed on: each database has its own statement for this.
        table: The table.
    """
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    return insert(table).on_conflict_do_nothing()


@contextmanager
def database_errors(engine: AsyncEngine) -> Iterator[None]:
    """Raise an error of ours if the database is away; let refused statements through.

    Raises:
        DatabaseUnavailable: The database could not be reached, or closed the connection.
        ConfigurationError: It lacks one of our tables.
    """
    where = masked(engine.url.render_as_string(hide_password=True))
    try:
        yield
    except (OSError, PoolTimeout) as error:
        raise DatabaseUnavailable(f"the database at {where} is unavailable: {error}") from error
    except DBAPIError as error:
        reason = " ".join(str(error.orig).split()) or type(error.orig).__name__
        if isinstance(error, IntegrityError | DataError | NotSupportedError):
            raise
        if "corral_" in reason and any(
            words in reason for words in ("no such table", "does not exist")
        ):
            raise ConfigurationError(
                f"the database at {where} lacks a table: {reason}", hint="corral db create"
            ) from error
        if isinstance(error, ProgrammingError):
            raise
        raise DatabaseUnavailable(f"the database at {where} is unavailable: {reason}") from error


def _parsed(text: str) -> URL:
    try:
        url = make_url(text)
    except (SQLAlchemyError, ValueError):  # `from None`: its text may hold the password
        raise ConfigurationError(
            "CORRAL_DATABASE_URL is no URL of a database", hint=_URL_HINT
        ) from None
    url = url.set(drivername=_ALIASES.get(url.drivername, url.drivername))
    if url.get_backend_name() not in _DRIVERS:
        raise ConfigurationError(
            f"CORRAL_DATABASE_URL names the database {url.drivername!r}, "
            "which is neither SQLite nor PostgreSQL",
            hint=_URL_HINT,
        )
    return url


def _make_folder(url: URL, *, private: bool) -> None:
    """Make the folder of a SQLite file, which SQLite does not make.

    A data directory of ours is made private.
    """
    if url.database and url.database != ":memory:" and not url.database.startswith("file:"):
        folder = Path(url.database).parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if private:
                ensure_private(folder)
        except OSError as error:
            raise ConfigurationError(
                f"cannot make the folder {str(folder)!r}: {error.strerror}"
            ) from error


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # Else the driver itself begins transactions, after the first read.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: BlockingConnection) -> None:
    kind = connection.get_execution_options().get("sqlite_begin", "IMMEDIATE")
    connection.exec_driver_sql("BEGIN DEFERRED" if kind == "DEFERRED" else "BEGIN IMMEDIATE")
