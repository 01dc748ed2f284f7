"""What commands and workers do with the SQL database. `corral.sql` is imported inside: it is an extra."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from corral.app.installed import read_plugins

if TYPE_CHECKING:
    from corral.sql import MadeTable

__all__ = ["create_database"]


def create_database() -> Sequence[MadeTable]:
    """Make the tables that are missing; see `corral.sql.create_tables`.

    Raises:
        CorralError: The extra is not installed, a plugin cannot be asked, or the database is away.
    """
    settings, plugins = read_plugins()
    from corral import sql  # noqa: PLC0415  # as above

    async def create() -> Sequence[MadeTable]:
        engine = sql.create_engine(settings.effective_database_url.get_secret_value())
        try:
            return await sql.create_tables(engine, plugins)
        finally:
            await engine.dispose()

    return asyncio.run(create())
