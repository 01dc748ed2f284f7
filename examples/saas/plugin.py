"""The hooks of this application: `CORRAL_APP=examples.saas.plugin` names it to every process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import MetaData, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from corral import hookimpl
from corral_billing_webhooks_retry import BillingEvent
from corral_usage_period_rollover.periods import ClosedPeriod
from corral_usage_period_rollover.usage import end_subscription
from examples.saas.tables import invoices, metadata, payments, users

__all__ = [
    "account_deletions_erase",
    "billing_webhooks_retry_event",
    "corral_tables",
    "data_exports_records",
    "usage_period_rollover_closed",
]


@hookimpl
def corral_tables() -> list[MetaData]:
    """The application's tables, for `corral db create`."""
    return [metadata]


@hookimpl
async def billing_webhooks_retry_event(
    event: BillingEvent, connection: AsyncConnection, newer_seen: bool
) -> Literal["stale"] | None:
    """Record payments, and keep the plan as the newest event of the subscription says.

    A paid invoice is one payment, however often and late its event arrives.
    """
    body: dict[str, Any] = dict(event.body)
    if event.type.startswith("customer.subscription."):
        if newer_seen:
            return "stale"
        subscription = body["data"]["object"]
        plan = "paid" if subscription["status"] == "active" else "free"
        own = users.c.id == subscription["client_reference_id"]
        await connection.execute(update(users).where(own).values(plan=plan))
    elif event.type == "invoice.paid":
        await _record_payment(connection, event, body["data"]["object"])
    return None


async def _record_payment(
    connection: AsyncConnection, event: BillingEvent, invoice: Mapping[str, Any]
) -> None:
    user_id = invoice["client_reference_id"]
    await connection.execute(
        insert(payments).values(
            user_id=user_id,
            provider_event=event.event_id,
            payer_email=invoice["customer_email"],
            cents=invoice["amount_paid"],
            paid_at=datetime.now(UTC),
        )
    )
    await connection.execute(update(users).where(users.c.id == user_id).values(plan="paid"))


@hookimpl
async def usage_period_rollover_closed(period: ClosedPeriod, connection: AsyncConnection) -> None:
    """A closed hour is an invoice."""
    used = period.totals.get("requests", 0)
    await connection.execute(
        insert(invoices).values(
            user_id=period.subscription_id, period_start=period.started_at, requests=used
        )
    )


@hookimpl
async def account_deletions_erase(user_id: str, connection: AsyncConnection) -> Mapping[str, int]:
    """What no table file can say: no further hour is metered.

    Rows are erased as `accounts.toml` says.
    """
    await end_subscription(connection, user_id)
    return {"subscriptions": 1}


@hookimpl
async def data_exports_records(
    user_id: str, connection: AsyncConnection
) -> Mapping[str, AsyncIterator[Mapping[str, object]]]:
    """What no table file can say: invoices with their price.

    Everything else is exported as `accounts.toml` says.
    """

    async def stream_invoices() -> AsyncIterator[Mapping[str, object]]:
        own = select(invoices.c.period_start, invoices.c.requests).where(
            invoices.c.user_id == user_id
        )
        async for start, requests in await connection.stream(own.order_by(invoices.c.period_start)):
            yield {"hour": start, "requests": requests, "cents": requests * 2}

    return {"invoices": stream_invoices()}
