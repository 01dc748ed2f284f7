"""`Clock`: how far a test has moved time. Time itself is the store's, and a clock adds to it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Clock"]


@dataclass(slots=True, eq=False)
class Clock:
    """Added to the store's time by all who share it: nothing, but in tests.

    Attributes:
        offset_ms: How far time was moved forward.
        by_hand: Whether a test moves time: then a burst ends before a rate limit does, as before a
        delayed job is due.
    """

    offset_ms: int = 0
    by_hand: bool = False
