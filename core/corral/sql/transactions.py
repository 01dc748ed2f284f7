"""`ensure_unspoilt`: a check after a hook that was handed a connection.

The hook may have made the transaction unusable without any error.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from corral.errors import CorralError
from corral.sql.engines import Connection

__all__ = ["TransactionSpoilt", "ensure_unspoilt"]


class TransactionSpoilt(CorralError):
    """A transaction is unusable: other code ended it, or caught a database error in it."""


async def ensure_unspoilt(connection: Connection, hook: str) -> None:
    """Refuse to go on in a transaction that will commit nothing.

    PostgreSQL rolls back a transaction in which a statement has failed, and reports its commit as
    successful: if a hook catches the error of its statement, everything else that was written is
    lost silently. Call this after a hook that was handed the connection, before the transaction's
    end.

    Args:
        connection: The connection or session that has the transaction.
        hook: The hook's name, for the error.

    Raises:
        TransactionSpoilt: The transaction is unusable.
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
