"""What a worker does while the store is away: wait, with jitter, and say so once."""

from __future__ import annotations

import asyncio
import random
import time

import structlog

__all__ = ["Backoff", "Outage"]

log = structlog.get_logger("corral.worker")

FIRST_SECONDS = 0.05
LONGEST_SECONDS = 1.0
REMIND_SECONDS = 30.0


class Outage:
    """One worker's view of its store: all of its loops and threads report here, so that an outage is told once."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._told = 0.0

    def failed(self, error: Exception) -> None:
        """Something could not reach the store. Callable from any thread."""
        now = time.monotonic()
        if self._since is None:
            self._since = self._told = now
            log.warning("store unavailable", error=str(error))
        elif now - self._told >= REMIND_SECONDS:
            self._told = now
            log.warning("store still unavailable", error=str(error), seconds=round(now - self._since))

    def ended(self) -> None:
        """The store has answered. Callable from any thread."""
        if self._since is not None:
            since, self._since = self._since, None
            log.info("store is back", seconds=round(time.monotonic() - since, 1))


class Backoff:
    """The waits of one loop: from 50 ms to 1 s, with full jitter, so that a fleet does not return all at once.

    Args:
        outage: Where failures are reported.
    """

    def __init__(self, outage: Outage) -> None:
        self._outage = outage
        self._tries = 0

    async def failed(self, error: Exception) -> None:
        """Report a failure and wait."""
        self._outage.failed(error)
        longest = min(FIRST_SECONDS * 2**self._tries, LONGEST_SECONDS)
        self._tries = min(self._tries + 1, 10)
        await asyncio.sleep(max(random.random() * longest, FIRST_SECONDS / 5))  # noqa: S311  # jitter, no secret

    def succeeded(self) -> None:
        """The store answered."""
        self._tries = 0
        self._outage.ended()
