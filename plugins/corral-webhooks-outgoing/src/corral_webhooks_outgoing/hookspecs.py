"""The hooks that this plugin offers: one looks an endpoint up, two react to one that is away.

Both are called by the worker. A hook is a function or an `async def`; what it returns is awaited
where that can be awaited.
"""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import datetime
from typing import TYPE_CHECKING

from corral import hookspec

if TYPE_CHECKING:  # a producer loads this module and has no SQLAlchemy
    from sqlalchemy.ext.asyncio import AsyncConnection

    from corral import JobScheduler
    from corral_webhooks_outgoing.endpoints import Endpoint

__all__ = [
    "webhooks_outgoing_endpoint",
    "webhooks_outgoing_endpoint_failing",
    "webhooks_outgoing_endpoint_gone",
]


@hookspec
def webhooks_outgoing_endpoint(
    endpoint_id: str, connection: AsyncConnection
) -> Awaitable[Endpoint | None] | Endpoint | None:
    """Look an endpoint up.

    Called once per attempt, before anything is sent. The first who knows it answers; without an
    answer of the application's, the table `webhook_endpoints` is asked.

    Args:
        endpoint_id: What the job names.
        connection: For reading, and closed before the request is made.

    Returns:
        The endpoint, or None where this one does not know it. If nobody does, the job fails for
        good.

    An exception fails the attempt, and the job is tried again.
    """


@hookspec
def webhooks_outgoing_endpoint_gone(
    endpoint: Endpoint, connection: AsyncConnection, jobs: JobScheduler
) -> Awaitable[None] | None:
    """An endpoint has answered 410 Gone: it wants no more events. Disable it where it is kept.

    Called for everybody, one after the other and in one transaction: an implementation that only
    writes to the endpoint's owner does not keep the table from being changed.

    Args:
        endpoint: The endpoint as it was when the request was made.
        connection: The transaction. Do not commit it.
        jobs: Enqueues in this transaction.

    An exception rolls all of it back and fails the attempt; the next one asks the endpoint again.
    """


@hookspec
def webhooks_outgoing_endpoint_failing(
    endpoint: Endpoint, since: datetime, connection: AsyncConnection, jobs: JobScheduler
) -> Awaitable[None] | None:
    """An endpoint has accepted nothing for days. Write to its owner, or disable it.

    Called once for each outage, by the first attempt that fails after
    `CORRAL_WEBHOOKS_OUTGOING_FAILING_DAYS`, for everybody and in one transaction. An outage ends
    when the endpoint accepts something.

    Args:
        endpoint: The endpoint as it was when the request was made.
        since: The time of the first failure after the last success (aware, UTC).
        connection: The transaction. Do not commit it.
        jobs: Enqueues in this transaction.

    An exception rolls all of it back and is logged; the endpoint's next failure calls all again.
    """
