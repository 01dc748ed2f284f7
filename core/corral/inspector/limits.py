"""The limits of a whole queue: pause, concurrency, rate limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

__all__ = ["LIMIT_FIELDS", "Limits", "decode_limits"]

LIMIT_FIELDS: Final = ("paused", "concurrency", "max", "duration")
"""The fields of the key `meta` that hold the limits."""


@dataclass(frozen=True, slots=True)
class Limits:
    """A queue's limits, which hold for all of its workers together (wire § 2.3).

    Attributes:
        paused: Whether the queue is paused: no job starts.
        concurrency: The most jobs that run at once; None for no limit.
        rate: The most jobs that start within `per`; None for no limit.
        per: The length of the rate limit's window, or None.
    """

    paused: bool = False
    concurrency: int | None = None
    rate: int | None = None
    per: timedelta | None = None


def decode_limits(values: Sequence[bytes | None]) -> Limits:
    """Decode the limits from the values of `LIMIT_FIELDS`."""
    paused, concurrency, rate, duration = values
    per = timedelta(milliseconds=_integer(duration) or 1000) if rate else None
    return Limits(paused is not None, _integer(concurrency), _integer(rate), per)


def _integer(text: bytes | None) -> int | None:
    try:
        return None if text is None else int(text)
    except ValueError:
        return None
