"""The processor of `billing-webhooks-retry`: hands an event over, unless that was done before."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from pydantic import BaseModel, ConfigDict

from corral import Deps, Fail, Job, sql
from corral_billing_webhooks_retry import BillingEvent
from corral_billing_webhooks_retry.desk import Desk
from corral_billing_webhooks_retry.settings import PREFIX, BillingSettings

__all__ = ["Handed", "hand_over", "open_desk"]

log = logging.getLogger("corral_billing_webhooks_retry")


class Handed(BaseModel):
    """The job's result.

    Attributes:
        status: `handled`: every subscriber was told. `replayed`: they had been, before. `ignored`:
        there is none.
    """

    model_config = ConfigDict(frozen=True)

    status: Literal["handled", "replayed", "ignored"]


@asynccontextmanager
async def open_desk(deps: Deps) -> AsyncIterator[Desk]:
    """The desk of this worker, on the worker's database, which may be away.

    Raises:
        ConfigurationError: A setting cannot be used, or the database has no ledger: `corral db
        create` was not run.
    """
    settings = BillingSettings()
    desk = Desk(await deps.enter(sql.engine), deps, settings.providers)
    if desk.subscribed:
        await sql.require_tables(desk.engine, sql.ledger)
    else:
        log.warning("nobody subscribes to billing_webhooks_retry_event: every event is ignored")
    yield desk


async def hand_over(job: Job[BillingEvent], desk: Desk) -> Handed:
    """Hand the event of a job over.

    Where nobody subscribes nothing is written down: nothing was done, and the event can come again.

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
    if event.provider not in desk.providers:
        known = ", ".join(sorted(desk.providers))
        raise Fail(
            f"billing provider {event.provider!r} is not in {PREFIX}PROVIDERS, which has {known}"
        )
    if not desk.subscribed:
        return Handed(status="ignored")
    return Handed(status="handled" if await desk.hand_over(event) else "replayed")
