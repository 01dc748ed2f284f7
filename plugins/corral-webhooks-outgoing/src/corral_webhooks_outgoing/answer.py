"""What a receiver answered, and what follows from it.

It decides, and knows neither network nor database.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

__all__ = ["LONGEST_RETRY_AFTER", "Answer", "NotDelivered"]

LONGEST_RETRY_AFTER: Final = timedelta(days=1)
"""What asks for more is a slip, or wants to be forgotten: within three days it is asked again."""

EXCERPT_CHARACTERS: Final = 200
"""Of a job's failed reason, which has 1 KiB in all."""

THROTTLES: Final = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}

OF_THE_ENDPOINT: Final = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}
"""Those 4xx that say nothing of the request: another job would be refused as well."""


class NotDelivered(Exception):
    """The receiver has not taken the event; another attempt may succeed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer.

    Attributes:
        status: Its status.
        retry_after: Its header `Retry-After`, or None.
        body: The beginning of its body.
    """

    status: int
    retry_after: str | None = None
    body: bytes = b""

    @property
    def accepted(self) -> bool:
        """Whether the receiver has taken the event: a 2xx, whatever became of its body."""
        return 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """Whether the receiver wants no more events."""
        return self.status == HTTPStatus.GONE

    @property
    def is_down(self) -> bool:
        """Whether the endpoint would refuse other events too: 3xx, 408, 429, 5xx, and oddities."""
        one_event = 400 <= self.status < 500 and self.status not in OF_THE_ENDPOINT
        return not self.accepted and not one_event

    def __str__(self) -> str:
        """The status and the start of the body in one printable line: `answered 503: try later`."""
        text = " ".join(self.body[: 4 * EXCERPT_CHARACTERS].decode("utf-8", "replace").split())
        shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
        if len(shown) > EXCERPT_CHARACTERS:
            shown = shown[: EXCERPT_CHARACTERS - 1] + "…"
        redirects = " (redirects are not followed)" if 300 <= self.status < 400 else ""
        return f"answered {self.status}{redirects}" + (f": {shown}" if shown else "")

    def wait(self, now: datetime) -> timedelta | None:
        """How long a 429 or a 503 asks us to wait at least, at most a day.

        The job waits for that or for its backoff, whichever is longer: a receiver that is down for
        hours and answers `Retry-After: 1` must not spend all attempts in seconds.

        Args:
            now: The time of the answer (aware).

        Returns:
            None where it does not ask, not legibly, or not for any time: the backoff holds then.
        """
        if self.status not in THROTTLES or self.retry_after is None:
            return None
        wanted = _wanted(self.retry_after.strip(), now)
        return min(wanted, LONGEST_RETRY_AFTER) if wanted > timedelta(0) else None


def _wanted(text: str, now: datetime) -> timedelta:
    """Parse `Retry-After`: seconds or a date (RFC 9110, section 10.2.3); zero if it is neither."""
    if text.isascii() and text.isdecimal():
        digits = text.lstrip("0")
        return timedelta(seconds=int(digits or "0")) if len(digits) < 9 else LONGEST_RETRY_AFTER
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now
    except (
        ValueError,
        TypeError,
        IndexError,
        OverflowError,
    ):  # it was made for mail, and is not sure of its errors
        return timedelta(0)
