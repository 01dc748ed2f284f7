"""The queue `account-deletions`: erase an account when its grace period is over.

All that a producer ever loads.

It must not know SQLAlchemy: corral and pydantic are enough to import it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

from pydantic import AwareDatetime, StringConstraints

from corral import Exponential, JobOptions, Payload, Processor, Queue, Retention, hookimpl
from corral_account_deletions import hookspecs
from corral_account_deletions.kept import Kept

if TYPE_CHECKING:  # workers have it, producers need not
    from sqlalchemy import MetaData
    from sqlalchemy.ext.asyncio import AsyncConnection

    from corral import PluginSettings
    from corral_account_deletions.requests import DeletionRequest

__all__ = ["AccountDeletion", "Kept", "account_deletions"]

Id = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class AccountDeletion(Payload):
    """A deletion that was asked for.

    The request itself is what decides: this only says where to look.

    Attributes:
        user_id: Whose account. A job whose request names somebody else is refused.
        request_id: The request, which is read again when the job runs.
        requested_at: When it was asked for (aware).
    """

    user_id: Id
    request_id: Id
    requested_at: AwareDatetime


account_deletions = Queue(
    "account-deletions",
    AccountDeletion,
    options=JobOptions(
        backoff=Exponential(delay=timedelta(minutes=1), jitter=0.25, max=timedelta(hours=4)),
        # a deletion that was promised and failed is not forgotten
        keep_failed=Retention(age=timedelta(days=90)),
    ).retrying_for(timedelta(days=7)),  # a participant that is mended after a weekend or a holiday
    timeout=timedelta(
        hours=1
    ),  # a connection that hangs must not hold the lock on the request for ever
    concurrency=2,
)


@hookimpl
def corral_queues() -> list[Queue]:
    """Declare the queue."""
    return [account_deletions]


@hookimpl
def corral_settings() -> list[type[PluginSettings]]:
    """Declare the settings, `CORRAL_ACCOUNT_DELETIONS_…`."""
    from corral_account_deletions.settings import DeletionSettings  # noqa: PLC0415  # read where it is needed

    return [DeletionSettings]


@hookimpl
def corral_processors() -> list[Processor]:
    """Bind its processor; the database is imported in here."""
    from corral_account_deletions.processor import delete_account, open_deletions  # noqa: PLC0415  # workers only

    return [account_deletions.processed_by(delete_account, using=open_deletions)]


@hookimpl
def corral_tables() -> list[MetaData]:
    """The tables, for `corral db create`."""
    from corral_account_deletions.tables import metadata  # noqa: PLC0415  # a producer has no SQLAlchemy

    return [metadata]


@hookimpl
def corral_hookspecs() -> list[object]:
    """What applications and other plugins may take part in."""
    return [hookspecs]


@hookimpl(trylast=True)
def account_deletions_find_request(
    request_id: str, connection: AsyncConnection
) -> Awaitable[DeletionRequest | None]:
    """The request of our own table, where the application does not keep its own."""
    from corral_account_deletions.requests import find_request  # noqa: PLC0415  # a producer has no SQLAlchemy

    return find_request(connection, request_id)


@hookimpl(trylast=True)
def account_deletions_save_progress(
    request: DeletionRequest, connection: AsyncConnection
) -> Awaitable[bool]:
    """How far it is, in our own table."""
    from corral_account_deletions.requests import record_request  # noqa: PLC0415  # as above

    return record_request(connection, request)


@hookimpl
def account_deletions_erase(
    user_id: str, connection: AsyncConnection
) -> Awaitable[Mapping[str, int | Kept]]:
    """Erase what the file `CORRAL_ACCOUNT_DELETIONS_TABLES` names: rows, and columns of rows."""
    from corral_account_deletions.configured import erase_configured  # noqa: PLC0415  # as above

    return erase_configured(connection, user_id)


@hookimpl(trylast=True)
def account_deletions_address_owners(
    email: str, connection: AsyncConnection
) -> Awaitable[Collection[str] | None]:
    """The users that have an address, by `[users]` of the tables file."""
    from corral_account_deletions.configured import find_configured_owners  # noqa: PLC0415  # as above

    return find_configured_owners(connection, email)
