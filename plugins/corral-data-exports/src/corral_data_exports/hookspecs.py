"""The hooks that this plugin offers: whose data is asked for, and who keeps some of it.

Both are called by the worker inside one transaction that reads: what everybody sees through its
connection is the database of one moment (PostgreSQL: REPEATABLE READ, read only). A hook is a
function or an `async def`. An exception fails the attempt, no archive is seen, and the job is tried
again.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from corral import hookspec
from corral_data_exports.records import Recipient, RecordSet

if TYPE_CHECKING:  # a producer loads this module and has no SQLAlchemy
    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["RecordSets", "data_exports_recipient", "data_exports_records"]

RecordSets: TypeAlias = Iterable[RecordSet] | Mapping[str, AsyncIterable[Mapping[str, object]]]
"""What a participant returns; the mapping of name to records is for those who do not depend on this
plugin.
"""


@hookspec
def data_exports_records(
    user_id: str, connection: AsyncConnection
) -> Awaitable[RecordSets | None] | RecordSets | None:
    """Hand over what is kept about a user.

    Called once per attempt, for everybody who takes part, before the first record of anybody is
    read.

    Args:
        user_id: Whose data.
        connection: A transaction to read with; it is open until the last record was read. Write
        nothing.

    Returns:
        The record sets. Their records are read one by one: `connection.stream(…)` and an async
        generator hold a handful of rows, `connection.execute(…)` all of them. None is no record
        set.
    """


@hookspec
def data_exports_recipient(
    user_id: str, connection: AsyncConnection
) -> Awaitable[Recipient | None] | Recipient | None:
    """Say who a user is: where the mail about the archive goes.

    Called before an archive is made, and once more when it is complete: of a user who is unknown by
    then, because the account was deleted meanwhile, the archive is deleted. The first answer that
    is not None counts; without one of the application's, the table that `[users]` of
    `CORRAL_DATA_EXPORTS_TABLES` names is looked at.

    Args:
        user_id: Whose data is exported.
        connection: The transaction that the export reads with.

    Returns:
        The recipient. None leaves it to the next; None of everybody is an unknown user, and fails
        the job for good.
    """
