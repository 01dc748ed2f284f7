"""`UnwrittenEndings`: the endings of one queue's jobs that the store does not have yet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from corral.store.queue_store import BATCH_BYTES
from corral.worker.finished_job import FinishedJob

__all__ = ["UnwrittenEndings"]

STUCK_SECONDS = 0.5
"""How long an ending that the store could not write waits for its next try."""


class UnwrittenEndings:
    """The endings that the store does not have yet.

    Attributes:
        count: How many there are, including those of calls that are on their way.
        ready: Those that the next calls write, in order.

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
        """Whether endings that the store could not write wait for their next try."""
        return bool(self._stuck)

    def add(self, ended: FinishedJob) -> None:
        """Have the ending of a job written by the next call."""
        self.ready.append(ended)
        self.count += 1

    def take(self, most: int) -> list[FinishedJob]:
        """Take out the endings of one call: at most `most`, and about `BATCH_BYTES` of them."""
        room = _count_fitting(self.ready, most)
        taken, self.ready = self.ready[:room], self.ready[room:]
        return taken

    def retry_later(self, ended: list[FinishedJob]) -> None:
        """Make endings that the store could not write ready again in `STUCK_SECONDS`.

        The endings of one call stay together, and the calls' endings are tried one after the other.
        """
        if ended:
            self._stuck.append(ended)
        if self._stuck and self._timer is None:
            self._timer = self._loop.call_later(STUCK_SECONDS, self._retry)

    def stop(self) -> None:
        """Stop making endings ready again."""
        if self._timer is not None:
            self._timer.cancel()

    def _retry(self) -> None:
        self._timer = None
        self.ready += self._stuck.pop(0)
        self.retry_later([])
        self._wake()


def _count_fitting(ended: Sequence[FinishedJob], most: int) -> int:
    """Return how many endings fit into one call: at most `most`, and about `BATCH_BYTES`."""
    size = 0
    for place, each in enumerate(ended[:most]):
        size += each.size
        if size > BATCH_BYTES and place:
            return place
    return min(len(ended), most)
