"""What a worker does with a job of `billing-webhooks-retry`: hand the event over, once, in one transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Literal

import structlog
from pluggy import HookRelay
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from corral import Deps, Fail, Job, JobScheduler, sql
from corral.errors import DatabaseUnavailable
from corral.hooks import all_answers
from corral_billing_webhooks_retry import BillingEvent, job_id_for
from corral_billing_webhooks_retry.settings import PREFIX, BillingSettings

__all__ = ["SCOPE", "Desk", "Handed", "TransactionSpoilt", "hand_over", "open_desk"]

SCOPE = "billing-webhooks-retry"
"""Of the ledger: its keys are what `job_id_for` makes of an event."""

log = structlog.get_logger("corral_billing_webhooks_retry")


class TransactionSpoilt(Exception):
    """A subscriber ended the transaction, or swallowed an error of the database, after which it commits nothing."""


class Handed(BaseModel):
    """The job's result.

    Attributes:
        status: `handled`: every subscriber was told. `replayed`: they had been, before. `ignored`: there is none.
    """

    model_config = ConfigDict(frozen=True)

    status: Literal["handled", "replayed", "ignored"]


@dataclass(frozen=True, slots=True)
class Desk:
    """Where events are handed over.

    Attributes:
        engine: The database.
        hook: Calls `corral_billing_event`.
        jobs: What subscribers enqueue with, once it is bound to their transaction.
        providers: Whose events are handled.
    """

    engine: AsyncEngine
    hook: HookRelay
    jobs: JobScheduler
    providers: frozenset[str]

    @property
    def subscribed(self) -> bool:
        """Whether anybody wants to be told."""
        return bool(self.hook.corral_billing_event.get_hookimpls())


@asynccontextmanager
async def open_desk(deps: Deps) -> AsyncIterator[Desk]:
    """The desk of this worker, on the worker's database, which may be away.

    Raises:
        ConfigurationError: A setting cannot be used, or the database has no ledger: `corral db create` was not run.
    """
    settings = BillingSettings.from_environment()
    desk = Desk(await deps.enter(sql.engine), deps.hook, deps.jobs, settings.providers)
    if not desk.subscribed:
        log.warning("nobody subscribes to corral_billing_event: every event is ignored")
    else:
        with suppress(DatabaseUnavailable), sql.unavailable(desk.engine):
            async with desk.engine.execution_options(sqlite_begin="DEFERRED").connect() as connection:
                await sql.Ledger.claimed(connection, SCOPE, "")
    yield desk


async def hand_over(job: Job[BillingEvent], desk: Desk) -> Handed:
    """Tell every subscriber of the event and write it down, in one transaction, unless that has been done.

    Where nobody subscribes nothing is written down: nothing was done, and the event can come again.

    Raises:
        Fail: The provider is none of ours.
        HookRaised: A subscriber raised; nothing was committed.
        TransactionSpoilt: A subscriber should have; nothing was committed, but for what it committed itself.
        DatabaseUnavailable: Nothing was committed, or, where the reply to COMMIT was lost, all of it.
    """
    event = job.payload
    if event.provider not in desk.providers:
        known = ", ".join(sorted(desk.providers))
        raise Fail(f"billing provider {event.provider!r} is not in {PREFIX}PROVIDERS, which has {known}")
    if not desk.subscribed:
        return Handed(status="ignored")
    with sql.unavailable(desk.engine):
        async with desk.engine.begin() as connection:
            if not await sql.Ledger.claim(connection, SCOPE, job_id_for(event.provider, event.event_id)):
                return Handed(status="replayed")
            jobs = sql.Outbox(desk.jobs).within(connection)
            await all_answers(desk.hook.corral_billing_event, event=event, connection=connection, jobs=jobs)
            try:  # PostgreSQL rolls back a transaction whose error was swallowed, and calls that a commit
                await connection.execute(select(1))
            except SQLAlchemyError as error:
                if isinstance(error, DBAPIError) and error.connection_invalidated:
                    raise  # the database went away
                raise TransactionSpoilt(
                    f"a subscriber of corral_billing_event left the transaction unusable: {error}"
                ) from error
    return Handed(status="handled")
