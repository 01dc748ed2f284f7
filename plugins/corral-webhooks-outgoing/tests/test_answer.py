"""What an answer means: when to come back, and what is reported of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from corral_webhooks_outgoing.answer import Answer

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


def wait(retry_after: str | None, status: int = 429) -> timedelta | None:
    return Answer(status, retry_after).wait(NOW)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    "text", ["7", " 7 ", "007", "Tue, 01 Jan 2030 12:00:07 GMT", "Tue, 01 Jan 2030 12:00:07 -0000"]
)
def test_retry_after_is_seconds_or_a_date(status, text) -> None:
    assert wait(text, status) == timedelta(seconds=7)


@pytest.mark.parametrize(
    "text", ["86401", "9" * 5000, format_datetime(NOW + timedelta(days=30), usegmt=True)]
)
def test_nobody_is_waited_for_longer_than_a_day(text) -> None:
    assert wait(text) == timedelta(days=1)


@pytest.mark.parametrize(
    "text",
    [
        *(None, "", "0", "000", "-7", "7.5", "soon", "\u0667", "7, 8", "\0", "Tue", ":", "1 Foo"),
        "Tue, 01 Jan 2030 11:59:59 GMT",
        "Tue, 99 Jan 2030 12:00:07 GMT",
        "Tue, 01 Jan 99999999 12:00:07 GMT",
    ],
)
def test_what_says_nothing_leaves_it_to_the_backoff(text) -> None:
    assert wait(text) is None


@pytest.mark.parametrize("status", [200, 301, 400, 410, 500, 502])
def test_only_429_and_503_are_asked(status) -> None:
    assert wait("7", status) is None


@pytest.mark.parametrize("status", [301, 308, 408, 429, 500, 503, 599, 600])
def test_what_the_endpoint_would_answer_to_other_events_says_that_it_is_down(status) -> None:
    assert Answer(status).is_down


@pytest.mark.parametrize("status", [200, 204, 400, 401, 404, 409, 410, 413, 422, 499])
def test_what_is_about_one_event_does_not(status) -> None:
    assert not Answer(status).is_down


def test_the_status_is_reported_and_how_the_body_begins() -> None:
    assert str(Answer(503)) == "answered 503"
    assert str(Answer(503, None, b"  try\n\tlater ")) == "answered 503: try later"
    assert str(Answer(302)) == "answered 302 (redirects are not followed)"


@pytest.mark.parametrize(
    "body", [bytes(range(256)) * 300, b"\x1b[2J" * 9, "\u202e\u0000é…".encode() * 999, b"\xff" * 9]
)
def test_what_is_reported_of_a_body_is_short_printable_and_one_line(body) -> None:
    message = str(Answer(500, None, body))
    assert message.isprintable()
    assert len(message) <= 220
