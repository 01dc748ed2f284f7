"""`Tally`: what one worker process counts of its own jobs, as a plugin of our own on
`corral_job_ended`.

Plain numbers that only grow, by queue: the histograms of `corral.observe.metrics` are made of them,
and every few seconds what was added goes to the store, as the minutes that the board draws. Labels
are queues and outcomes, from the closed catalog and a closed union: nothing that a job carries can
become one.
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
from corral.job import Job
from corral.outcome import LeaseLost, Outcome
from corral.store.connection import Link

__all__ = ["DURATION_SECONDS", "WAIT_SECONDS", "Distribution", "Tally", "Worked"]

DURATION_SECONDS: Final = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0)
"""Upper bounds of the buckets, in seconds: from a row in a database to an export of half an hour."""
WAIT_SECONDS: Final = (0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0)
"""As above: from a queue that nobody notices to one that is behind by hours."""


@dataclass(slots=True)
class Distribution:
    """How often something took how long.

    Attributes:
        bounds: The upper bounds of the buckets, in seconds.
        counts: One per bucket, and a last one for what is above all bounds.
        seconds: All of it together.
    """

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list[int])
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.seconds += seconds


@dataclass(slots=True)
class Worked:
    """What was counted of one queue since the process started.

    Attributes:
        outcomes: How many runs ended how, by the outcome's type.
        duration: How long processors ran.
        wait: How long jobs had waited since they were due, at their first start.
        minutes: What was not written to the store yet, by minute of its clock.
    """

    outcomes: Counter[type[Outcome]] = field(default_factory=Counter[type[Outcome]])
    duration: Distribution = field(default_factory=lambda: Distribution(DURATION_SECONDS))
    wait: Distribution = field(default_factory=lambda: Distribution(WAIT_SECONDS))
    minutes: dict[int, Sums] = field(default_factory=dict[int, Sums])


class Tally:
    """Counts the runs of a worker process.

    Attributes:
        queues: What was counted, by the name of the queue.
    """

    def __init__(self) -> None:
        self.queues: dict[str, Worked] = {}

    @hookimpl
    def corral_job_ended(self, job: Job[Any], outcome: Outcome) -> None:
        """Count a run. Times are the store's, and differences of this process's monotonic clock."""
        name = job.queue.name
        worked = self.queues.get(name) or self.queues.setdefault(name, Worked())
        worked.outcomes[type(outcome)] += 1
        if type(outcome) is LeaseLost:
            return  # somebody else runs the job, and will tell how long that took
        seconds, started_ms = job.run.seconds, job.processed_ms
        run_ms = int(seconds * 1000)
        minute = (started_ms + run_ms) // 60_000
        sums = worked.minutes.get(minute) or worked.minutes.setdefault(minute, Sums())
        sums.jobs += 1
        sums.run_ms += run_ms
        if run_ms > sums.longest_run_ms:  # noqa: PLR1730  # max() takes 0.1 µs of 2, and every job comes through here
            sums.longest_run_ms = run_ms
        worked.duration.add(seconds)
        if job.starts == 1:
            wait_ms = started_ms - job.scheduled_ms
            if wait_ms > 0:  # else it was promoted by hand
                sums.wait_ms += wait_ms
            sums.first_starts += 1
            worked.wait.add(wait_ms / 1000 if wait_ms > 0 else 0.0)

    async def write(self, link: Link, prefix: str) -> None:
        """Add what was counted since the last time to the store's minutes: one round trip per queue
        that has any.

        What is not certain to be missing is not written again: a figure too low for some seconds is
        better than one that counts twice.

        Raises:
            StoreUnavailable: The store is away; what it refused is kept for the next time.
        """
        for queue, worked in self.queues.items():
            if not worked.minutes:
                continue
            minutes, worked.minutes = worked.minutes, {}
            try:
                await add_minutes(link, prefix, queue, minutes)
            except StoreUnavailable as error:
                if error.outcome == "refused":
                    worked.minutes = _together(minutes, worked.minutes)
                raise


def _together(before: dict[int, Sums], since: Mapping[int, Sums]) -> dict[int, Sums]:
    """Both, without minutes that the store would not keep."""
    for minute, sums in since.items():
        kept = before.setdefault(minute, Sums())
        kept.jobs += sums.jobs
        kept.first_starts += sums.first_starts
        kept.wait_ms += sums.wait_ms
        kept.run_ms += sums.run_ms
        kept.longest_run_ms = max(kept.longest_run_ms, sums.longest_run_ms)
    newest = max(before)
    return {minute: sums for minute, sums in before.items() if minute > newest - KEPT_MINUTES}
