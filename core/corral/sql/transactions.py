"""What others have done to a transaction: hooks that are handed a connection may ruin it without a
word.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from corral.errors import CorralError
from corral.sql.engines import Connection

__all__ = ["TransactionSpoilt", "ensure_unspoilt"]


class TransactionSpoilt(CorralError):
    """Somebody ended a transaction that was not theirs, or caught an error of the database in it
    and went on.
    """


async def ensure_unspoilt(connection: Connection, hook: str) -> None:
    """Refuse to go on in a transaction that will commit nothing.

    PostgreSQL rolls a transaction back in which a statement has failed, and calls that a commit:
    whoever catches the statement's error and goes on loses everything else that was written, and
    nobody is told. Call this after a hook that was handed the connection, before the transaction's
    end.

    Args:
        connection: Where the transaction is.
        hook: The hook's name, for the error.

    Raises:
        TransactionSpoilt: It is.
        DBAPIError: The database went away.
    """
    try:
        await connection.execute(select(1))
    except SQLAlchemyError as error:
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            raise
        raise TransactionSpoilt(
            f"{hook} left the transaction unusable: {error}",
            hint="let the database's errors out, or try in a savepoint: connection.begin_nested()",
        ) from error
