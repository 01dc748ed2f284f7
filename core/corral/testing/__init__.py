"""The kit for authors of queues: run a processor without a worker, and enqueue without a store.

    await export_report(testing.job(report_exports, payload), FakeReports())

Import-light: it loads what a queue's declaration loads, and neither a store nor pytest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, overload

from typing_extensions import Unpack

from corral.errors import JobRefused, UnknownQueue
from corral.job import Job, P
from corral.jobs import Enqueued
from corral.options import EnqueueOptions, JobOptions, check_job_id, merged
from corral.payload import Payload
from corral.queue import Queue

__all__ = ["RecordedJob", "RecordingJobScheduler", "job"]

ENQUEUED_AT = datetime(2030, 1, 1, tzinfo=UTC)
"""When the jobs of `job` were enqueued, unless the test says otherwise: fixed, so that no test depends on the day."""


def job(
    queue: Queue[P],
    payload: P | Mapping[str, Any],
    *,
    id: str = "test-job",  # noqa: A002  # the name of the attribute it sets
    attempt: int = 1,
    max_attempts: int | None = None,
    starts: int | None = None,
    enqueued_at: datetime = ENQUEUED_AT,
    scheduled_for: datetime | None = None,
    processed_on: datetime | None = None,
) -> Job[P]:
    """A job as a processor is given it.

    What the processor reports is found in `job.run.said`; a test that sets `job.run.cancelled` shows the processor that
    its result is no longer wanted.

    Args:
        queue: The queue it seems to come from.
        payload: An instance of the queue's payload model, or a mapping with the JSON (or Python) field names.
        id: Unique within the queue; `job.idempotency_key` follows from it.
        attempt: Which attempt this is, from 1.
        max_attempts: By default what the queue declares.
        starts: How often the job was started; by default as often as it was attempted.
        enqueued_at: Aware; 2030-01-01 00:00 UTC by default.
        scheduled_for: When it was due first; by default when it was enqueued.
        processed_on: When this start happened; by default when it was due.

    Raises:
        PayloadRefused: The payload has not the queue's shape.
    """
    scheduled_for = scheduled_for or enqueued_at
    return Job(
        id=id,
        queue=queue,
        name=queue.name,
        payload=queue.validated(payload),
        attempt=attempt,
        max_attempts=max(1, queue.options.attempts if max_attempts is None else max_attempts),
        starts=attempt if starts is None else starts,
        enqueued_ms=_unix_ms(enqueued_at),
        processed_ms=_unix_ms(processed_on or scheduled_for),
        scheduled_ms=_unix_ms(scheduled_for),
    )


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


class RecordingJobScheduler:
    """A `JobScheduler` that keeps what it is given. It refuses what the real one refuses, in the same words.

    Args:
        queues: The queues that can be enqueued to by name. By its object, every queue can.

    Attributes:
        jobs: What was enqueued, in order; a job whose id existed already is not in it twice.
    """

    def __init__(self, *queues: Queue[Any]) -> None:
        self.jobs: list[RecordedJob] = []
        self._queues = {queue.name: queue for queue in queues}
        self._made = 0

    def payloads(self, queue: Queue[P]) -> list[P]:
        """The payloads of one queue's jobs, in order."""
        return [job.payload for job in self.jobs if job.queue == queue.name and isinstance(job.payload, queue.payload)]

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
        self, queue: Queue[P], payloads: Iterable[P], **options: Unpack[EnqueueOptions]
    ) -> Sequence[Enqueued]: ...

    @overload
    async def enqueue_many(
        self, queue: Queue[Any] | str, payloads: Iterable[Mapping[str, Any]], **options: Unpack[EnqueueOptions]
    ) -> Sequence[Enqueued]: ...

    async def enqueue_many(
        self, queue: Queue[Any] | str, payloads: Iterable[Any], **options: Unpack[EnqueueOptions]
    ) -> Sequence[Enqueued]:
        """Record many jobs of one queue, or none if one is refused; see `JobScheduler.enqueue_many`.

        Raises:
            As `enqueue`.
        """
        if "job_id" in options:
            raise JobRefused("job_id names one job, and enqueue_many writes many")
        planned = [self._planned(queue, payload, options) for payload in payloads]
        return [self._record(job) for job in planned]

    def _planned(self, queue: Queue[Any] | str, payload: Any, options: EnqueueOptions) -> RecordedJob:
        if isinstance(queue, str):
            if queue not in self._queues:
                known = ", ".join(sorted(self._queues)) or "none"
                raise UnknownQueue(queue, hint=f"queues given to RecordingJobScheduler: {known}")
            queue = self._queues[queue]
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


def _unix_ms(moment: datetime) -> int:
    """Unix milliseconds of an aware moment."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
