"""The hook that this plugin offers: its implementations are called with each billing event.

It is called by the worker, inside the transaction that writes the event down as handled, with its
connection. Whatever is written through it is there if and only if the event is handled. A hook is a
function or an `async def`; what it returns is awaited where that can be awaited. An exception rolls
everything back, and the job is tried again.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Literal

from corral import hookspec

if TYPE_CHECKING:  # a producer loads this module and has no SQLAlchemy
    from sqlalchemy.ext.asyncio import AsyncConnection

    from corral import JobScheduler
    from corral_billing_webhooks_retry import BillingEvent

    Handled = Literal["stale"] | None
    """What an implementation made of an event: it skipped it, since it is stale, or None."""

__all__ = ["billing_webhooks_retry_event", "corral_billing_event"]


@hookspec
def billing_webhooks_retry_event(
    event: BillingEvent, connection: AsyncConnection, jobs: JobScheduler, newer_seen: bool
) -> Awaitable[Handled] | Handled:
    """A payment provider says that something has happened.

    Called once per event for everybody who subscribes, one after the other; again only where that
    was rolled back.

    Args:
        event: The event, of whatever type: leave alone what is not yours.
        connection: The transaction that writes the event down. Do not commit it.
        jobs: Enqueues in this transaction.
        newer_seen: Whether an event of the same object that happened later was handled before this
            one: what this one says of the object is out of date. Events of one object are handled
            one after the other, but in any order.

    Returns:
        `"stale"` where the event was skipped because a newer one was seen; else None. An event that
        all skip has the status `stale`.
    """


@hookspec
def corral_billing_event(
    event: BillingEvent, connection: AsyncConnection, jobs: JobScheduler, newer_seen: bool
) -> Awaitable[Handled] | Handled:
    """The old name of `billing_webhooks_retry_event`, which is asked as well.

    A package that implements both is called twice for each event: implement one of the two.

    Args:
        event: The event, of whatever type.
        connection: The transaction that writes the event down. Do not commit it.
        jobs: Enqueues in this transaction.
        newer_seen: Whether a later event of the same object was handled before this one.
    """
