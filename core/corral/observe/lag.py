"""`LoopLag`: how late an event loop runs its tasks; other threads can read it meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Final

__all__ = ["LoopLag"]

BEAT_SECONDS: Final = 0.5
REMEMBERED_SECONDS: Final = 60.0
"""A scrape a minute, Prometheus's default, misses nothing."""


class LoopLag:
    """The lag of one event loop. Everything but `measure` may be called from any thread."""

    def __init__(self) -> None:
        self._due = time.monotonic() + BEAT_SECONDS
        self._measured: deque[tuple[float, float]] = deque(
            maxlen=int(REMEMBERED_SECONDS / BEAT_SECONDS)
        )

    async def measure(self) -> None:
        """Measure twice a second until cancelled."""
        while True:
            self._due = time.monotonic() + BEAT_SECONDS
            await asyncio.sleep(BEAT_SECONDS)
            now = time.monotonic()
            self._measured.append((now, now - self._due))

    @property
    def seconds(self) -> float:
        """How late the present measurement is: 0 while the loop is not blocked."""
        return max(time.monotonic() - self._due, 0.0)

    @property
    def worst_seconds(self) -> float:
        """The largest lag within the last minute, in seconds."""
        since = time.monotonic() - REMEMBERED_SECONDS
        return max([self.seconds, *(late for at, late in tuple(self._measured) if at >= since)])
