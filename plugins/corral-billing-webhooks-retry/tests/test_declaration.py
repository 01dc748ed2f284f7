"""What a producer gets, and what the catalog makes of it."""

from __future__ import annotations

import pytest

from corral import PayloadRefused, testing
from corral.testing import DeclarationContract
from corral_billing_webhooks_retry import billing_webhooks_retry, enqueue_event

GOOD = {
    "provider": "stripe",
    "eventId": "evt_1Abc",
    "type": "invoice.paid",
    "occurredAt": "2027-01-01T10:00:00Z",
    "body": {"id": "evt_1Abc", "data": {"object": {"id": "in_1"}}},
    "objectId": "in_1",
}


class TestDeclaration(DeclarationContract):
    queue = billing_webhooks_retry
    package = "corral_billing_webhooks_retry"
    example = GOOD
    not_for_producers = ("sqlalchemy", "aiosqlite", "asyncpg")


def wrong_fields(**fields: object) -> list[str]:
    with pytest.raises(PayloadRefused) as refused:
        billing_webhooks_retry.validated({**GOOD, **fields})
    return [path for path, _ in refused.value.errors]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("provider", ""),
        ("provider", "Stripe"),
        ("provider", "stripe "),
        ("provider", "a" * 65),
        ("eventId", ""),
        ("eventId", 4711),
        ("eventId", "e" * 256),
        ("eventId", "x" * 10_240),
        ("type", ""),
        ("occurredAt", "2027-01-01T10:00:00"),
        ("occurredAt", "yesterday"),
        ("body", "{}"),
        ("body", []),
        ("signature", "t=1,v1=0"),
    ],
)
def test_refuses_what_is_no_event(field: str, value: object) -> None:
    assert wrong_fields(**{field: value}) == [field]


@pytest.mark.asyncio
async def test_an_event_that_is_sent_twice_is_enqueued_once() -> None:
    jobs = testing.RecordingJobScheduler()
    event = billing_webhooks_retry.validated(GOOD)
    sent = [await enqueue_event(jobs, event) for _ in range(3)]
    assert [(each.id, each.created) for each in sent] == [
        ("stripe-evt_1Abc", created) for created in (True, False, False)
    ]
    assert jobs.payloads(billing_webhooks_retry) == [event]


@pytest.mark.asyncio
async def test_an_integer_that_other_readers_would_change_is_refused() -> None:
    event = billing_webhooks_retry.validated({**GOOD, "body": {"data": {"amount": 2**53}}})
    with pytest.raises(PayloadRefused, match=r"body\.data\.amount"):
        await enqueue_event(testing.RecordingJobScheduler(), event)


def test_a_worker_without_a_database_client_learns_what_to_install(python) -> None:
    probe = """
import sys
sys.modules["sqlalchemy"] = None
import corral_billing_webhooks_retry as loaded
try:
    loaded.corral_processors()
except ImportError as error:
    print(error)
"""
    assert python(probe).endswith("install the extra 'sql' from where you got corral")
