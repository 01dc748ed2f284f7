"""Where every connection to the SQL database is made: SQLite for one machine, PostgreSQL for many.

Out of the box SQLite fails where PostgreSQL waits: two transactions that read first and write then
cannot both go on, and the second is told at once that the database is locked. So every transaction
takes its turn at its beginning.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import URL, event, make_url
from sqlalchemy import Connection as BlockingConnection
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
    from corral.processor import Deps

__all__ = ["Connection", "connected", "create_engine", "engine", "unavailable"]

Connection = AsyncConnection | AsyncSession
"""What a caller has its transaction on."""

TURN_SECONDS: Final = 30.0
"""How long a SQLite transaction waits for its turn before it fails with `database is locked`."""

_DRIVERS: Final = {"sqlite": "aiosqlite", "postgresql": "asyncpg"}
_ALIASES: Final = {
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "sqlite": "sqlite+aiosqlite",
}
"""What people write without a driver: SQLAlchemy would take one that blocks the event loop."""


@asynccontextmanager
async def engine(deps: Deps) -> AsyncIterator[AsyncEngine]:  # noqa: ARG001  # what `deps.enter` opens takes it
    """The engine of a worker, on the database that `CORRAL_DATABASE_URL` names: `await
    deps.enter(corral.sql.engine)`.

    Nothing is connected before it is used.

    Raises:
        ConfigurationError: As `create_engine`.
    """
    opened = create_engine()
    try:
        yield opened
    finally:
        await opened.dispose()


def create_engine(url: str | None = None) -> AsyncEngine:
    """An engine outside a worker, in an API process for one.

    Whoever makes it disposes of it: `await engine.dispose()`.

    On SQLite, files are in WAL mode, foreign keys are enforced, and a transaction begins with
    `BEGIN IMMEDIATE`: writers wait for each other, up to 30 s. One that only reads need not wait:
    `engine.execution_options(sqlite_begin="DEFERRED")`. What is bound to a statement is not in the
    text of its error.

    Args:
        url: `sqlite+aiosqlite:///…` or `postgresql+asyncpg://…`; the driver may be left out. None
            for what `CORRAL_DATABASE_URL` says, and without that for `corral.db` in the data
            directory.

    Raises:
        ConfigurationError: The URL is none, or of a database that nothing here is made for; or the
            data directory is open to other users.
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
        # an error's text becomes a failed job's reason, and a line of the log: no place for
        # addresses and ids
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


async def connected(given: Connection) -> AsyncConnection:
    """The connection whose transaction the caller is in."""
    return await given.connection() if isinstance(given, AsyncSession) else given


@contextmanager
def unavailable(engine: AsyncEngine) -> Iterator[None]:
    """Tell a database that is away from one that refuses a statement.

    Raises:
        DatabaseUnavailable: It could not be reached, or hung up.
    """
    where = masked(engine.url.render_as_string(hide_password=True))
    try:
        yield
    except (OSError, PoolTimeout) as error:
        raise DatabaseUnavailable(f"the database at {where} is unavailable: {error}") from error
    except DBAPIError as error:
        told = " ".join(str(error.orig).split()) or type(error.orig).__name__
        if isinstance(error, IntegrityError | DataError | NotSupportedError):
            raise
        if "corral_" in told and any(
            words in told for words in ("no such table", "does not exist")
        ):
            raise ConfigurationError(
                f"the database at {where} lacks a table: {told}", hint="corral db create"
            ) from error
        if isinstance(error, ProgrammingError):
            raise
        raise DatabaseUnavailable(f"the database at {where} is unavailable: {told}") from error


def _parsed(text: str) -> URL:
    try:
        url = make_url(text)
    except (SQLAlchemyError, ValueError):  # its text may hold what was meant as a password
        raise ConfigurationError(
            "CORRAL_DATABASE_URL is no URL of a database",
            hint="write sqlite+aiosqlite:///path/to.db or postgresql+asyncpg://user:password@host/name",
        ) from None
    url = url.set(drivername=_ALIASES.get(url.drivername, url.drivername))
    if url.get_backend_name() not in _DRIVERS:
        raise ConfigurationError(
            f"CORRAL_DATABASE_URL names the database {url.drivername!r}, which is neither SQLite nor PostgreSQL",
            hint="write sqlite+aiosqlite:///path/to.db or postgresql+asyncpg://user:password@host/name",
        )
    return url


def _make_folder(url: URL, *, private: bool) -> None:
    """SQLite makes files, not folders; the data directory is nobody else's, whatever made it."""
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
    connection.isolation_level = (
        None  # the driver would begin transactions at its own time, after the first read
    )
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: BlockingConnection) -> None:
    kind = connection.get_execution_options().get("sqlite_begin", "IMMEDIATE")
    connection.exec_driver_sql("BEGIN DEFERRED" if kind == "DEFERRED" else "BEGIN IMMEDIATE")
