"""What commands and workers do with the SQL database.

`corral.sql` is imported inside: it is an extra.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from corral.app.installed import Installed, read_installed, read_plugins
from corral.app.service import run_service
from corral.embedded.server import chosen_store
from corral.loggers import Logger
from corral.observe.logs import configure_logs
from corral.plugins import Plugins
from corral.settings import Settings
from corral.shutdown import Demand, on_stop
from corral.tasks import start_task
from corral.worker.stopping import end_tasks

if TYPE_CHECKING:
    from corral.sql import MadeTable, OutboxRelay, Relayed

__all__ = ["create_database", "prepare_database", "relay_outbox", "relaying"]

log = Logger("corral")

BATCH_SECONDS = 5.0
"""How long a relay's last batch may take when its worker stops; what it does not delete, the next
one finds written.
"""


def create_database() -> Sequence[MadeTable]:
    """Make the tables that are missing; see `corral.sql.create_tables`.

    Raises:
        CorralError: The extra is not installed, a plugin cannot be asked, or the database is away.
    """
    return _created(*read_plugins())


def prepare_database(installed: Installed) -> None:
    """Make the missing tables of a development machine: of the file in its data directory, if no
    database is named.

    A database that has a name is somebody's, and its tables are made when they say so.

    Raises:
        CorralError: As `create_database`.
    """
    settings, plugins = installed.settings, installed.plugins
    if settings.database_url is None and plugins.implementations("corral_tables"):
        made = [each.table for each in _created(settings, plugins) if each.made]
        log.info(
            "database",
            url=settings.effective_database_url.get_secret_value(),
            tables_made=len(made),
        )


def _created(settings: Settings, plugins: Plugins) -> Sequence[MadeTable]:
    from corral import sql  # noqa: PLC0415  # as above

    async def create() -> Sequence[MadeTable]:
        engine = sql.create_engine(_named(settings))
        try:
            return await sql.create_tables(engine, plugins)
        finally:
            await engine.dispose()

    return asyncio.run(create())


def _named(settings: Settings) -> str | None:
    """The database that the settings name; None for the file in the data directory."""
    return None if settings.database_url is None else settings.database_url.get_secret_value()


def relay_outbox(*, once: bool) -> Relayed | None:
    """Carry the outbox's jobs to the store: what there is, or, until SIGTERM or SIGINT, whatever
    comes.

    Returns:
        What was relayed, where it was to be done once.

    Raises:
        CorralError: The extra is not installed, the catalog was refused, the store or the database
        is away.
    """
    installed = read_installed()
    configure_logs(installed.settings)
    with chosen_store(installed.settings) as url:

        async def relay() -> Relayed | None:
            async with _opened(installed, url) as relay:
                if once:
                    return await relay.drain()
                loop = asyncio.get_running_loop()
                with on_stop(
                    Demand(BATCH_SECONDS, stop=lambda: loop.call_soon_threadsafe(relay.stop))
                ):
                    await relay.run()
                return None

        return run_service(relay())


@asynccontextmanager
async def relaying(installed: Installed, url: str) -> AsyncIterator[None]:
    """Relay the outbox beside a worker, if it has a database: one that is named, or the file in the
    data directory.

    Raises:
        CorralError: On entering: a database is named and the extra is not installed, or the URL
        cannot be used.
    """
    settings = installed.settings
    if settings.database_url is None and not settings.database_file.exists():
        yield
        return
    async with _opened(installed, url) as relay:
        running = start_task(relay.run(), "corral-outbox")
        try:
            yield
        finally:
            relay.stop()
            await asyncio.wait([running], timeout=BATCH_SECONDS)
            await end_tasks([running])


@asynccontextmanager
async def _opened(installed: Installed, url: str) -> AsyncIterator[OutboxRelay]:
    from corral import sql  # noqa: PLC0415  # as above

    engine = sql.create_engine(_named(installed.settings))
    relay = sql.OutboxRelay(engine, installed.catalog, url=url, prefix=installed.settings.prefix)
    try:
        yield relay
    finally:
        await relay.close()
        await engine.dispose()
