"""The hooks that this plugin offers: who erases what, and where the requests are kept.

All are called by the worker with the connection of an open transaction, and must neither commit it
nor roll it back. A hook is a function or an `async def`; what it returns is awaited where that can
be awaited.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING

from corral import hookspec

if TYPE_CHECKING:  # a producer loads this module and has no SQLAlchemy
    from sqlalchemy.ext.asyncio import AsyncConnection

    from corral_account_deletions.requests import DeletionRequest

__all__ = [
    "account_deletions_erase",
    "account_deletions_find_request",
    "account_deletions_save_progress",
]


@hookspec
def account_deletions_erase(
    user_id: str, connection: AsyncConnection
) -> Awaitable[Mapping[str, int] | None] | Mapping[str, int] | None:
    """Erase what you keep about a user, or make it nobody's.

    Called for everybody who takes part, one after the other, in one transaction: all of it is
    committed, or nothing. It may be called again for a user whose last call was rolled back. What
    you enqueue in here for the user's e-mail address is waited for; what names only the user's id
    is left to run.

    Args:
        user_id: Whose account.
        connection: The transaction. Do not commit it.

    Returns:
        What was removed, as a count for each kind (`{"orders": 3}`): it goes into the receipt, so
        no personal data.

    An exception rolls everything back, whoever did it, and the job is tried again.
    """


@hookspec
def account_deletions_find_request(
    request_id: str, connection: AsyncConnection
) -> Awaitable[DeletionRequest | None] | DeletionRequest | None:
    """Find a deletion request, and lock it until the transaction ends (`SELECT … FOR UPDATE`).

    Called twice per deletion: before anything is erased, and before the address is forgotten. The
    first who answers is the one who knows; without an answer of the application's, our own table is
    asked.

    Args:
        request_id: Which.
        connection: The transaction.

    Returns:
        The request as it is now, or None where it is not yours.
    """


@hookspec
def account_deletions_save_progress(
    request: DeletionRequest, connection: AsyncConnection
) -> Awaitable[bool] | bool | None:
    """Write down how far a deletion is.

    Implement it together with `account_deletions_find_request`. All implementations are called,
    twice per deletion, in the transaction that holds the request: with `processed_at`, when all was
    erased; then with `finished_at`, and without its `email`, which must go.

    Args:
        request: The request as it is from now on.
        connection: The transaction.

    Returns:
        Whether it is written: false, or None, where the request is not yours.
    """
