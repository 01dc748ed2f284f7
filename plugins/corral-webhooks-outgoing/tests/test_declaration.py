"""What a producer gets: a queue that refuses early what the processor would refuse, and loads
nothing for it.
"""

from __future__ import annotations

import pytest

from corral import PayloadRefused
from corral.testing import DeclarationContract
from corral_webhooks_outgoing import webhooks_outgoing

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


def test_is_tried_eight_times_for_two_hours() -> None:
    options = webhooks_outgoing.options
    waits = [options.backoff.delay * 2**failed for failed in range(options.attempts - 1)]
    assert options.attempts == 8
    assert round(sum(wait.total_seconds() for wait in waits) / 3600, 1) == 2.1
