"""What follows from what happens. The only file of the application that enqueues.

A listener takes a `JobScheduler` and does not know what is behind it: in the API it is an outbox in
the transaction that raised the event, in a unit test a `RecordingJobScheduler`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from corral import JobScheduler
from corral_account_deletions.requests import request_deletion
from corral_billing_webhooks_retry import enqueue_event
from corral_data_exports import DataExport, data_exports
from corral_emails import EmailJob, emails
from corral_usage_period_rollover import UsagePeriodRollover, usage_period_rollover
from corral_webhooks_outgoing import WebhookDelivery, webhooks_outgoing
from corral_webhooks_outgoing.endpoints import list_endpoints
from examples.saas.events import (
    AccountDeletionOrdered,
    BillingEventReceived,
    ExportOrdered,
    RolloverOrdered,
    UserRegistered,
)

__all__ = ["LISTENERS"]

Listener = Callable[[Any, AsyncConnection, JobScheduler], Awaitable[object]]


async def send_welcome(
    event: UserRegistered, _connection: AsyncConnection, jobs: JobScheduler
) -> None:
    """A mail to whoever has signed up."""
    variables = {"name": event.name, "url": "https://acme.example/first-steps"}
    await jobs.enqueue(emails, EmailJob(to=event.email, template="welcome", variables=variables))


async def announce_user(
    event: UserRegistered, connection: AsyncConnection, jobs: JobScheduler
) -> None:
    """A webhook to every endpoint: the user's id, and nothing that has to be forgotten later."""
    deliveries = [
        WebhookDelivery(
            endpoint_id=endpoint.id,
            event_id=f"registered-{event.user_id}",
            event_type="user.registered",
            data={"userId": event.user_id},
        )
        for endpoint in await list_endpoints(connection)
    ]
    await jobs.enqueue_many(webhooks_outgoing, deliveries)


async def export_data(
    event: ExportOrdered, _connection: AsyncConnection, jobs: JobScheduler
) -> None:
    """The archive; its job informs the user when it is ready."""
    export = DataExport(user_id=event.user_id, export_id=event.export_id, format=event.format)
    await jobs.enqueue(data_exports, export, job_id=event.export_id, if_failed="retry")


async def delete_later(
    event: AccountDeletionOrdered, connection: AsyncConnection, jobs: JobScheduler
) -> None:
    """The deletion, when the grace period is over."""
    await request_deletion(connection, jobs, event.user_id, email=event.email)


async def book(
    event: BillingEventReceived, _connection: AsyncConnection, jobs: JobScheduler
) -> None:
    """The provider's event, under its own id: however often it is sent, it is one job."""
    await enqueue_event(jobs, event.event)


async def roll_over(
    _event: RolloverOrdered, _connection: AsyncConnection, jobs: JobScheduler
) -> None:
    """The hourly job, now."""
    await jobs.enqueue(usage_period_rollover, UsagePeriodRollover())


LISTENERS: Final[Mapping[type, Sequence[Listener]]] = MappingProxyType(
    {
        UserRegistered: (send_welcome, announce_user),
        ExportOrdered: (export_data,),
        AccountDeletionOrdered: (delete_later,),
        BillingEventReceived: (book,),
        RolloverOrdered: (roll_over,),
    }
)
"""Who hears of what, in this order."""
