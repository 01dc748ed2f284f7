"""What holds a queue back: pause, concurrency of the whole queue, rate limit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """A queue's limits, over all of its workers (wire § 2.3).

    Attributes:
        paused: Whether no job starts.
        concurrency: How many jobs run at once, or None.
        rate: How many jobs start in `per`, or None.
        per: The length of the rate limit's window, or None.
    """

    paused: bool = False
    concurrency: int | None = None
    rate: int | None = None
    per: timedelta | None = None
