"""For the application: ask for a deletion, and take that back.

Each runs in the caller's own transaction.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from corral import JobScheduler
from corral.sql import Connection, connection_of, insert_if_absent
from corral_account_deletions import AccountDeletion, account_deletions
from corral_account_deletions.settings import DeletionSettings
from corral_account_deletions.tables import account_deletion_requests

__all__ = [
    "DeletionRequest",
    "cancel_deletion",
    "find_request",
    "record_request",
    "request_deletion",
]


@dataclass(frozen=True, slots=True)
class DeletionRequest:
    """A deletion that somebody asked for. Moments are aware.

    Attributes:
        id: Unique for ever.
        user_id: Whose account.
        email: Where the confirmation goes, and what is looked for in jobs; None when that is done,
        or not known.
        locale: The confirmation's language, `de` or `de-AT`, or None.
        requested_at: When.
        due_at: Nothing is erased before, whatever job says so.
        cancelled_at: When it was taken back, or None.
        processed_at: When everything was erased, or None.
        finished_at: When the jobs were scrubbed, too, and the confirmation was enqueued, or None.
    """

    id: str
    user_id: str
    email: str | None
    locale: str | None
    requested_at: datetime
    due_at: datetime
    cancelled_at: datetime | None = None
    processed_at: datetime | None = None
    finished_at: datetime | None = None


async def request_deletion(
    connection: Connection,
    jobs: JobScheduler,
    user_id: str,
    *,
    email: str,
    locale: str | None = None,
    grace: timedelta | None = None,
) -> DeletionRequest:
    """Store a request, and enqueue the job that will carry it out.

    A user's second request is the first one.

    Args:
        connection: The caller's connection or session, in its transaction.
        jobs: `Outbox(jobs).within(connection)`, so that request and job are both there or neither.
        user_id: Whose account, at most 128 characters. No e-mail address: ids stay where they are.
        email: Where the confirmation goes. It is kept until the deletion is finished, and no
        longer.
        locale: The confirmation's language, or None.
        grace: How long it can be cancelled; by default what `CORRAL_ACCOUNT_DELETIONS_GRACE_DAYS`
        says, or 30 days.

    Returns:
        The request that is open for this user now.

    Raises:
        ValueError: The user's id is the address.
        JobRefused: As `JobScheduler.enqueue`, like its other refusals.
    """
    if user_id.casefold() == email.casefold():
        raise ValueError("a user's id that is the e-mail address could not be forgotten")
    grace = DeletionSettings().grace if grace is None else grace
    now = datetime.now(UTC)
    made = DeletionRequest(uuid4().hex, user_id, email, locale, now, now + grace)
    own = await connection_of(connection)
    stored = insert_if_absent(own, account_deletion_requests).returning(
        account_deletion_requests.c.id
    )
    if (await own.execute(stored, asdict(made))).first() is None:
        open_one = select(account_deletion_requests).where(_of(user_id), _OPEN)
        return DeletionRequest(
            *(await own.execute(open_one)).one()
        )  # the columns are its fields, in order
    payload = AccountDeletion(user_id=user_id, request_id=made.id, requested_at=now)
    await jobs.enqueue(account_deletions, payload, delay=grace, job_id=f"deletion-{made.id}")
    return made


async def cancel_deletion(connection: Connection, user_id: str) -> bool:
    """Take a user's request back.

    Its job runs all the same when its time has come, and finds nothing to do.

    Args:
        connection: The caller's connection or session, in its transaction.
        user_id: Whose.

    Returns:
        Whether there was one, and in time: false where the account was erased already.
    """
    requests = account_deletion_requests.c
    cancelled = (
        update(account_deletion_requests)
        .where(_of(user_id), _OPEN, requests.processed_at.is_(None))
        .values(cancelled_at=datetime.now(UTC), email=None, locale=None)
        .returning(requests.id)
    )
    return (await connection.execute(cancelled)).first() is not None


async def find_request(connection: AsyncConnection, request_id: str) -> DeletionRequest | None:
    """A request, locked until the transaction ends: it cannot be cancelled meanwhile."""
    # SQLite needs and knows no row locks: the transaction has the whole file
    found = (
        select(account_deletion_requests)
        .where(account_deletion_requests.c.id == request_id)
        .with_for_update()
    )
    row = (await connection.execute(found)).one_or_none()
    return None if row is None else DeletionRequest(*row)  # as above


async def record_request(connection: AsyncConnection, request: DeletionRequest) -> bool:
    """Write down how far a request is; false where there is none of its id."""
    requests = account_deletion_requests.c
    recorded = (
        update(account_deletion_requests)
        .where(requests.id == request.id)
        .values(
            email=request.email,
            locale=request.locale,
            processed_at=request.processed_at,
            finished_at=request.finished_at,
        )
        .returning(requests.id)
    )
    return (await connection.execute(recorded)).first() is not None


_OPEN = account_deletion_requests.c.cancelled_at.is_(
    None
) & account_deletion_requests.c.finished_at.is_(None)


def _of(user_id: str) -> ColumnElement[bool]:
    return account_deletion_requests.c.user_id == user_id
