"""`JobState`: the states that a job can be in, as an operator and a producer see them."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["JobState"]


class JobState(StrEnum):
    """The state of a job in the store.

    A member is a text: `JobState.FAILED == "failed"`. The order is the one in which the board and
    the command line show them.
    """

    WAITING = "waiting"
    """Will run as soon as a worker is free; also while its queue is paused."""
    ACTIVE = "active"
    """A worker runs it, or a worker that died has not been noticed yet."""
    PRIORITIZED = "prioritized"
    """Waits, and has a priority: it runs after the jobs that have none."""
    DELAYED = "delayed"
    """Comes due later: it was enqueued with a delay, waits for its next attempt, or was snoozed."""
    WAITING_CHILDREN = "waiting-children"
    """Waits until its child jobs have ended. Only other clients make such jobs."""
    COMPLETED = "completed"
    """Its processor returned, and the queue's retention has not removed it yet."""
    FAILED = "failed"
    """Its last attempt failed, and the queue's retention has not removed it yet."""
