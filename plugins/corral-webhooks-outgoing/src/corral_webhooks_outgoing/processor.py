"""The processor of `webhooks-outgoing`: signs and sends an event, and records its acceptance."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from sqlalchemy.ext.asyncio import AsyncEngine

from corral import Deps, Fail, Job, Retry, sql
from corral_webhooks_outgoing import WebhookDelivery, hookspecs
from corral_webhooks_outgoing.answer import NotDelivered
from corral_webhooks_outgoing.delivered import Delivered
from corral_webhooks_outgoing.endpoints import Endpoint
from corral_webhooks_outgoing.message import sign_message
from corral_webhooks_outgoing.settings import WebhookSettings
from corral_webhooks_outgoing.tables import webhook_endpoints

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
        closing: Ends with the worker.
    """

    engine: AsyncEngine
    deps: Deps
    settings: WebhookSettings
    delivered: Delivered
    closing: AsyncExitStack

    @cached_property
    def sender(self) -> Sender:
        """Makes the requests; loaded and opened for the first, and closed with the worker."""
        from corral_webhooks_outgoing.sending import Sender  # noqa: PLC0415  # 7 MiB: see there

        sender = Sender.open(self.settings)
        self.closing.push_async_callback(sender.close)
        return sender

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
    await sql.require_tables(engine, sql.ledger, webhook_endpoints)
    async with AsyncExitStack() as closing:
        yield Deliveries(engine, deps, settings, Delivered(engine), closing)


async def deliver(job: Job[WebhookDelivery], deliveries: Deliveries) -> SentWebhook:
    """Send one event to one endpoint, unless an earlier run did and recorded it.

    Returns:
        What was answered.

    Raises:
        Fail: It can never be delivered: the endpoint is unknown or disabled, its address is not
            public, or it wants no more events (410).
        Retry: The receiver is too busy (429, 503) and says for how long.
        NotDelivered: The receiver answered with another error, or not at all.
        DatabaseUnavailable: Nobody can say whether it was delivered before.
        HookRaised: The hook that finds endpoints, or one that is called for a removed one, failed.
    """
    event_id = job.payload.event_id
    endpoint = await deliveries.endpoint(job)
    if endpoint is None:
        return SentWebhook(webhook_id=event_id, status=None)
    answer = await deliveries.sender.send(sign_message(job, endpoint, datetime.now(UTC)), endpoint)
    if answer.accepted:
        await deliveries.delivered.record(job.idempotency_key)
        return SentWebhook(webhook_id=event_id, status=answer.status)
    message = f"webhook endpoint {endpoint.id!r} {answer}"
    if answer.gone:
        await deliveries.announce_gone(endpoint)
        raise Fail(f"{message} (it wants no more events)")
    if wait := answer.wait(datetime.now(UTC)):
        raise Retry(message, after=wait)
    raise NotDelivered(message)
