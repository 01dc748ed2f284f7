"""The processor of `webhooks-outgoing`: signs and sends an event, and records its acceptance.

Whether a job may be sent now is decided first, by its endpoint's id alone: a job that has to wait
costs no query.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from sqlalchemy.ext.asyncio import AsyncEngine

from corral import Deps, Fail, Job, Retry, Snooze, sql
from corral_webhooks_outgoing import WebhookDelivery, hookspecs
from corral_webhooks_outgoing.answer import NotDelivered
from corral_webhooks_outgoing.breaker import Breaker, Breakers, Permit
from corral_webhooks_outgoing.delivered import Delivered
from corral_webhooks_outgoing.endpoints import Endpoint
from corral_webhooks_outgoing.failing import FailingEndpoints
from corral_webhooks_outgoing.message import sign_message
from corral_webhooks_outgoing.settings import WebhookSettings
from corral_webhooks_outgoing.tables import webhook_endpoints, webhook_failing_endpoints

if TYPE_CHECKING:
    from corral_webhooks_outgoing.sending import Sender

__all__ = ["Deliveries", "NotDelivered", "SentWebhook", "deliver", "open_deliveries"]

log = logging.getLogger("corral_webhooks_outgoing")


class SentWebhook(BaseModel):
    """The job's result.

    Attributes:
        webhook_id: What receivers see as `webhook-id`: the event's id.
        status: What the receiver answered; None where an earlier run of this job has sent it.
    """

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, frozen=True)

    webhook_id: str
    status: int | None


@dataclass(eq=False)
class Deliveries:
    """What deliveries need of a worker.

    Attributes:
        engine: The database.
        deps: Asks the plugin's hooks, and enqueues for their implementations, bound to their
            transaction.
        settings: Where requests may go.
        delivered: Remembers which were accepted.
        failing: Remembers which endpoints accept nothing.
        breakers: Decide which jobs may be sent now.
        closing: Ends with the worker.
    """

    engine: AsyncEngine
    deps: Deps
    settings: WebhookSettings
    delivered: Delivered
    failing: FailingEndpoints
    breakers: Breakers
    closing: AsyncExitStack

    @cached_property
    def sender(self) -> Sender:
        """Makes the requests; loaded and opened for the first, and closed with the worker."""
        from corral_webhooks_outgoing.sending import Sender  # noqa: PLC0415  # 7 MiB: see there

        sender = Sender.open(self.settings)
        self.closing.push_async_callback(sender.close)
        return sender

    @property
    def expiry(self) -> str:
        """Why a job is given up that `is_expired`."""
        return f"not delivered in {self.settings.horizon_days:g} days"

    def is_expired(self, job: Job[WebhookDelivery]) -> bool:
        """Whether a job was due so long ago that it is sent once more at most."""
        age = job.processed_on - job.scheduled_for
        return age >= timedelta(days=self.settings.horizon_days)

    async def endpoint(self, job: Job[WebhookDelivery]) -> Endpoint | None:
        """Whom a job is for, or None where an earlier run of it was accepted.

        Raises:
            Fail: Nobody knows the endpoint, or it is disabled.
            DatabaseUnavailable: Nobody knows: it is better not to send it now.
            HookRaised: Whoever keeps endpoints could not say.
        """
        name = job.payload.endpoint_id
        reading = self.engine.execution_options(sqlite_begin="DEFERRED")
        with sql.database_errors(self.engine):
            async with reading.connect() as connection:
                if await self.delivered.has(connection, job.idempotency_key):
                    return None
                found = await self.deps.ask_first(
                    hookspecs.webhooks_outgoing_endpoint, endpoint_id=name, connection=connection
                )
        if found is None:
            raise Fail(f"no webhook endpoint has the id {name!r}")
        if not isinstance(found, Endpoint):
            raise TypeError(
                f"webhooks_outgoing_endpoint returned {type(found).__name__}, not an Endpoint"
            )
        if not found.enabled:
            raise Fail(f"webhook endpoint {name!r} is disabled")
        return found

    async def announce_gone(self, endpoint: Endpoint) -> None:
        """Disable an endpoint that wants no more events, and call the subscribers, or do neither.

        Raises:
            HookRaised: A subscriber failed.
            TransactionSpoilt: A subscriber failed in the database and hid it.
            DatabaseUnavailable: The database is away.
        """
        with sql.database_errors(self.engine):
            async with self.engine.begin() as connection:
                spec = hookspecs.webhooks_outgoing_endpoint_gone
                jobs = sql.Outbox(self.deps.jobs).within(connection)
                await self.deps.ask_all(spec, endpoint=endpoint, connection=connection, jobs=jobs)
                await sql.ensure_unspoilt(connection, spec.__name__)
        log.warning("webhook endpoint %r wants no more events", endpoint.id)


@asynccontextmanager
async def open_deliveries(deps: Deps) -> AsyncIterator[Deliveries]:
    """What deliveries need of this worker. The database may be away.

    Raises:
        ConfigurationError: A `CORRAL_WEBHOOKS_OUTGOING_…` setting cannot be used, or the database
        lacks a table.
    """
    settings = WebhookSettings()
    if settings.allow_private:
        log.warning(
            "webhooks may reach addresses that are not public:"
            " CORRAL_WEBHOOKS_OUTGOING_ALLOW_PRIVATE is set"
        )
    engine = await deps.enter(sql.engine)
    await sql.require_tables(engine, sql.ledger, webhook_endpoints, webhook_failing_endpoints)
    failing = FailingEndpoints(engine, deps, timedelta(days=settings.failing_days))
    breakers = Breakers(limit=settings.endpoint_concurrency, threshold=settings.breaker_failures)
    async with AsyncExitStack() as closing:
        yield Deliveries(engine, deps, settings, Delivered(engine), failing, breakers, closing)


class JobClock:
    """The time while a job runs, by the store's clock, by which jobs come due.

    Args:
        job: The job, which has just been started.
    """

    def __init__(self, job: Job[WebhookDelivery]) -> None:
        self._started_on = job.processed_on
        self._started = time.monotonic()

    @property
    def now(self) -> datetime:
        """The time (aware, UTC)."""
        return self._started_on + timedelta(seconds=time.monotonic() - self._started)

    @property
    def seconds(self) -> float:
        """The time, in Unix seconds."""
        return self.now.timestamp()


async def deliver(job: Job[WebhookDelivery], deliveries: Deliveries) -> SentWebhook:
    """Send one event to one endpoint, unless an earlier run did and recorded it.

    Returns:
        What was answered.

    Raises:
        Snooze: Enough deliveries to the endpoint are under way, or it is down. No attempt is spent.
        Fail: It can never be delivered: the endpoint is unknown or disabled, its address is not
            public, it wants no more events (410), or it has not taken this one for too long.
        Retry: The receiver has answered with an error, and says for how long it wants to be left
            alone.
        NotDelivered: The receiver answered with another error, or not at all.
        DatabaseUnavailable: Nobody can say whether it was delivered before.
        HookRaised: The hook that finds endpoints, or one that is called for a removed one, failed.
    """
    endpoint_id, clock = job.payload.endpoint_id, JobClock(job)
    breaker = deliveries.breakers.of(endpoint_id)
    permit = breaker.admit(clock.seconds)
    if not isinstance(permit, Permit):
        _put_off(job, deliveries, breaker, timedelta(seconds=permit))
    try:
        return await Attempt(job, deliveries, clock, breaker, permit).make()
    except Fail:
        breaker.record_answer()  # the endpoint's other jobs fail as soon as this: none has to wait
        raise
    except (NotDelivered, Retry) as refusal:
        if deliveries.is_expired(job):
            raise Fail(f"{deliveries.expiry}: {breaker.last_failure or refusal}") from refusal
        raise
    finally:
        deliveries.breakers.release(endpoint_id, permit, clock.seconds)


def _put_off(
    job: Job[WebhookDelivery], deliveries: Deliveries, breaker: Breaker, wait: timedelta
) -> NoReturn:
    """Let a job wait that must not be sent now, unless it has waited for too long.

    Raises:
        Snooze: It waits.
        Fail: Its endpoint is down, and the job is older than the horizon.
    """
    name = job.payload.endpoint_id
    if not breaker.is_open:
        raise Snooze(f"webhook endpoint {name!r} has {breaker.limit} under way", after=wait)
    if deliveries.is_expired(job):
        raise Fail(f"{deliveries.expiry}: {breaker.last_failure}")
    raise Snooze(f"webhook endpoint {name!r} is down", after=wait)


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """The attempt of a job that may be sent now.

    Attributes:
        job: The job.
        deliveries: What it needs of the worker.
        clock: The time.
        breaker: The endpoint's.
        permit: What the breaker gave.
    """

    job: Job[WebhookDelivery]
    deliveries: Deliveries
    clock: JobClock
    breaker: Breaker
    permit: Permit

    async def make(self) -> SentWebhook:
        """Send the event, and record what that says of the endpoint.

        Returns and raises what `deliver` does, except `Snooze`.
        """
        event_id, deliveries = self.job.payload.event_id, self.deliveries
        endpoint = await deliveries.endpoint(self.job)
        if endpoint is None:
            return SentWebhook(webhook_id=event_id, status=None)
        self.breaker.visit(endpoint.url)
        message = sign_message(self.job, endpoint, datetime.now(UTC))
        try:
            answer = await deliveries.sender.send(message, endpoint)
        except NotDelivered as unanswered:
            await self._record_failure(endpoint, str(unanswered), None)
            raise
        if not answer.is_down and self.breaker.record_answer():
            log.info("webhook endpoint %r answers again: its jobs are sent", endpoint.id)
        if answer.accepted:
            await deliveries.delivered.record(self.job.idempotency_key, endpoint.id)
            return SentWebhook(webhook_id=event_id, status=answer.status)
        text = f"webhook endpoint {endpoint.id!r} {answer}"
        if answer.gone:
            await deliveries.announce_gone(endpoint)
            raise Fail(f"{text} (it wants no more events)")
        wait = answer.wait(datetime.now(UTC))
        if answer.is_down:
            await self._record_failure(endpoint, text, wait)
        else:  # another event may be accepted
            await deliveries.failing.record_failure(endpoint, self.clock.now)
        if wait:
            raise Retry(text, at_least=wait)
        raise NotDelivered(text)

    async def _record_failure(self, endpoint: Endpoint, text: str, wait: timedelta | None) -> None:
        """Record a failure that concerns all jobs of the endpoint.

        Args:
            endpoint: The endpoint.
            text: What went wrong.
            wait: How long the endpoint asks us to wait, if it does.
        """
        since = await self.deliveries.failing.record_failure(endpoint, self.clock.now)
        failure = f"{text} (it has accepted nothing since {since:%Y-%m-%d %H:%M} UTC)"
        at_least = wait.total_seconds() if wait else 0.0
        now = self.clock.seconds
        if self.breaker.record_failure(self.permit, now, failure, at_least=at_least):
            log.warning(
                "webhook endpoint %r is down: %d deliveries in a row have failed, its jobs wait"
                " and one at a time is sent to test it",
                endpoint.id,
                self.breaker.threshold,
            )
