"""The queue `billing-webhooks-retry`: one job is one event of a payment provider.

All that a producer ever loads.

It must not know SQLAlchemy: corral and pydantic are enough to import it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

from pydantic import AwareDatetime, JsonValue, StringConstraints

from corral import (
    Exponential,
    JobOptions,
    Payload,
    Processor,
    Queue,
    Retention,
    check_job_id,
    hookimpl,
)
from corral.errors import JobRefused
from corral_billing_webhooks_retry import hookspecs

if TYPE_CHECKING:  # for annotations alone
    from sqlalchemy import MetaData

    from corral import Enqueued, JobScheduler, PluginSettings

__all__ = ["BillingEvent", "billing_webhooks_retry", "enqueue_event", "job_id_for"]

Provider = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=64)]
Label = Annotated[str, StringConstraints(min_length=1, max_length=255)]
"""What providers call an event and its type; Stripe's own bound for an id is 255."""


class BillingEvent(Payload):
    """What a payment provider says has happened.

    Attributes:
        provider: Who says so: `stripe`.
        event_id: The provider's id of the event; the same whenever it is sent again.
        type: `invoice.paid`, in the provider's words.
        occurred_at: When it happened, as the provider has it (aware).
        body: The event as it was sent, read as JSON. It stays readable in the store as long as the
        job does.
        object_id: The provider's id of what the event is about: a subscription, an invoice. None:
            what Stripe's events say themselves; other providers' events are about nothing then.
    """

    provider: Provider
    event_id: Label
    type: Label
    occurred_at: AwareDatetime
    body: Mapping[str, JsonValue]
    object_id: Label | None = None


billing_webhooks_retry = Queue(
    "billing-webhooks-retry",
    BillingEvent,
    options=JobOptions(
        backoff=Exponential(delay=timedelta(seconds=30), jitter=0.25, max=timedelta(hours=2)),
        keep_failed=Retention(age=timedelta(days=30)),
        # the provider has received a success and may not send the event again: a subscriber that is
        # broken on a Friday is mended on a Monday
    ).retrying_for(timedelta(days=3)),
    timeout=timedelta(minutes=5),  # a subscriber that hangs holds a transaction
)


def job_id_for(provider: str, event_id: str) -> str:
    """The id of an event's job: `<provider>-<event id>`, the same whenever the event is sent.

    Two events never share one. Where that text is no legal job id, or the provider's own dash would
    leave open where the event's id begins, it is a hash of both.

    Args:
        provider: Who sent the event; any text.
        event_id: The provider's id of it; any text.

    Returns:
        A legal job id.
    """
    plain = f"{provider}-{event_id}"
    if "-" not in provider:
        try:
            check_job_id(plain)
        except JobRefused:
            pass
        else:
            return plain
    # the length keeps the two apart, and no plain id is without a dash; half a surrogate pair is
    # text, too
    message = f"{len(provider)}:{plain}".encode("utf-8", "surrogatepass")
    return f"sha256.{hashlib.sha256(message).hexdigest()}"


async def enqueue_event(jobs: JobScheduler, event: BillingEvent) -> Enqueued:
    """Enqueue an event under its own id, so that however often it is sent, it is one job.

    Where that job has failed, it runs again, with the event as it was sent first: that is what a
    provider's button *Resend* is for.

    Args:
        jobs: What `corral.connect()` yields, or `Outbox(jobs).within(connection)`.
        event: The event, its signature verified.

    Returns:
        The job's id, whether this call made it, and else the state that it was in.

    Raises:
        JobRefused: It holds what no job can: an integer that JavaScript cannot read, more than the
        largest payload.
        StoreUnavailable: The store is away: answer the provider with an error, and it will send the
        event again.
    """
    job_id = job_id_for(event.provider, event.event_id)
    return await jobs.enqueue(billing_webhooks_retry, event, job_id=job_id, if_failed="retry")


@hookimpl
def corral_queues() -> list[Queue]:
    """Declare the queue."""
    return [billing_webhooks_retry]


@hookimpl
def corral_settings() -> list[type[PluginSettings]]:
    """Declare the settings, `CORRAL_BILLING_WEBHOOKS_RETRY_…`."""
    from corral_billing_webhooks_retry.settings import BillingSettings  # noqa: PLC0415  # it imports this module

    return [BillingSettings]


@hookimpl
def corral_processors() -> list[Processor]:
    """Bind its processor; the database is imported in here."""
    from corral_billing_webhooks_retry.processor import dispatch_event, open_dispatcher  # noqa: PLC0415  # workers only

    return [billing_webhooks_retry.processed_by(dispatch_event, using=open_dispatcher)]


@hookimpl
def corral_tables() -> list[MetaData]:
    """The table of objects that events are about, for `corral db create`."""
    from corral_billing_webhooks_retry.billing_tables import metadata  # noqa: PLC0415  # a producer has no SQLAlchemy

    return [metadata]


@hookimpl
def corral_hookspecs() -> list[object]:
    """What applications and other plugins may take part in."""
    return [hookspecs]
