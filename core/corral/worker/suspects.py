"""`Suspects`: jobs that stalled before start one after the other in a process, beside fresh ones.

When a process dies, every job that it ran is charged a stall, because nobody can tell which one
killed it. If they all started together again, the innocent ones would die beside the guilty one
until all are failed. One at a time, only the guilty one is there when the process dies again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Suspects"]

ALONE_SECONDS = 1.0
"""A suspect that has lived for so long is taken for innocent: the next one starts beside it."""


class Suspects:
    """Lets one suspect at a time start, among all queues of a process."""

    def __init__(self) -> None:
        self._turn: object | None = None
        self._running: object | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: set[Callable[[], None]] = set()

    def reserve(self) -> object | None:
        """Claim the turn to start one, for a call that may bring it; None where it is another's, or
        one runs alone.
        """
        if self._turn is not None or self._running is not None:
            return None
        self._turn = object()
        return self._turn

    def release(self, turn: object) -> None:
        """Give the turn back; nothing follows where it was used."""
        if self._turn is not turn:
            return
        self._turn = None
        if self._running is None:
            self._wake()

    def started(self, running: object) -> None:
        """Use the turn: the next one may start when the store has this one's ending, or after
        `ALONE_SECONDS`.

        Until the store has it, a job that has ended is charged a stall if the process dies.
        """
        self._turn = None
        self._running = running
        self._timer = asyncio.get_running_loop().call_later(ALONE_SECONDS, self.ended, running)

    def ended(self, running: object) -> None:
        """The store has a job's ending, or it lived long enough; ignored unless it is the suspect
        started last.
        """
        if self._running is not running:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._running = self._timer = None
        self._wake()

    def when_free(self, look: Callable[[], None]) -> None:
        """Call once when a suspect may start: some wait in the store."""
        self._waiting.add(look)
        if self._turn is None and self._running is None:
            self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for look in waiting:
            look()
