"""Which mails a server has taken: remembered in the application's database, where it has one.

SMTP cannot be asked that afterwards, so a job that runs again after a crash would send its mail
again.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from corral import Deps
from corral.errors import DatabaseUnavailable
from corral.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["Accepted"]

SCOPE = "emails"

log = logging.getLogger("corral_emails")


class Accepted:
    """The mails that were taken, by their jobs, in the ledger of `corral[sql]`.

    Args:
        engine: The database.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._reading = engine.execution_options(sqlite_begin="DEFERRED")

    @classmethod
    async def open(cls, deps: Deps) -> Accepted | None:
        """Open the ledger of a worker; None where `CORRAL_DATABASE_URL` is not set.

        The database may be away.

        Raises:
            ConfigurationError: It has no ledger: `corral db create` was not run.
        """
        if Settings.read(None).database_url is None:
            return None
        from corral import sql  # noqa: PLC0415  # an extra

        accepted = cls(await deps.enter(sql.engine))
        with suppress(DatabaseUnavailable):
            await accepted.has("")
        return accepted

    async def has(self, key: str) -> bool:
        """Whether a mail was taken.

        Raises:
            DatabaseUnavailable: Nobody knows: it is better not to send it now.
        """
        from corral import sql  # noqa: PLC0415  # as above

        with sql.database_errors(self._engine):
            async with self._reading.connect() as connection:
                return await sql.Ledger.is_claimed(connection, SCOPE, key)

    async def record(self, key: str) -> None:
        """Remember that a mail was taken.

        A failure is logged as a warning and not raised: the mail is on its way.
        """
        from corral import sql  # noqa: PLC0415  # as above

        try:
            with sql.database_errors(self._engine):
                async with self._engine.begin() as connection:
                    await sql.Ledger.claim(connection, SCOPE, key)
        except Exception as error:  # noqa: BLE001  # whatever it is: another attempt would send the mail again
            log.warning(
                "a mail was sent, but this could not be recorded: if its job runs again, it is sent"
                " again: %s",
                error,
            )
