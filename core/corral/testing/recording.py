"""`RecordingJobScheduler`: a `JobScheduler` that keeps what it is given, for tests that need no store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, overload

from typing_extensions import Unpack

from corral.errors import JobRefused, UnknownQueue
from corral.job import P
from corral.jobs import Enqueued, Entry, with_options
from corral.options import EnqueueOptions, JobOptions, check_job_id, check_schedule_id, merged, milliseconds
from corral.payload import Payload
from corral.queue import Queue
from corral.schedule import Cron, Every, first_run_ms
from corral.store.codec import NewJob, encode_options
from corral.testing.matching import Matching, first_match, no_match
from corral.testing.single import ENQUEUED_AT

__all__ = ["RecordedJob", "RecordedSchedule", "RecordingJobScheduler"]


@dataclass(frozen=True, slots=True)
class RecordedJob:
    """A job that a `RecordingJobScheduler` would have written.

    Attributes:
        id: The job's id: the caller's, or one that was made.
        queue: The queue's name.
        payload: The validated payload.
        raw: The payload as the JSON text that a store would hold.
        overrides: The options that the caller gave.
        options: What holds for the job: the queue's options with the caller's on top.
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


class RecordingJobScheduler:
    """A `JobScheduler` that keeps what it is given. It refuses what the real one refuses, in the same words.

    `corral.sql.Outbox` takes it, too: the jobs are recorded, and their rows are in the database.

    Args:
        queues: The queues that can be enqueued to by name. By its object, every queue can.

    Attributes:
        jobs: What was enqueued, in order; a job whose id existed already is not in it twice.
    """

    def __init__(self, *queues: Queue[Any]) -> None:
        self.jobs: list[RecordedJob] = []
        self._schedules: dict[tuple[str, str], RecordedSchedule] = {}
        self._queues = {queue.name: queue for queue in queues}
        self._made = 0

    @property
    def schedules(self) -> list[RecordedSchedule]:
        """The schedules that there are, in the order in which they were first made."""
        return list(self._schedules.values())

    def payloads(self, queue: Queue[P]) -> list[P]:
        """The payloads of one queue's jobs, in order."""
        return [job.payload for job in self.jobs if job.queue == queue.name and isinstance(job.payload, queue.payload)]

    def assert_enqueued(self, queue: Queue[P] | str, matching: Matching[P] | None = None) -> RecordedJob:
        """Fail unless a job of this queue matches.

        Args:
            queue: The queue, or its name.
            matching: Some of the payload's fields with their values, by their Python or JSON names, or a function of
                the payload that says whether it is meant; None for any job.

        Returns:
            The first job that matches.

        Raises:
            AssertionError: None does; says what was enqueued.
            ValueError: `matching` names a field that the payload has not.
        """
        return first_match(self._queue(queue), matching, self.jobs)

    def refute_enqueued(self, queue: Queue[P] | str, matching: Matching[P] | None = None) -> None:
        """Fail if a job of this queue matches; see `assert_enqueued`."""
        no_match(self._queue(queue), matching, self.jobs)

    @overload
    async def enqueue(self, queue: Queue[P], payload: P, **options: Unpack[EnqueueOptions]) -> Enqueued: ...

    @overload
    async def enqueue(
        self, queue: Queue[Any] | str, payload: Mapping[str, Any], **options: Unpack[EnqueueOptions]
    ) -> Enqueued: ...

    async def enqueue(self, queue: Queue[Any] | str, payload: Any, **options: Unpack[EnqueueOptions]) -> Enqueued:
        """Record one job; see `JobScheduler.enqueue`.

        Raises:
            UnknownQueue: The queue was named, and none of this name was given to the constructor.
            PayloadRefused: The payload has not the queue's shape.
            JobRefused: An option was refused.
        """
        return self._record(self._planned(queue, payload, options))

    @overload
    async def enqueue_many(
        self, queue: Queue[P], payloads: Iterable[P | Entry[P]], **options: Unpack[EnqueueOptions]
    ) -> Sequence[Enqueued]: ...

    @overload
    async def enqueue_many(
        self,
        queue: Queue[Any] | str,
        payloads: Iterable[Mapping[str, Any] | Entry[Mapping[str, Any]]],
        **options: Unpack[EnqueueOptions],
    ) -> Sequence[Enqueued]: ...

    async def enqueue_many(
        self, queue: Queue[Any] | str, payloads: Iterable[Any], **options: Unpack[EnqueueOptions]
    ) -> Sequence[Enqueued]:
        """Record many jobs of one queue, or none if one is refused; see `JobScheduler.enqueue_many`.

        Raises:
            As `enqueue`.
        """
        planned = [self._planned(queue, payload, own) for payload, own in with_options(payloads, options)]
        return [self._record(job) for job in planned]

    def prepared(self, queue: Queue[Any] | str, payload: Any, options: EnqueueOptions) -> tuple[str, str, NewJob]:
        """Record a job that is enqueued in a transaction, for `corral.sql.Outbox(jobs)`, which writes its row.

        It is recorded here and now; what becomes of the transaction is in the table `corral_outbox`.

        Raises:
            As `enqueue`.
        """
        job = self._planned(queue, payload, options)
        self._record(job)
        new = NewJob(
            id=job.id,
            name=job.queue,
            data=job.raw,
            opts=encode_options(job.options),
            delay_ms=milliseconds(job.options.delay),
            priority=job.options.priority,
            lifo=job.options.lifo,
        )
        return "bull", job.queue, new

    @overload
    async def schedule(self, queue: Queue[P], payload: P, when: Cron | Every, *, id: str) -> datetime: ...

    @overload
    async def schedule(
        self, queue: Queue[Any] | str, payload: Mapping[str, Any], when: Cron | Every, *, id: str
    ) -> datetime: ...

    async def schedule(
        self,
        queue: Queue[Any] | str,
        payload: Any,
        when: Cron | Every,
        *,
        id: str,  # noqa: A002  # as in the port
    ) -> datetime:
        """Record a schedule, or replace the one of this id; see `JobScheduler.schedule`.

        Returns:
            The next run, as if it were 2030-01-01 00:00 UTC: no test depends on the day.

        Raises:
            UnknownQueue: The queue was named, and none of this name was given to the constructor.
            PayloadRefused: The payload has not the queue's shape.
            JobRefused: The id or `when` was refused.
        """
        queue = self._queue(queue)
        validated = queue.validated(payload)
        raw = queue.dumped(validated)
        check_schedule_id(id, {*self._queues, queue.name})
        first = _first_run(id, when)
        self._schedules[queue.name, id] = RecordedSchedule(id, queue.name, validated, raw, when)
        return first

    async def unschedule(self, id: str) -> bool:  # noqa: A002  # as in the port
        """Forget a schedule; see `JobScheduler.unschedule`.

        Returns:
            Whether there was one.

        Raises:
            JobRefused: The id was refused.
        """
        check_schedule_id(id, self._queues)
        made = [key for key in self._schedules if key[1] == id]
        for key in made:
            del self._schedules[key]
        return bool(made)

    def _queue(self, queue: Queue[P] | str) -> Queue[P]:
        if not isinstance(queue, str):
            return queue
        if queue not in self._queues:
            known = ", ".join(sorted(self._queues)) or "none"
            raise UnknownQueue(queue, hint=f"queues given to RecordingJobScheduler: {known}")
        return self._queues[queue]

    def _planned(self, queue: Queue[Any] | str, payload: Any, options: EnqueueOptions) -> RecordedJob:
        queue = self._queue(queue)
        validated = queue.validated(payload)
        if "job_id" in options:
            check_job_id(options["job_id"])
        self._made += 1
        return RecordedJob(
            id=options.get("job_id", f"job-{self._made}"),
            queue=queue.name,
            payload=validated,
            raw=queue.dumped(validated),
            overrides=options,
            options=merged(queue.options, options),
        )

    def _record(self, job: RecordedJob) -> Enqueued:
        created = all((job.queue, job.id) != (known.queue, known.id) for known in self.jobs)
        if created:
            self.jobs.append(job)
        return Enqueued(job.id, created)


def _first_run(schedule_id: str, when: Cron | Every) -> datetime:
    try:
        first_ms = first_run_ms(when, int(ENQUEUED_AT.timestamp()) * 1000)
    except ValueError as error:
        raise JobRefused(f"schedule {schedule_id!r} cannot be kept: {error}") from None
    return datetime.fromtimestamp(first_ms / 1000, UTC)
