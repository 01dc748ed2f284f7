"""What a producer gets: a queue that refuses early what the processor would refuse, and loads
nothing for it.
"""

from __future__ import annotations

import json

import pytest

from corral import PayloadRefused
from corral_webhooks_outgoing import WebhookDelivery, webhooks_outgoing

GOOD = {"endpointId": "ep_1", "eventId": "evt_1", "eventType": "user.created", "data": {"id": 7}}


def wrong_fields(**fields: object) -> list[str]:
    with pytest.raises(PayloadRefused) as refused:
        webhooks_outgoing.validated({**GOOD, **fields})
    return [path for path, _ in refused.value.errors]


def test_is_written_and_read_as_other_languages_write_it() -> None:
    job = WebhookDelivery(
        endpoint_id="ep_1", event_id="evt_1", event_type="user.created", data={"id": 7}
    )
    assert json.loads(webhooks_outgoing.dumped(job)) == GOOD
    assert webhooks_outgoing.parsed(json.dumps({**GOOD, "shard": 7}).encode()) == (job, {"shard"})


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"endpointId": ""}, "endpointId"),
        ({"endpointId": "e p"}, "endpointId"),
        ({"endpointId": "e" * 129}, "endpointId"),
        ({"eventId": ""}, "eventId"),
        ({"eventId": "evt.1"}, "eventId"),  # it is signed between full stops
        ({"eventId": "evt\r\nx: y"}, "eventId"),  # it is a header
        ({"eventId": "evt\n"}, "eventId"),
        ({"eventId": "é"}, "eventId"),
        ({"eventType": "user..created"}, "eventType"),
        ({"eventType": "user created"}, "eventType"),
        ({"eventType": "u" * 129}, "eventType"),
        ({"data": [1]}, "data"),
        ({"data": None}, "data"),
        ({"secret": "whsec_x"}, "secret"),
    ],
)
def test_refuses_what_cannot_be_sent(fields, path) -> None:
    assert wrong_fields(**fields) == [path]


def test_is_tried_eight_times_for_two_hours() -> None:
    options = webhooks_outgoing.options
    waits = [options.backoff.delay * 2**failed for failed in range(options.attempts - 1)]
    assert options.attempts == 8
    assert round(sum(wait.total_seconds() for wait in waits) / 3600, 1) == 2.1


def test_loads_neither_http_nor_a_database_nor_a_store(python) -> None:
    probe = """
import sys, corral_webhooks_outgoing as loaded
loaded.corral_queues(), loaded.corral_hookspecs()
heavy = ("sqlalchemy", "httpx2", "httpcore2", "standardwebhooks", "redis", "structlog", "asyncio", "pydantic_settings")
print([name for name in (*heavy, "corral_webhooks_outgoing.processor") if name in sys.modules])
"""
    assert python(probe) == "[]"


def test_needs_nothing_but_corral_and_pydantic_to_be_enqueued(python) -> None:
    probe = """
import sys
sys.modules |= dict.fromkeys(["sqlalchemy", "aiosqlite", "asyncpg", "httpx2", "httpcore2", "standardwebhooks"])
from corral.app import read_installed
from corral_webhooks_outgoing import webhooks_outgoing
print(read_installed("producer").catalog.get("webhooks-outgoing").queue is webhooks_outgoing)
"""
    assert python(probe) == "True"
