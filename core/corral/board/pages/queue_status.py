"""`QueueStatus`: what the overview and a queue's own page say about a queue first."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from corral.board.board_context import BoardContext
from corral.inspector import AttemptFailures, DamagedKey, QueueSummary, WorkerStatus
from corral.job_state import JobState

__all__ = ["QueueStatus", "Trouble", "build_queue_status", "live_workers", "read_cached_workers"]

LONG_WAIT: Final = timedelta(minutes=5)
"""A queue whose oldest job has waited longer gets a warning, even if nothing else is wrong."""


SAME_TIME: Final = timedelta(minutes=1)
"""Reasons whose last attempts failed within this time belong to one trouble."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why attempts fail, or failed within the last hour.

    Attributes:
        failures: The present reason: of those that failed last, the most frequent one.
        is_over: Whether jobs have completed since, and no job that was seen waits for another
            attempt or is at one.
    """

    failures: AttemptFailures
    is_over: bool


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """A queue's summary, its workers, and warnings about it.

    Attributes:
        summary: The counts and figures from the store.
        workers: How many workers serve the queue.
        waiting: How many jobs could start now: waiting and prioritized ones.
        warnings: What an operator should know first, such as `paused` or `no worker`.
        trouble: Why attempts fail, or None if none has failed within the last hour.
    """

    summary: QueueSummary
    workers: int
    waiting: int
    warnings: tuple[str, ...]
    trouble: Trouble | None = None

    @property
    def name(self) -> str:
        """The queue's name."""
        return self.summary.queue


def live_workers(workers: Iterable[WorkerStatus]) -> Sequence[WorkerStatus]:
    """The workers that have reported lately; the others are silent."""
    return [worker for worker in workers if worker.state != "silent"]


async def read_cached_workers(
    context: BoardContext,
) -> tuple[Sequence[WorkerStatus] | None, tuple[str, ...]]:
    """Read all workers; costs one `JobInspector.workers`.

    Returns:
        The workers, and nothing; or None and the damaged keys, so that a page can be shown without
        its workers.
    """
    try:
        return await context.cache.get("workers", context.inspector.workers), ()
    except DamagedKey as error:
        return None, error.damaged


def build_queue_status(
    summary: QueueSummary, workers: Collection[WorkerStatus] | None, now: datetime
) -> QueueStatus:
    """Work out the status of a queue.

    Args:
        summary: The queue's counts and figures.
        workers: The running workers; None if they could not be read.
        now: The current time by the store's clock.
    """
    serving = sum(summary.queue in worker.queues for worker in workers or ())
    waiting = summary.counts[JobState.WAITING] + summary.counts[JobState.PRIORITIZED]
    warnings = []
    if summary.limits.paused:
        warnings.append("paused")
    if summary.damaged:
        warnings.append("damaged")
    if not serving and workers is not None:
        warnings.append("no worker: no job starts" if waiting else "no worker")
    if waiting and summary.oldest_waiting and now - summary.oldest_waiting > LONG_WAIT:
        warnings.append("long wait")
    return QueueStatus(summary, serving, waiting, tuple(warnings), _find_trouble(summary))


def _find_trouble(summary: QueueSummary) -> Trouble | None:
    timed = [(each.last_at, each) for each in summary.attempt_failures if each.last_at is not None]
    if not timed:
        return None
    newest = max(at for at, _ in timed)
    failures = max(
        (each for at, each in timed if newest - at <= SAME_TIME), key=lambda each: each.series
    )
    is_tried = summary.retrying.count > 0 or summary.is_trying_again
    return Trouble(failures, is_over=not is_tried and failures.completed_since > 0)
