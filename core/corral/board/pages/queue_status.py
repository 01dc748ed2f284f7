"""`QueueStatus`: one queue as the overview and its own page tell it first."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from corral.board.context import BoardContext
from corral.inspector import DamagedKey, Summary, WorkerSeen

__all__ = ["QueueStatus", "at_work", "queue_status_of", "workers_seen"]

LONG: Final = timedelta(minutes=5)
"""A job that has waited longer is told of, even where nothing else is wrong."""


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """A queue at a glance.

    Attributes:
        summary: What the store says.
        workers: How many processes work it off.
        waiting: How many jobs could start now: waiting and prioritized ones.
        told: What an operator should know first, in words; empty where all is well.
    """

    summary: Summary
    workers: int
    waiting: int
    told: tuple[str, ...]

    @property
    def name(self) -> str:
        """The queue's name."""
        return self.summary.queue


def at_work(workers: Iterable[WorkerSeen]) -> Sequence[WorkerSeen]:
    """Those that are not silent."""
    return [worker for worker in workers if worker.state != "silent"]


async def workers_seen(
    context: BoardContext,
) -> tuple[Sequence[WorkerSeen] | None, tuple[str, ...]]:
    """Every worker; or None, and what is wrong with the key that tells of them: queues are shown
    all the same.

    Costs what `JobInspector.workers` does.
    """
    try:
        return await context.recent.get("workers", context.inspector.workers), ()
    except DamagedKey as error:
        return None, error.damaged


def queue_status_of(
    summary: Summary, workers: Collection[WorkerSeen] | None, now: datetime
) -> QueueStatus:
    """Judge a queue.

    Args:
        summary: What the store says.
        workers: Those that are at work; None where nobody can tell.
        now: The store's time.
    """
    serving = sum(summary.queue in worker.queues for worker in workers or ())
    waiting = summary.counts["waiting"] + summary.counts["prioritized"]
    told = []
    if summary.limits.paused:
        told.append("paused")
    if summary.damaged:
        told.append("damaged")
    if not serving and workers is not None:
        told.append("no worker" if not waiting else "no worker: nothing of this starts")
    if waiting and summary.oldest_waiting and now - summary.oldest_waiting > LONG:
        told.append("waits long")
    return QueueStatus(summary, serving, waiting, tuple(told))
