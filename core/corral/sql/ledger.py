"""`Ledger`: lets an effect happen once, by a row in the transaction that makes the effect."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Final

from sqlalchemy import delete, exists, select

from corral.options import milliseconds
from corral.sql.engines import Connection, connection_of, insert_if_absent
from corral.sql.tables import ledger, now_ms

__all__ = ["Ledger"]

MAX_LENGTH: Final = 128
"""Characters of a scope or a key as it is stored; a longer one is stored as its hash."""
_HASHED: Final = "sha256:"


class Ledger:
    """The effects that have happened: a row for each, unique by scope and key.

    Claim in the transaction that makes the effect. Both are committed or neither is, so a job that
    runs again after a crash finds either its claim or no trace at all.

    A scope says to what the keys belong (the name of a queue or of a provider); a key names one
    effect (`job.idempotency_key`, an event's id). Both may be any text, of any length.
    """

    @staticmethod
    async def claim(connection: Connection, scope: str, key: str) -> bool:
        """Claim an effect, in the caller's transaction.

        Of several transactions that claim the same effect at once, one gets it. The others wait
        until that one has ended; if it was rolled back, one of them gets it.

        Args:
            connection: The caller's connection or session, in its transaction.
            scope: To what the key belongs.
            key: Names the effect.

        Returns:
            True if the caller is to make the effect; false if it has happened.
        """
        own = await connection_of(connection)
        row = {"scope": _bounded(scope), "key": _bounded(key), "claimed_ms": now_ms()}
        claimed = await own.execute(
            insert_if_absent(own, ledger).values(row).returning(ledger.c.key)
        )
        return claimed.first() is not None

    @staticmethod
    async def is_claimed(connection: Connection, scope: str, key: str) -> bool:
        """Whether an effect has happened, as far as the caller's transaction sees.

        It claims nothing.
        """
        row = select(ledger).where(ledger.c.scope == _bounded(scope), ledger.c.key == _bounded(key))
        return bool(await (await connection_of(connection)).scalar(select(exists(row))))

    @staticmethod
    async def purge(connection: Connection, scope: str, older_than: timedelta) -> int:
        """Delete old claims of one scope: from then on, their effects can happen again.

        Args:
            connection: The caller's connection or session, in its transaction.
            scope: The scope.
            older_than: Their age, by the database's clock.

        Returns:
            How many were deleted.
        """
        before = now_ms() - milliseconds(older_than)
        old = delete(ledger).where(ledger.c.scope == _bounded(scope), ledger.c.claimed_ms < before)
        return (await (await connection_of(connection)).execute(old)).rowcount


def _bounded(text: str) -> str:
    """The text, or its hash if it is too long or has characters that a database refuses.

    Those are NUL and halves of surrogate pairs, among others.
    """
    if len(text) <= MAX_LENGTH and text.isprintable() and not text.startswith(_HASHED):
        return text
    return _HASHED + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
