"""`Suspects`: a process starts jobs that stalled before one at a time, beside fresh ones.

When a process dies, each job that it ran is charged a stall, because it is unknown which one killed
it. If all of them started together again, the harmless ones would die with the one that kills the
process, until all are failed. If they start one at a time, only that one is running when the
process dies again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Suspects"]

ALONE_SECONDS = 1.0
"""A suspect that has run for so long is considered harmless: the next one starts beside it."""


class Suspects:
    """Lets one suspect at a time start, among all queues of a process."""

    def __init__(self) -> None:
        self._turn: object | None = None
        self._running: object | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: set[Callable[[], None]] = set()

    def reserve(self) -> object | None:
        """Take the turn to start a suspect, for a call that may fetch one.

        Returns:
            The turn, or None if another call has it, or if a suspect runs alone.
        """
        if self._turn is not None or self._running is not None:
            return None
        self._turn = object()
        return self._turn

    def release(self, turn: object) -> None:
        """Give the turn back; does nothing if it was used."""
        if self._turn is not turn:
            return
        self._turn = None
        if self._running is None:
            self._wake()

    def start(self, running: object) -> None:
        """Use the turn: this suspect runs alone, until its ending is written or `ALONE_SECONDS`.

        Until its ending is written, a job that has ended is charged a stall if the process dies.
        """
        self._turn = None
        self._running = running
        self._timer = asyncio.get_running_loop().call_later(
            ALONE_SECONDS, self.release_job, running
        )

    def release_job(self, running: object) -> None:
        """Let the next suspect start: this one's ending is written, or it has run long enough.

        Ignored unless the job is the suspect that was started last.
        """
        if self._running is not running:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._running = self._timer = None
        self._wake()

    def call_when_free(self, look: Callable[[], None]) -> None:
        """Call a function once when a suspect may start; for a queue with suspects in the store."""
        self._waiting.add(look)
        if self._turn is None and self._running is None:
            self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for look in waiting:
            look()
