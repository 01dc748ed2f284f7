"""Outages of the store: a worker waits with jitter, and logs an outage once."""

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
    """Whether one worker's store is away, as its loops and threads report.

    All of them report to one object, so that an outage is logged once.
    """

    def __init__(self) -> None:
        self._since: float | None = None
        self._logged = 0.0
        self._ended = -math.inf
        self._on_end: list[Callable[[], object]] = []

    @property
    def lasts(self) -> bool:
        """Whether the store is away."""
        return self._since is not None

    def report_failure(self, error: Exception, answered: float) -> None:
        """A connection failed. Callable from any thread.

        Args:
            error: Why.
            answered: When the connection last answered, by the monotonic clock. If that was before
                the previous outage ended, its failure belongs to that outage.
        """
        now = time.monotonic()
        if self._since is None:
            if answered < self._ended:
                return
            self._since = self._logged = now
            log.warning("store unavailable", error=str(error))
        elif now - self._logged >= REMIND_SECONDS:
            self._logged = now
            log.warning(
                "store still unavailable", error=str(error), seconds=round(now - self._since)
            )

    def end(self) -> None:
        """End the outage, if there is one: the store has answered. Callable from any thread."""
        if self._since is not None:
            since, self._since, self._ended = self._since, None, time.monotonic()
            log.info("store is back", seconds=round(self._ended - since, 1))
            for callback in self._on_end:
                with suppress(RuntimeError):  # its event loop is closed by now
                    callback()

    def on_end(self, callback: Callable[[], object]) -> None:
        """Have a function called when an outage has ended, on the thread that notices it.

        Args:
            callback: The function. The store may have come back empty.
        """
        self._on_end.append(callback)


class ConnectionReport:
    """Reports to an `Outage` how the connections of one loop or thread do, one after the other.

    Args:
        outage: Receives the reports.
    """

    def __init__(self, outage: Outage) -> None:
        self._outage = outage
        self._answered = math.inf  # a connection that is still to be made belongs to no old outage

    def report_failure(self, error: Exception) -> None:
        """Report that the connection failed, or could not be made."""
        self._outage.report_failure(error, self._answered)
        self._answered = math.inf

    def report_answer(self) -> None:
        """Report that the store answered."""
        self._answered = time.monotonic()
        self._outage.end()


class Backoff:
    """The waits of one loop between its tries: from 50 ms to 1 s, with full jitter.

    The jitter keeps a fleet from returning all at once. A wait counts from the start of the call
    that failed: time that was spent on waiting for its reply is part of the wait.

    Args:
        outage: Receives failures of the store.
    """

    def __init__(self, outage: Outage) -> None:
        self._connection = ConnectionReport(outage)
        self._tries = 0
        self._succeeded = self._began = self._moved = time.monotonic()
        self._failing: float | None = None

    @property
    def silent_seconds(self) -> float:
        """Seconds since a call of this loop succeeded."""
        return time.monotonic() - self._succeeded

    @property
    def failing_seconds(self) -> float:
        """For how many seconds all calls of this loop have failed; 0 if the last one has not."""
        since = self._failing  # read by the thread of the probes
        return 0.0 if since is None else time.monotonic() - since

    @property
    def seconds_since_last_call(self) -> float:
        """Seconds since a call of this loop was answered or failed, as each call is in the end."""
        return time.monotonic() - self._moved

    async def wait_after(self, error: Exception) -> None:
        """Report a failure and wait."""
        self._connection.report_failure(error)
        self._moved = time.monotonic()
        if self._failing is None:
            self._failing = self._moved
        await self.wait()

    async def wait(self) -> None:
        """Wait before the next try. An error that the store answered with is no outage."""
        longest = min(FIRST_SECONDS * 2**self._tries, LONGEST_SECONDS)
        self._tries = min(self._tries + 1, 10)
        due = self._began + random.random() * longest  # noqa: S311  # jitter, no secret
        await asyncio.sleep(max(due - time.monotonic(), FIRST_SECONDS / 5))
        self._began = time.monotonic()

    def report_answer(self) -> None:
        """Report an error that the store answered with: it is there, but the call failed."""
        self._failing, self._moved = None, time.monotonic()
        self._connection.report_answer()

    def report_success(self) -> None:
        """Report a call that succeeded."""
        self._tries, self._failing = 0, None
        self._succeeded = self._began = self._moved = time.monotonic()
        self._connection.report_answer()
