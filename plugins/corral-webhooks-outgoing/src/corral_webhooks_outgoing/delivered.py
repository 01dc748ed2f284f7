"""Records accepted deliveries in the database: a job that runs again sends nothing."""

from __future__ import annotations

import logging
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from corral import sql
from corral_webhooks_outgoing.endpoints import forget_failures

__all__ = ["Delivered"]

SCOPE: Final = "webhooks-outgoing"

log = logging.getLogger("corral_webhooks_outgoing")


class Delivered:
    """The deliveries that receivers have accepted, by their jobs, in the ledger.

    Args:
        engine: The database.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def has(self, connection: AsyncConnection, key: str) -> bool:
        """Whether a delivery was accepted."""
        return await sql.Ledger.is_claimed(connection, SCOPE, key)

    async def record(self, key: str, endpoint_id: str) -> None:
        """Record that a delivery was accepted, and that its endpoint does not fail any more.

        A failure is logged as a warning and not raised: the receiver has the event.
        """
        try:
            with sql.database_errors(self._engine):
                async with self._engine.begin() as connection:
                    await sql.Ledger.claim(connection, SCOPE, key)
                    await forget_failures(connection, endpoint_id)
        except Exception as error:  # noqa: BLE001  # whatever it is: another attempt would send the event again
            log.warning(
                "a webhook was delivered, but this could not be recorded: if its job runs again,"
                " it is sent again: %s",
                error,
            )
