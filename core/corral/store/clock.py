"""`Clock`: how far a test has moved time forward. It is added to the store's own time."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Clock"]


@dataclass(slots=True, eq=False)
class Clock:
    """What every script adds to the store's time; zero but in tests.

    Attributes:
        offset_ms: How far time was moved forward.
        by_hand: Whether a test moves time. A burst then does not wait for the end of a rate limit,
            as it never waits until a delayed job is due.
    """

    offset_ms: int = 0
    by_hand: bool = False
