"""The processor of `billing-webhooks-retry`: calls the subscribers with an event, once."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from pydantic import BaseModel, ConfigDict

from corral import Deps, Fail, Job, sql
from corral_billing_webhooks_retry import BillingEvent
from corral_billing_webhooks_retry.billing_tables import billing_objects
from corral_billing_webhooks_retry.event_dispatcher import EventDispatcher
from corral_billing_webhooks_retry.settings import PREFIX, BillingSettings

__all__ = ["EventResult", "dispatch_event", "open_dispatcher"]

log = logging.getLogger("corral_billing_webhooks_retry")


class EventResult(BaseModel):
    """The job's result.

    Attributes:
        status: `handled`: every subscriber was called. `stale`: so it was, and all have skipped the
            event, since a newer one of its object was seen. `replayed`: an earlier run called them.
            `ignored`: there is none.
    """

    model_config = ConfigDict(frozen=True)

    status: Literal["handled", "stale", "replayed", "ignored"]


@asynccontextmanager
async def open_dispatcher(deps: Deps) -> AsyncIterator[EventDispatcher]:
    """Open the dispatcher of this worker, on the worker's database, which may be away.

    Raises:
        ConfigurationError: A setting cannot be used, or the database has no ledger: `corral db
        create` was not run.
    """
    settings = BillingSettings()
    dispatcher = EventDispatcher(await deps.enter(sql.engine), deps, settings.providers)
    if dispatcher.has_subscribers:
        await sql.require_tables(dispatcher.engine, sql.ledger, billing_objects)
    else:
        log.warning("nobody subscribes to billing_webhooks_retry_event: every event is ignored")
    yield dispatcher


async def dispatch_event(job: Job[BillingEvent], dispatcher: EventDispatcher) -> EventResult:
    """Call the subscribers with the event of a job, unless that was done before.

    Without subscribers nothing is recorded, so that the event can be sent again.

    Returns:
        What became of it.

    Raises:
        Fail: The provider is none of ours.
        HookRaised: A subscriber raised; nothing was committed. Like `TransactionSpoilt`, where it
        should have.
        DatabaseUnavailable: Nothing was committed, or, where the reply to COMMIT was lost, all of
        it.
    """
    event = job.payload
    if event.provider not in dispatcher.providers:
        known = ", ".join(sorted(dispatcher.providers))
        raise Fail(
            f"billing provider {event.provider!r} is not in {PREFIX}PROVIDERS, which has {known}"
        )
    if not dispatcher.has_subscribers:
        return EventResult(status="ignored")
    return EventResult(status=await dispatcher.dispatch(event))
