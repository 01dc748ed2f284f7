"""What a producer gets, and what the catalog makes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from corral import PayloadRefused, testing
from corral_billing_webhooks_retry import BillingEvent, billing_webhooks_retry, enqueue_event

GOOD = {
    "provider": "stripe",
    "eventId": "evt_1Abc",
    "type": "invoice.paid",
    "occurredAt": "2027-01-01T10:00:00Z",
    "body": {"id": "evt_1Abc", "data": {"object": {"id": "in_1"}}},
}


def wrong_fields(**fields: object) -> list[str]:
    with pytest.raises(PayloadRefused) as refused:
        billing_webhooks_retry.validated({**GOOD, **fields})
    return [path for path, _ in refused.value.errors]


def test_is_written_as_other_languages_write_it() -> None:
    event = BillingEvent(
        provider="stripe",
        event_id="evt_1Abc",
        type="invoice.paid",
        occurred_at=datetime(2027, 1, 1, 10, tzinfo=UTC),
        body=GOOD["body"],
    )
    assert json.loads(billing_webhooks_retry.dumped(event)) == GOOD
    assert billing_webhooks_retry.parsed(json.dumps({**GOOD, "livemode": True}).encode()) == (
        event,
        {"livemode"},
    )


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


def test_loads_neither_a_database_nor_a_store(python) -> None:
    probe = """
import sys, corral_billing_webhooks_retry as loaded, corral_billing_webhooks_retry.stripe
loaded.corral_queues(), loaded.corral_hookspecs()
heavy = ("sqlalchemy", "redis", "structlog", "asyncio", "pydantic_settings", "corral_billing_webhooks_retry.processor")
print([name for name in heavy if name in sys.modules])
"""
    assert python(probe) == "[]"


def test_needs_nothing_but_corral_and_pydantic_to_be_enqueued(python) -> None:
    probe = """
import sys
sys.modules |= dict.fromkeys(["sqlalchemy", "aiosqlite", "asyncpg"])
from corral.app import read_installed
from corral_billing_webhooks_retry import billing_webhooks_retry, stripe
print(read_installed("producer").catalog.get("billing-webhooks-retry").queue is billing_webhooks_retry)
"""
    assert python(probe) == "True"


def test_a_worker_without_a_database_client_is_told_what_to_install(python) -> None:
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


def test_corral_check_passes(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CORRAL_")}
    command = [sys.executable, "-m", "corral", "check", "--json"]
    checked = subprocess.run(
        command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=60
    )
    assert checked.returncode == 0, checked.stderr
    told = json.loads(checked.stdout)
    assert "billing-webhooks-retry" in [queue["name"] for queue in told["queues"]]
