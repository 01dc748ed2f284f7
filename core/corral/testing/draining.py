"""The parts of `Kit.drain`: a worker in burst mode, moving time, and recording outcomes."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from corral.job import Job
from corral.outcome import Outcome
from corral.plugins import JobHooks
from corral.queue import Queue
from corral.store.clock import Clock
from corral.testing.stored import StoredQueues
from corral.worker.worker import Worker

__all__ = ["Drained", "Hops", "Run", "recording_job_hooks", "work_off"]


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a job: an attempt, or a start that spent none.

    Attributes:
        job: The job as its processor saw it; `job.processed_on` is when the run started, in moved
            time.
        outcome: How the run ended: one of `corral.outcome`.
    """

    job: Job[Any]
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Drained:
    """What happened in a drain.

    Attributes:
        runs: Every run, in the order in which the store recorded the outcomes. The order of jobs
            that run at the same time is not defined: a job may even stand before the one that
            enqueued it.
    """

    runs: Sequence[Run] = field(default_factory=tuple)

    def outcomes(self, queue: Queue[Any] | str, job_id: str | None = None) -> list[Outcome]:
        """How the runs of one queue ended, in order.

        Args:
            queue: The queue, or its name.
            job_id: Only those of this job.
        """
        name = queue if isinstance(queue, str) else queue.name
        return [
            run.outcome
            for run in self.runs
            if run.job.queue.name == name and (job_id is None or run.job.id == job_id)
        ]

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def __len__(self) -> int:
        return len(self.runs)


def recording_job_hooks(job_hooks: JobHooks, runs: list[Run]) -> JobHooks:
    """A copy of `job_hooks` that also appends each run to `runs`."""
    report = job_hooks.job_ended

    def job_ended(job: Job[Any], outcome: Outcome) -> None:
        runs.append(Run(job, outcome))
        if report is not None:
            report(job, outcome)

    recording = copy.copy(job_hooks)
    recording.job_ended = job_ended
    return recording


class Hops:
    """Moves time from one due job to the next.

    Args:
        stored: The queues' store.
        clock: The clock that is moved.
        queues: The names of the queues that the drain serves.
        runs: Every run so far; another part of the drain appends to it.
        end_ms: Up to when time may move, in Unix milliseconds of moved time; None: time does not
            move.
        deadline: After this time of the monotonic clock, time is not moved any more.
    """

    def __init__(
        self,
        stored: StoredQueues,
        clock: Clock,
        *,
        queues: Sequence[str],
        runs: Sequence[Run],
        end_ms: int | None,
        deadline: float,
    ) -> None:
        self._stored = stored
        self._queues = queues
        self._clock = clock
        self._runs = runs
        self._end_ms = end_ms
        self._deadline = deadline
        self._seen = -1

    async def to_next(self) -> bool:
        """Move time to the next job that is due.

        Returns:
            False if nothing is due up to `end_ms`, or if no job ran after the last move.
        """
        wait_ms = self._stored.due_in_ms(self._queues, self._clock.offset_ms)
        if wait_ms is None or time.monotonic() >= self._deadline:
            return False
        if wait_ms == 0:
            nothing_ran = len(self._runs) == self._seen
            self._seen = len(self._runs)
            return not nothing_ran
        if (
            self._end_ms is None
            or self._stored.now_ms() + self._clock.offset_ms + wait_ms > self._end_ms
        ):
            return False
        self._seen = -1
        self._clock.offset_ms += wait_ms
        self._stored.shorten_limits(self._queues, wait_ms)
        return True


async def work_off(worker: Worker, deadline: float) -> None:
    """Run a worker in burst mode until it ends, or until the deadline, when it is stopped.

    Args:
        worker: The worker.
        deadline: A time of the monotonic clock.
    """
    running = asyncio.create_task(worker.run(), name="corral-drain")
    try:
        await asyncio.wait([running], timeout=max(deadline - time.monotonic(), 0))
        if not running.done():
            worker.stop()
        await running
    finally:
        if not running.done():
            running.cancel()
            await asyncio.wait([running])
