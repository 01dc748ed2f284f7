"""What a producer gets: a queue that refuses early what the processor would refuse, and loads
nothing for it.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from corral import Exponential, PayloadRefused
from corral.testing import DeclarationContract
from corral_webhooks_outgoing import HORIZON, webhooks_outgoing

GOOD = {"endpointId": "ep_1", "eventId": "evt_1", "eventType": "user.created", "data": {"id": 7}}


class TestDeclaration(DeclarationContract):
    queue = webhooks_outgoing
    package = "corral_webhooks_outgoing"
    example = GOOD
    not_for_producers = (
        "sqlalchemy",
        "aiosqlite",
        "asyncpg",
        "httpx2",
        "httpcore2",
        "standardwebhooks",
    )


def wrong_fields(**fields: object) -> list[str]:
    with pytest.raises(PayloadRefused) as refused:
        webhooks_outgoing.validated({**GOOD, **fields})
    return [path for path, _ in refused.value.errors]


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


def test_attempts_last_three_days_with_the_shortest_waits() -> None:
    """What a job does in those days is in test_horizon.py."""
    options = webhooks_outgoing.options
    backoff = options.backoff
    assert isinstance(backoff, Exponential)
    waits = [min(backoff.delay * 2 ** min(n, 30), backoff.max) for n in range(options.attempts - 1)]
    shortest = sum(waits, timedelta()) * (1 - backoff.jitter)
    assert HORIZON <= shortest <= HORIZON + backoff.max
