"""`Tally`: what one worker process counts of its own jobs, as a subscriber of `corral_job_ended`.

It holds plain numbers that only grow, by queue. `corral.observe.metrics` makes its histograms of
them, and every few seconds what was added is written to the store, for the board's charts. Its keys
are queues of the catalog and types of outcomes: nothing that a job carries becomes a label.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from corral.errors import StoreUnavailable
from corral.fleet.minutes import KEPT_MINUTES, Sums, add_minutes
from corral.hookspecs import hookimpl
from corral.job import Job, run_state
from corral.outcome import LeaseLost, Outcome
from corral.store.connection import Link

__all__ = ["DURATION_SECONDS", "WAIT_SECONDS", "Distribution", "QueueTally", "Tally"]

DURATION_SECONDS: Final = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0)
"""Upper bounds of the buckets, in seconds: from a database row to an export of half an hour."""
WAIT_SECONDS: Final = (0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0)
"""Upper bounds of the buckets, in seconds: from an idle queue to one that is behind by hours."""


@dataclass(slots=True)
class Distribution:
    """How often something took how long.

    Attributes:
        bounds: The upper bounds of the buckets, in seconds.
        counts: The count of each bucket, and a last one for what is above all bounds.
        seconds: The sum of all durations.
    """

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list[int])
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.seconds += seconds


@dataclass(slots=True)
class QueueTally:
    """The counts of one queue since the process started.

    Attributes:
        outcomes: The number of runs, by the type of their outcome.
        duration: How long processors ran.
        wait: How long jobs had been due when they were first started.
        minutes: What is not written to the store yet, by minute of the store's clock.
    """

    outcomes: Counter[type[Outcome]] = field(default_factory=Counter[type[Outcome]])
    duration: Distribution = field(default_factory=lambda: Distribution(DURATION_SECONDS))
    wait: Distribution = field(default_factory=lambda: Distribution(WAIT_SECONDS))
    minutes: dict[int, Sums] = field(default_factory=dict[int, Sums])


class Tally:
    """Counts the runs of a worker process.

    Attributes:
        queues: The counts by the name of the queue.
    """

    def __init__(self) -> None:
        self.queues: dict[str, QueueTally] = {}

    @hookimpl
    def corral_job_ended(self, job: Job[Any], outcome: Outcome) -> None:
        """Count a run. Times are the store's, or differences of this process's monotonic clock."""
        name = job.queue.name
        worked = self.queues.get(name) or self.queues.setdefault(name, QueueTally())
        worked.outcomes[type(outcome)] += 1
        if type(outcome) is LeaseLost:
            return  # another worker runs the job, and will count it
        run = run_state(job)
        seconds, started_ms = run.seconds, run.processed_ms
        run_ms = int(seconds * 1000)
        minute = (started_ms + run_ms) // 60_000
        sums = worked.minutes.get(minute) or worked.minutes.setdefault(minute, Sums())
        sums.jobs += 1
        sums.run_ms += run_ms
        if run_ms > sums.longest_run_ms:  # noqa: PLR1730  # max() takes 0.1 µs of 2, and every job comes through here
            sums.longest_run_ms = run_ms
        worked.duration.add(seconds)
        if job.starts == 1:
            wait_ms = started_ms - run.scheduled_ms
            if wait_ms > 0:  # it is negative if an operator promoted the job
                sums.wait_ms += wait_ms
            sums.first_starts += 1
            worked.wait.add(wait_ms / 1000 if wait_ms > 0 else 0.0)

    async def write(self, link: Link, prefix: str) -> None:
        """Add what was counted since the last call to the minutes in the store.

        It takes a round trip for each queue with new counts. If it is unknown whether a write
        arrived, it is not repeated: a figure may be too low for some seconds, but never counts
        twice.

        Raises:
            StoreUnavailable: The store is away. What it certainly did not take is kept for the next
                call.
        """
        for queue, worked in self.queues.items():
            if not worked.minutes:
                continue
            minutes, worked.minutes = worked.minutes, {}
            try:
                await add_minutes(link, prefix, queue, minutes)
            except StoreUnavailable as error:
                if error.outcome == "refused":
                    worked.minutes = _merge_minutes(minutes, worked.minutes)
                raise


def _merge_minutes(before: dict[int, Sums], since: Mapping[int, Sums]) -> dict[int, Sums]:
    """Add the sums of `since` to `before`; returns those that the store still keeps."""
    for minute, sums in since.items():
        kept = before.setdefault(minute, Sums())
        kept.jobs += sums.jobs
        kept.first_starts += sums.first_starts
        kept.wait_ms += sums.wait_ms
        kept.run_ms += sums.run_ms
        kept.longest_run_ms = max(kept.longest_run_ms, sums.longest_run_ms)
    newest = max(before)
    return {minute: sums for minute, sums in before.items() if minute > newest - KEPT_MINUTES}
