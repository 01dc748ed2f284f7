"""The hooks that this plugin offers: who erases what, whose an address is, where requests are kept.

All are called by the worker. Where a hook has a connection, it is that of an open transaction, and
must neither be committed nor rolled back. A hook is a function or an `async def`; what it returns
is awaited where that can be awaited.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Mapping
from typing import TYPE_CHECKING

from corral import hookspec

if TYPE_CHECKING:  # a producer loads this module and has no SQLAlchemy
    from sqlalchemy.ext.asyncio import AsyncConnection

    from corral_account_deletions.kept import Kept
    from corral_account_deletions.requests import DeletionRequest

__all__ = [
    "account_deletions_address_owners",
    "account_deletions_erase",
    "account_deletions_find_request",
    "account_deletions_purge",
    "account_deletions_save_progress",
]


@hookspec
def account_deletions_erase(
    user_id: str, connection: AsyncConnection
) -> Awaitable[Mapping[str, int | Kept] | None] | Mapping[str, int | Kept] | None:
    """Erase what you keep about a user, or make it nobody's.

    Called for everybody who takes part, one after the other, in one transaction: all of it is
    committed, or nothing. It may be called again for a user whose last call was rolled back. What
    you enqueue in here for the user's e-mail address is waited for; what names only the user's id
    is left to run.

    Args:
        user_id: Whose account.
        connection: The transaction. Do not commit it.

    Returns:
        What was removed, as a count for each kind (`{"orders": 3}`), and what is kept, with its
        reason (`{"invoices": Kept(2, "tax law, ten years")}`): both go into the receipt, so no
        personal data.

    An exception rolls everything back, whoever did it, and the job is tried again.
    """


@hookspec
def account_deletions_purge(
    user_id: str,
) -> Awaitable[Mapping[str, int] | None] | Mapping[str, int] | None:
    """Erase what you keep about a user outside of the database: files, an account at a third party.

    Called for everybody who takes part, after the transaction of `account_deletions_erase` is
    committed and no job about the user runs any more, before the deletion is confirmed. It may be
    called again, also after a success: erase what is there, and be content where nothing is.

    Args:
        user_id: Whose account.

    Returns:
        What was removed, as `account_deletions_erase` has it.

    An exception leaves the deletion unfinished and unconfirmed, and the job is tried again.
    """


@hookspec
def account_deletions_address_owners(
    email: str, connection: AsyncConnection
) -> Awaitable[Collection[str] | None] | Collection[str] | None:
    """Say which accounts that are alive have an address.

    Called several times per deletion, after everything is erased. Where another account than the
    deleted one has the address, jobs that have the address and do not name the deleted user's id
    are left as they are. The first answer that is not None counts; without one of the
    application's, the table that `[users]` of the tables file names is looked at.

    Args:
        email: The deleted user's address. Compare it without regard to case.
        connection: The transaction.

    Returns:
        The ids of the users; the deleted one may be among them. None leaves it to the next. Where
        nobody answers, jobs that name only other users are left as they are.
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
