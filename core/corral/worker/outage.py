"""What a worker does while the store is away: wait, with jitter, and say so once."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable
from contextlib import suppress

from corral.loggers import Logger

__all__ = ["Backoff", "ConnectionReport", "Outage"]

log = Logger("corral.worker")

FIRST_SECONDS = 0.05
LONGEST_SECONDS = 1.0
REMIND_SECONDS = 30.0


class Outage:
    """One worker's view of its store: all of its loops and threads report here, so that an outage
    is told once.
    """

    def __init__(self) -> None:
        self._since: float | None = None
        self._told = 0.0
        self._ended = -math.inf
        self._to_tell: list[Callable[[], object]] = []

    @property
    def lasts(self) -> bool:
        """Whether the store is away."""
        return self._since is not None

    def failed(self, error: Exception, answered: float) -> None:
        """A connection failed. Callable from any thread.

        Args:
            error: Why.
            answered: When it answered last, by the monotonic clock. One that was silent since
                before an outage ended broke in that one: it tells nothing new.
        """
        now = time.monotonic()
        if self._since is None:
            if answered < self._ended:
                return
            self._since = self._told = now
            log.warning("store unavailable", error=str(error))
        elif now - self._told >= REMIND_SECONDS:
            self._told = now
            log.warning(
                "store still unavailable", error=str(error), seconds=round(now - self._since)
            )

    def ended(self) -> None:
        """The store has answered. Callable from any thread."""
        if self._since is not None:
            since, self._since, self._ended = self._since, None, time.monotonic()
            log.info("store is back", seconds=round(self._ended - since, 1))
            for tell in self._to_tell:
                with suppress(RuntimeError):  # of an event loop that is closed by now
                    tell()

    def on_end(self, tell: Callable[[], object]) -> None:
        """Call something whenever an outage has ended, on whichever thread finds out.

        Args:
            tell: What to call: the store may have come back empty.
        """
        self._to_tell.append(tell)


class ConnectionReport:
    """What one connection after the other, of one loop or thread, tells of the store.

    Args:
        outage: Where it is told.
    """

    def __init__(self, outage: Outage) -> None:
        self._outage = outage
        self._answered = math.inf  # a connection that is yet to be made is no leftover of anything

    def failed(self, error: Exception) -> None:
        """The connection failed, or could not be made."""
        self._outage.failed(error, self._answered)
        self._answered = math.inf

    def answered(self) -> None:
        """The store answered."""
        self._answered = time.monotonic()
        self._outage.ended()


class Backoff:
    """The waits of one loop: from 50 ms to 1 s, with full jitter, so that a fleet does not return
    all at once.

    They count from the start of what failed: who has waited for a reply in vain has waited.

    Args:
        outage: Where failures are reported.
    """

    def __init__(self, outage: Outage) -> None:
        self._contact = ConnectionReport(outage)
        self._tries = 0
        self._succeeded = self._began = self._moved = time.monotonic()
        self._failing: float | None = None

    @property
    def silent_seconds(self) -> float:
        """How long the store has not answered this loop."""
        return time.monotonic() - self._succeeded

    @property
    def failing_seconds(self) -> float:
        """How long the calls of this loop have failed, one after the other; 0 where the last one
        has not.
        """
        since = self._failing  # asked by the thread of the probes
        return 0.0 if since is None else time.monotonic() - since

    @property
    def still_seconds(self) -> float:
        """How long no call of this loop was answered, and none failed: every call does one of both."""
        return time.monotonic() - self._moved

    async def failed(self, error: Exception) -> None:
        """Report a failure and wait."""
        self._contact.failed(error)
        self._moved = time.monotonic()
        if self._failing is None:
            self._failing = self._moved
        await self.wait()

    async def wait(self) -> None:
        """Wait before the next try of what the store answered with an error: that is no outage."""
        longest = min(FIRST_SECONDS * 2**self._tries, LONGEST_SECONDS)
        self._tries = min(self._tries + 1, 10)
        due = self._began + random.random() * longest  # noqa: S311  # jitter, no secret
        await asyncio.sleep(max(due - time.monotonic(), FIRST_SECONDS / 5))
        self._began = time.monotonic()

    def answered(self) -> None:
        """The store answered with an error: it is there, and nothing was achieved."""
        self._failing, self._moved = None, time.monotonic()
        self._contact.answered()

    def succeeded(self) -> None:
        """The store answered."""
        self._tries, self._failing = 0, None
        self._succeeded = self._began = self._moved = time.monotonic()
        self._contact.answered()
