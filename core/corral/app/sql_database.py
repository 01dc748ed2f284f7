"""What commands and workers do with the SQL database.

`corral.sql` is imported inside: it is an extra.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from corral.app.installed import Installed, read_installed, read_plugins
from corral.app.service import run_service
from corral.embedded.server import open_store
from corral.errors import MissingExtra
from corral.loggers import Logger
from corral.observe.logs import configure_logs
from corral.plugins import Plugins
from corral.settings import Settings
from corral.shutdown import StopHandler, on_stop
from corral.tasks import end_tasks, start_task

if TYPE_CHECKING:
    from corral.sql import OutboxRelay, Relayed
    from corral.sql.creating import TableState

__all__ = ["create_database", "prepare_database", "relay_beside_worker", "relay_outbox"]

log = Logger("corral")

BATCH_SECONDS = 5.0
"""How long a relay's last batch may take when its worker stops. Jobs that it wrote and did not
delete from the outbox are found written by the next relay.
"""


def create_database() -> Sequence[TableState]:
    """Create the tables that are missing; see `corral.sql.creating.create_tables`.

    Raises:
        CorralError: The extra is not installed, a plugin cannot be asked, or the database is away.
    """
    return _create_tables(*read_plugins())


def prepare_database(installed: Installed) -> None:
    """Create the missing tables in the SQLite file of a development machine's data directory.

    If `CORRAL_DATABASE_URL` names a database, nothing is created: `corral db create` does that.

    Raises:
        CorralError: As `create_database`.
    """
    settings, plugins = installed.settings, installed.plugins
    if settings.database_url is None and plugins.implementations("corral_tables"):
        made = [each.table for each in _create_tables(settings, plugins) if each.made]
        log.info(
            "database is ready",
            url=settings.effective_database_url.get_secret_value(),
            tables_made=len(made),
        )


def _create_tables(settings: Settings, plugins: Plugins) -> Sequence[TableState]:
    _require_sqlalchemy(plugins)
    from corral import sql  # noqa: PLC0415  # an extra
    from corral.sql.creating import create_tables  # noqa: PLC0415  # as above

    async def create() -> Sequence[TableState]:
        engine = sql.create_engine(_database_url(settings))
        try:
            return await create_tables(engine, plugins)
        finally:
            await engine.dispose()

    return asyncio.run(create())


def _require_sqlalchemy(plugins: Plugins) -> None:
    """Refuse to ask plugins for their tables without SQLAlchemy.

    Raises:
        MissingExtra: SQLAlchemy is not installed. Names the distributions that declare tables.
    """
    declaring = plugins.implementations("corral_tables")
    if declaring and find_spec("sqlalchemy") is None:
        names = " and ".join(dict.fromkeys(str(each.provider) for each in declaring))
        verb = "declares" if names == str(declaring[0].provider) else "declare"
        raise MissingExtra(
            f"{names} {verb} SQL tables (corral_tables), and SQLAlchemy is not installed: install"
            " the extra 'sql' from where you got corral"
        )


def _database_url(settings: Settings) -> str | None:
    """The URL of the database in the settings; None for the file in the data directory."""
    return None if settings.database_url is None else settings.database_url.get_secret_value()


def relay_outbox(*, once: bool) -> Relayed | None:
    """Relay the outbox's jobs to the store, once or until SIGTERM or SIGINT.

    Args:
        once: Whether to relay only the jobs that are there now.

    Returns:
        What was relayed; None if it ran until a signal.

    Raises:
        CorralError: The extra is not installed, the catalog was refused, the store or the database
            is away.
    """
    installed = read_installed()
    configure_logs(installed.settings)
    with open_store(installed.settings) as url:

        async def relay() -> Relayed | None:
            async with _open_relay(installed, url) as relay:
                if once:
                    return await relay.drain()
                loop = asyncio.get_running_loop()
                with on_stop(
                    StopHandler(BATCH_SECONDS, stop=lambda: loop.call_soon_threadsafe(relay.stop))
                ):
                    await relay.run()
                return None

        return run_service(relay())


@asynccontextmanager
async def relay_beside_worker(installed: Installed, url: str) -> AsyncIterator[None]:
    """Relay the outbox while a worker runs, if `CORRAL_DATABASE_URL` or the SQLite file is there.

    Raises:
        CorralError: On entering: a database is named and the extra is not installed, or the URL
            cannot be used.
    """
    settings = installed.settings
    if settings.database_url is None and not settings.database_file.exists():
        yield
        return
    async with _open_relay(installed, url) as relay:
        running = start_task(relay.run(), "corral-outbox")
        try:
            yield
        finally:
            relay.stop()
            await asyncio.wait([running], timeout=BATCH_SECONDS)
            await end_tasks([running])


@asynccontextmanager
async def _open_relay(installed: Installed, url: str) -> AsyncIterator[OutboxRelay]:
    from corral import sql  # noqa: PLC0415  # an extra

    engine = sql.create_engine(_database_url(installed.settings))
    relay = sql.OutboxRelay(engine, installed.catalog, url=url, prefix=installed.settings.prefix)
    try:
        yield relay
    finally:
        await relay.close()
        await engine.dispose()
