"""The README's route and subscriber, word for word."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from sqlalchemy import Column, DateTime, MetaData, String, Table, insert, select

from corral import Payload, Queue, hookimpl, testing
from corral_billing_webhooks_retry import billing_webhooks_retry

pytestmark = pytest.mark.asyncio

ROUTE, SUBSCRIBER, SKIPPING = re.findall(
    r"```python\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text(), re.DOTALL
)

BODY = (
    b'{"id":"evt_1","type":"invoice.paid","created":1767225598,'
    b'"data":{"object":{"id":"in_1","customer_email":"ada@example.org"}}}'
)


class Mail(Payload):
    """As much of the queue `emails` as the page uses."""

    to: str
    template: str
    variables: dict[str, str]


class Response(NamedTuple):
    """A response of a web framework."""

    content: str = ""
    status_code: int = 200


async def answer(jobs: Any, body: bytes, headers: dict[str, str]) -> int:
    """What the route answers to a request: its status."""
    routes: dict[str, Any] = {}
    app = SimpleNamespace(post=lambda path: lambda route: routes.setdefault(path, route))
    made = {
        "app": app,
        "jobs": jobs,
        "signing_secret": "whsec_1",
        "Request": object,
        "Response": Response,
    }
    exec(ROUTE, made)

    async def whole() -> bytes:
        return body

    return (
        await routes["/webhooks/stripe"](SimpleNamespace(body=whole, headers=headers))
    ).status_code


def signed(body: bytes) -> dict[str, str]:
    now = str(int(time.time()))
    made = hmac.new(b"whsec_1", now.encode() + b"." + body, hashlib.sha256).hexdigest()
    return {"stripe-signature": f"t={now},v1={made}"}


async def test_the_route_enqueues_what_stripe_signed_once_and_refuses_the_rest() -> None:
    jobs = testing.RecordingJobScheduler()
    assert await answer(jobs, BODY, {}) == 400
    assert await answer(jobs, BODY, signed(BODY + b" ")) == 400
    assert await answer(jobs, b"{}", signed(b"{}")) == 400
    assert jobs.jobs == []
    assert [await answer(jobs, BODY, signed(BODY)) for _ in range(3)] == [204] * 3
    assert [job.id for job in jobs.jobs] == ["stripe-evt_1"]
    assert jobs.payloads(billing_webhooks_retry)[0].type == "invoice.paid"


async def test_the_subscriber_marks_the_invoice_and_enqueues_the_mail(
    payments_db: Any, corral_kit: testing.Kit
) -> None:
    invoices = Table(
        "invoices", MetaData(), Column("id", String), Column("paid_at", DateTime(timezone=True))
    )
    async with payments_db.engine.begin() as connection:
        await connection.run_sync(invoices.create)
        await connection.execute(insert(invoices).values(id="in_1"))
    made: dict[str, Any] = {"invoices": invoices}
    exec(SUBSCRIBER, made)
    event = billing_webhooks_retry.validated(
        {
            "provider": "stripe",
            "eventId": "evt_1",
            "type": "invoice.paid",
            "occurredAt": "2027-01-01T10:00:00Z",
            "body": {"data": {"object": {"id": "in_1", "customer_email": "ada@example.org"}}},
        }
    )
    async with corral_kit.connect(Queue("emails", Mail)) as payments_db.jobs:
        assert (
            await payments_db.run_job(
                payments_db.dispatcher(made["billing_webhooks_retry_event"]), event
            )
            == "handled"
        )
    async with payments_db.engine.connect() as connection:
        paid = await connection.scalar(select(invoices.c.paid_at))
    assert paid.replace(tzinfo=event.occurred_at.tzinfo) == event.occurred_at
    assert await payments_db.count_rows() == (0, 1, 1)


async def test_the_skipping_subscriber_stores_the_newest_state_alone(payments_db: Any) -> None:
    stored: list[Any] = []

    async def store_state(subscription: Any, connection: Any) -> None:
        assert connection.in_transaction()
        stored.append(subscription["status"])

    made: dict[str, Any] = {"hookimpl": hookimpl, "store_state": store_state}
    exec(SKIPPING, made)
    dispatcher = payments_db.dispatcher(made["billing_webhooks_retry_event"])
    statuses = []
    for second, status in ((2, "canceled"), (1, "active")):
        event = billing_webhooks_retry.validated(
            {
                "provider": "stripe",
                "eventId": f"evt_{second}",
                "type": "customer.subscription.updated",
                "occurredAt": f"2027-01-01T10:00:0{second}Z",
                "body": {"data": {"object": {"id": "sub_1", "status": status}}},
            }
        )
        statuses.append(await payments_db.run_job(dispatcher, event))
    assert (statuses, stored) == (["handled", "stale"], ["canceled"])
