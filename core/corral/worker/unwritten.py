"""`Unwritten`: the endings of one queue's jobs that the store does not have yet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from corral.store.queue_store import BATCH_BYTES
from corral.worker.finished_job import FinishedJob

__all__ = ["Unwritten"]

STUCK_SECONDS = 0.5
"""How long an ending that the store could not write waits for its next try."""


class Unwritten:
    """The endings that the store does not have yet.

    Attributes:
        count: How many there are, those of calls that are on their way included.
        ready: Those that the next calls hand over, in order.

    Args:
        wake: Called when stuck endings are ready again.
    """

    def __init__(self, wake: Callable[[], object]) -> None:
        self.count = 0
        self.ready: list[FinishedJob] = []
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._stuck: list[list[FinishedJob]] = []
        self._timer: asyncio.TimerHandle | None = None

    @property
    def has_stuck(self) -> bool:
        """Whether there are endings that the store could not write, and that wait for their next
        try.
        """
        return bool(self._stuck)

    def add(self, ended: FinishedJob) -> None:
        """A job has ended."""
        self.ready.append(ended)
        self.count += 1

    def take(self, most: int) -> list[FinishedJob]:
        """Take out what one call hands over: at most so many, of about `BATCH_BYTES` together."""
        room = _fitting(self.ready, most)
        taken, self.ready = self.ready[:room], self.ready[room:]
        return taken

    def retry_later(self, ended: list[FinishedJob]) -> None:
        """Keep endings that the store could not write, and make them ready again in
        `STUCK_SECONDS`.

        Those of one call stay together, and one call's endings are tried after the other's.
        """
        if ended:
            self._stuck.append(ended)
        if self._stuck and self._timer is None:
            self._timer = self._loop.call_later(STUCK_SECONDS, self._retry)

    def stop(self) -> None:
        """Make nothing ready any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _retry(self) -> None:
        self._timer = None
        self.ready += self._stuck.pop(0)
        self.retry_later([])
        self._wake()


def _fitting(ended: Sequence[FinishedJob], most: int) -> int:
    """How many of these endings go into one call: at most `most`, and of about `BATCH_BYTES`
    together.
    """
    size = 0
    for place, each in enumerate(ended[:most]):
        size += each.size
        if size > BATCH_BYTES and place:
            return place
    return min(len(ended), most)
