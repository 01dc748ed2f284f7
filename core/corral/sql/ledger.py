"""`Ledger`: says once that an effect may happen, in the transaction in which it does."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Final

from sqlalchemy import delete, exists, select
from sqlalchemy.dialects import postgresql, sqlite

from corral.options import milliseconds
from corral.sql.engines import Connection, connected
from corral.sql.tables import ledger, now_ms

__all__ = ["Ledger"]

MAX_LENGTH: Final = 128
"""Of a scope or a key as it is stored; a longer one is stored as its hash."""
_HASHED: Final = "sha256:"


class Ledger:
    """What has happened already: a row for each effect, unique by scope and key.

    Claim in the transaction that makes the effect. Both are committed or neither is, so a job that
    runs again after a crash finds either its claim or nothing at all.

    A scope says whose keys they are (the name of a queue, of a provider); a key names one effect
    (`job.idempotency_key`, an event's id). Any text will do, of any length.
    """

    @staticmethod
    async def claim(connection: Connection, scope: str, key: str) -> bool:
        """Claim an effect, in the caller's transaction.

        Of several transactions that claim the same at once, one gets it; the others wait until that
        one has ended, and get it if it was rolled back.

        Args:
            connection: The caller's connection or session, in its transaction.
            scope: Whose key it is.
            key: Which effect.

        Returns:
            True where the effect is the caller's to make; false where it has happened.
        """
        own = await connected(connection)
        insert = postgresql.insert if own.dialect.name == "postgresql" else sqlite.insert
        row = {"scope": _bounded(scope), "key": _bounded(key), "claimed_ms": now_ms()}
        claimed = await own.execute(
            insert(ledger).values(row).on_conflict_do_nothing().returning(ledger.c.key)
        )
        return claimed.first() is not None

    @staticmethod
    async def claimed(connection: Connection, scope: str, key: str) -> bool:
        """Whether an effect has happened, as far as the caller's transaction sees.

        It claims nothing.
        """
        row = select(ledger).where(ledger.c.scope == _bounded(scope), ledger.c.key == _bounded(key))
        return bool(await (await connected(connection)).scalar(select(exists(row))))

    @staticmethod
    async def purge(connection: Connection, scope: str, older_than: timedelta) -> int:
        """Forget old claims of one scope: from then on, what they stood for can happen again.

        Args:
            connection: The caller's connection or session, in its transaction.
            scope: Whose claims.
            older_than: Their age, by the database's clock.

        Returns:
            How many were forgotten.
        """
        before = now_ms() - milliseconds(older_than)
        old = delete(ledger).where(ledger.c.scope == _bounded(scope), ledger.c.claimed_ms < before)
        return (await (await connected(connection)).execute(old)).rowcount


def _bounded(text: str) -> str:
    """The text itself, or its hash where it is too long, or holds what a database refuses (NUL,
    half characters).
    """
    if len(text) <= MAX_LENGTH and text.isprintable() and not text.startswith(_HASHED):
        return text
    return _HASHED + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
