"""The queue `webhooks-outgoing`: one job is one event for one endpoint.

This file is all that a producer ever loads.

It must know neither HTTP nor SQLAlchemy: corral and pydantic are enough to import it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import JsonValue, StringConstraints

from corral import Exponential, JobOptions, Payload, Processor, Queue, hookimpl
from corral_webhooks_outgoing import hookspecs

if TYPE_CHECKING:  # workers have it, producers need not
    from sqlalchemy import MetaData
    from sqlalchemy.ext.asyncio import AsyncConnection

    from corral import PluginSettings
    from corral_webhooks_outgoing.endpoints import Endpoint

__all__ = ["WebhookDelivery", "webhooks_outgoing"]

HORIZON: Final = timedelta(days=3)
"""How long an endpoint may be away before its events are given up.

Receivers expect retries for about three days (Standard Webhooks, "Deliverability and reliability").
"""


class WebhookDelivery(Payload):
    """An event that happened, for one endpoint that wants to hear of it.

    Attributes:
        endpoint_id: Whose address it goes to. The address and the secrets are looked up when the
        job runs.
        event_id: The event's own id, the same for all endpoints: what receivers see as
            `webhook-id`. It is signed between full stops, so it has none itself (Standard Webhooks,
            "Signature scheme").
        event_type: `user.created`: words between full stops.
        data: What the event is about. It stays readable in the store as long as the job does.
    """

    endpoint_id: Annotated[str, StringConstraints(pattern=r"^[!-~]{1,128}$")]
    event_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_~-]{1,128}$")]
    event_type: Annotated[
        str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$", max_length=128)
    ]
    data: Mapping[str, JsonValue]


webhooks_outgoing = Queue(
    "webhooks-outgoing",
    WebhookDelivery,
    # the jitter keeps the jobs of an outage from coming back all at once
    options=JobOptions(
        backoff=Exponential(delay=timedelta(minutes=1), jitter=0.25, max=timedelta(hours=2))
    ).retrying_for(HORIZON),
    timeout=timedelta(
        minutes=2
    ),  # the request has a bound of its own; a database connection that hangs has not
)


@hookimpl
def corral_queues() -> list[Queue]:
    """Declare the queue."""
    return [webhooks_outgoing]


@hookimpl
def corral_settings() -> list[type[PluginSettings]]:
    """Declare the settings, `CORRAL_WEBHOOKS_OUTGOING_…`."""
    from corral_webhooks_outgoing.settings import WebhookSettings  # noqa: PLC0415  # read where it is needed

    return [WebhookSettings]


@hookimpl
def corral_processors() -> list[Processor]:
    """Bind its processor; HTTP and the database are imported in here."""
    from corral_webhooks_outgoing.processor import deliver, open_deliveries  # noqa: PLC0415  # workers only

    return [webhooks_outgoing.processed_by(deliver, using=open_deliveries)]


@hookimpl
def corral_tables() -> list[MetaData]:
    """The tables of endpoints and of failing ones, for `corral db create`."""
    from corral_webhooks_outgoing.tables import metadata  # noqa: PLC0415  # a producer has no SQLAlchemy

    return [metadata]


@hookimpl
def corral_hookspecs() -> list[object]:
    """What applications and other plugins may take part in."""
    return [hookspecs]


@hookimpl(trylast=True)
def webhooks_outgoing_endpoint(
    endpoint_id: str, connection: AsyncConnection
) -> Awaitable[Endpoint | None]:
    """The endpoint of our own table, where the application does not keep its own."""
    from corral_webhooks_outgoing.endpoints import find_endpoint  # noqa: PLC0415  # a producer has no SQLAlchemy

    return find_endpoint(connection, endpoint_id)


@hookimpl(trylast=True)
def webhooks_outgoing_endpoint_gone(
    endpoint: Endpoint, connection: AsyncConnection
) -> Awaitable[None]:
    """Disable the endpoint in our own table, if it has it under the address that answered."""
    from corral_webhooks_outgoing.endpoints import disable_address  # noqa: PLC0415  # as above

    return disable_address(connection, endpoint)
