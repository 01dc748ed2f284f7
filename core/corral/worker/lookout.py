"""`Lookout`: knows why the next call should ask for jobs, and when a timer must ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum, auto

from corral.store.codec import Advanced
from corral.store.connection import BLOCK_SECONDS

__all__ = ["Lookout", "Reason"]

LIMIT_SECONDS = 30.0
"""How long a rate-limited worker sleeps at most before it asks again (wire § 15)."""


class Reason(Enum):
    """Why a call may find a job."""

    START = auto()
    """The worker has just started, and has not asked yet."""
    SIGNAL = auto()
    """A marker came, or the wait for one ended without it."""
    TIME = auto()
    """The rate limit is over, or a delayed job is due."""
    TURN = auto()
    """A job that stalled before may start now."""
    MORE = auto()
    """The last reply was full, or repeated an earlier call's: there may be more jobs."""
    FAILURE = auto()
    """A call has failed: the jobs that it would have fetched are still there."""
    SLOTS = auto()
    """The last call did not ask for jobs for all free slots."""


class Lookout:
    """Why, and when, to ask the store for jobs.

    Attributes:
        found_nothing: Whether the last call that asked for jobs brought none, and there is nothing
            to wait for.

    Args:
        wake: Called when there is a reason.
    """

    def __init__(self, wake: Callable[[], object]) -> None:
        self.found_nothing = False
        self._wake = wake
        self._reasons: set[Reason] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        """Whether there is a reason to ask."""
        return bool(self._reasons)

    def add(self, reason: Reason) -> None:
        """Have the next call ask for jobs, without causing one."""
        self._reasons.add(reason)

    def look(self, reason: Reason) -> None:
        """Have a call ask for jobs as soon as there is a lane for it."""
        self._reasons.add(reason)
        self._wake()

    def clear(self, *, for_all_slots: bool) -> None:
        """Forget the reasons to ask for jobs: a call that asks for them is being sent.

        A reason that comes while the call is on its way counts for the next one.

        Args:
            for_all_slots: Whether the call asks for as many jobs as there are free slots. If not,
                the remaining slots are a reason to ask again.
        """
        self._reasons.clear()
        if not for_all_slots:
            self._reasons.add(Reason.SLOTS)

    def read_reply(self, reply: Advanced, want: int, *, clock_by_hand: bool) -> None:
        """Decide by a reply whether, and when, to ask again.

        Args:
            reply: The reply.
            want: How many jobs its call asked for.
            clock_by_hand: Whether the store's time only moves when a test moves it: then no limit
                ends by itself.
        """
        if reply.repeated or reply.cut or (want > 0 and len(reply.jobs) == want):
            self._reasons.add(Reason.MORE)
        elif want:
            self._reasons.discard(Reason.SLOTS)  # another call would find nothing for them either
        if want:
            waits = reply.held or (reply.limited_ms and not clock_by_hand)
            self.found_nothing = not (reply.jobs or waits)
        if reply.limited_ms:
            self._look_in(min(reply.limited_ms / 1000, LIMIT_SECONDS))
        elif reply.due_ms is not None and reply.due_ms < BLOCK_SECONDS * 1000:
            self._look_in(reply.due_ms / 1000 + 0.001)

    def stop(self) -> None:
        """Cancel the timer that asks for jobs."""
        if self._timer is not None:
            self._timer.cancel()

    def _look_in(self, seconds: float) -> None:
        self.stop()
        self._timer = asyncio.get_running_loop().call_later(seconds, self.look, Reason.TIME)
