"""`RecordingJobScheduler`: a `JobScheduler` for tests without a store: it keeps all jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any

from corral.errors import JobRefused, UnknownQueue
from corral.job import P
from corral.jobs import (
    CheckedJob,
    CheckedSchedule,
    JobChecks,
    JobScheduler,
    Written,
    initial_state,
)
from corral.options import EnqueueOptions, JobOptions
from corral.payload import Payload
from corral.queue import Queue
from corral.schedule import Cron, Every, first_run_ms
from corral.testing.matching import Matching, first_match, no_match
from corral.testing.single import ENQUEUED_AT

__all__ = ["RecordedJob", "RecordedSchedule", "RecordingJobScheduler"]


@dataclass(frozen=True, slots=True)
class RecordedJob:
    """A job that a `RecordingJobScheduler` would have written.

    Attributes:
        id: The job's id: the caller's, or a generated one.
        queue: The queue's name.
        payload: The validated payload.
        raw: The payload as the JSON text that a store would hold.
        overrides: The options that the caller gave.
        options: The queue's options, with the caller's in place of them.
    """

    id: str
    queue: str
    payload: Payload
    raw: bytes
    overrides: EnqueueOptions
    options: JobOptions


@dataclass(frozen=True, slots=True)
class RecordedSchedule:
    """A schedule that a `RecordingJobScheduler` would have made.

    Attributes:
        id: The schedule's id.
        queue: The queue's name.
        payload: The validated payload of every run.
        raw: The payload as the JSON text that a store would hold.
        when: When it runs.
    """

    id: str
    queue: str
    payload: Payload
    raw: bytes
    when: Cron | Every


class RecordingJobScheduler(JobScheduler):
    """A `JobScheduler` that keeps what is enqueued, and writes it nowhere.

    It refuses what the real scheduler refuses, with the same message. With `corral.sql.Outbox`,
    jobs are recorded when they are enqueued, and their rows are written to the database, too.

    Args:
        queues: The queues that can be enqueued to by name. A queue object needs not be here.

    Attributes:
        jobs: The jobs, in the order of their calls; each id once.
    """

    prefix = "bull"

    def __init__(self, *queues: Queue[Any]) -> None:
        self.jobs: list[RecordedJob] = []
        self._schedules: dict[tuple[str, str], RecordedSchedule] = {}
        self._queues = {queue.name: queue for queue in queues}
        numbers = count(1)
        self._own_checks = JobChecks(
            self._queue,
            self._queues,
            new_id=lambda: f"job-{next(numbers)}",
            proves_all=True,
        )

    @property
    def schedules(self) -> list[RecordedSchedule]:
        """The schedules that exist, in the order in which each was first made."""
        return list(self._schedules.values())

    def payloads(self, queue: Queue[P]) -> list[P]:
        """The payloads of one queue's jobs, in order."""
        return [
            job.payload
            for job in self.jobs
            if job.queue == queue.name and isinstance(job.payload, queue.payload)
        ]

    def assert_enqueued(
        self, queue: Queue[P] | str, matching: Matching[P] | None = None
    ) -> RecordedJob:
        """Fail unless a job of this queue matches.

        Args:
            queue: The queue, or its name.
            matching: Some of the payload's fields with their values, by their Python or JSON names,
                or a function of the payload that says whether it is meant; None for any job.

        Returns:
            The first job that matches.

        Raises:
            AssertionError: None does; says what was enqueued.
            ValueError: `matching` names a field that the payload does not have.
        """
        return first_match(self._queue(queue), matching, self.jobs)

    def refute_enqueued(self, queue: Queue[P] | str, matching: Matching[P] | None = None) -> None:
        """Fail if a job of this queue matches; see `assert_enqueued`."""
        no_match(self._queue(queue), matching, self.jobs)

    def _checks(self) -> JobChecks:
        return self._own_checks

    async def _write(self, queue: Queue[Any], jobs: Sequence[CheckedJob]) -> Sequence[Written]:
        return [self._record(queue, job) for job in jobs]

    def _leave_to_outbox(self, queue: Queue[Any], jobs: Sequence[CheckedJob]) -> None:
        """Record at once, whether the transaction commits or not: the outbox table knows that."""
        for job in jobs:
            self._record(queue, job)

    async def _keep_schedule(self, queue: Queue[Any], schedule: CheckedSchedule) -> datetime:
        """Record a schedule.

        Returns:
            The next run, as if it were 2030-01-01 00:00 UTC: no test depends on the day.
        """
        try:
            first_ms = first_run_ms(schedule.when, int(ENQUEUED_AT.timestamp()) * 1000)
        except ValueError as error:
            raise JobRefused(f"schedule {schedule.id!r} cannot be kept: {error}") from None
        recorded = RecordedSchedule(
            schedule.id, queue.name, schedule.payload, schedule.data, schedule.when
        )
        self._schedules[queue.name, schedule.id] = recorded
        return datetime.fromtimestamp(first_ms / 1000, UTC)

    async def _end_schedule(self, queue: Queue[Any], schedule_id: str) -> bool:
        return self._schedules.pop((queue.name, schedule_id), None) is not None

    def _queue(self, queue: Queue[P] | str) -> Queue[P]:
        if not isinstance(queue, str):
            return queue
        if queue not in self._queues:
            known = ", ".join(sorted(self._queues)) or "none"
            raise UnknownQueue(queue, hint=f"queues given to RecordingJobScheduler: {known}")
        return self._queues[queue]

    def _record(self, queue: Queue[Any], job: CheckedJob) -> Written:
        """Keep a job; if one with this id is kept already, return its state: nothing has run it."""
        for known in self.jobs:
            if (queue.name, job.id) == (known.queue, known.id):
                return initial_state(known.options)
        self.jobs.append(
            RecordedJob(job.id, queue.name, job.payload, job.data, job.overrides, job.options)
        )
        return True
