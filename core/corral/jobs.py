"""`JobScheduler`: the port through which everybody enqueues. The Redis one is its adapter (`corral.producer`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, overload

from typing_extensions import Unpack

from corral.job import P
from corral.options import EnqueueOptions
from corral.queue import Queue
from corral.schedule import Cron, Every

__all__ = ["EnqueueOptions", "Enqueued", "JobScheduler"]


@dataclass(frozen=True, slots=True)
class Enqueued:
    """What became of an `enqueue` call.

    Attributes:
        id: The job's id.
        created: False where a job of this id existed already; that job was left as it was.
    """

    id: str
    created: bool = True


class JobScheduler(Protocol):
    """Enqueues jobs. Depend on this, not on a store: `corral.testing.RecordingJobScheduler` needs none."""

    @overload
    async def enqueue(self, queue: Queue[P], payload: P, **options: Unpack[EnqueueOptions]) -> Enqueued: ...

    @overload
    async def enqueue(
        self, queue: Queue[Any] | str, payload: Mapping[str, Any], **options: Unpack[EnqueueOptions]
    ) -> Enqueued: ...

    async def enqueue(self, queue: Queue[Any] | str, payload: Any, **options: Unpack[EnqueueOptions]) -> Enqueued:
        """Write one job.

        Args:
            queue: The queue, or its name.
            payload: An instance of the queue's payload model, or a mapping with the JSON (or Python) field names.
            options: Override the queue's own options for this job; `job_id` names it.

        Returns:
            The job's id, and whether this call made it.

        Raises:
            UnknownQueue: No installed plugin declares the queue.
            PayloadRefused: The payload has not the queue's shape.
            JobRefused: The id, an option or the size was refused.
            StoreUnavailable: The store is away; its `outcome` says whether the job may have been written.
        """
        ...

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
        """Write many jobs of one queue in few round trips; all are validated before the first is written.

        Args:
            queue: The queue, or its name.
            payloads: What `enqueue` takes, one per job.
            options: Hold for all of them; `job_id` is refused.

        Returns:
            One entry per payload, in order.

        Raises:
            As `enqueue`.
        """
        ...

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
        id: str,  # noqa: A002  # the field's word
    ) -> datetime:
        """Run a job again and again, from now on: what a queue declares is for everybody, this is for one customer.

        The same call again changes nothing. Another payload or another `when` under the same id replaces what is to
        come; a run that is due already stays.

        Args:
            queue: The queue, or its name.
            payload: Of every run; as for `enqueue`.
            when: When it runs.
            id: Names the schedule; a legal job id that is no queue's name: those are for declared schedules.

        Returns:
            The next run (aware, UTC).

        Raises:
            UnknownQueue: No installed plugin declares the queue.
            PayloadRefused: The payload has not the queue's shape.
            JobRefused: The id, the size or `when` was refused.
            StoreUnavailable: The store is away.
        """
        ...

    async def unschedule(self, id: str) -> bool:  # noqa: A002  # as above
        """End a schedule that `schedule` made; a run that waits already is left.

        Args:
            id: The schedule, in whichever queues of the catalog it is.

        Returns:
            Whether there was one.

        Raises:
            JobRefused: It is a declared schedule: those end by `corral schedules remove`, or with their declaration.
            StoreUnavailable: The store is away.
        """
        ...
