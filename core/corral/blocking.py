"""`BlockingJobScheduler`: the calls of `JobScheduler` for programs without an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar, overload

from typing_extensions import Unpack

from corral.errors import SchedulerUnusable
from corral.job import P
from corral.jobs import Enqueued, EnqueueOptions, Entry, JobScheduler
from corral.queue import Queue
from corral.schedule import Cron, Every

__all__ = ["BlockingJobScheduler"]

T = TypeVar("T")

LOOK_SECONDS: Final = 0.5
"""How often a call looks whether the loop that must answer it still runs."""


class BlockingJobScheduler:
    """A `JobScheduler` for threads: the same calls, which block.

    Args:
        jobs: Runs on `loop`.
        loop: An event loop that another thread runs.
    """

    def __init__(self, jobs: JobScheduler, loop: asyncio.AbstractEventLoop) -> None:
        self._jobs = jobs
        self._loop = loop

    def _target(self) -> tuple[JobScheduler, asyncio.AbstractEventLoop]:
        """The scheduler that is called, and the running event loop that it is called on."""
        return self._jobs, self._loop

    def _wait_for(self, call: Callable[[JobScheduler], Coroutine[Any, Any, T]]) -> T:
        """Make a call on the event loop, and wait for its end as long as the loop runs."""
        jobs, loop = self._target()
        coroutine = call(jobs)
        try:
            result = asyncio.run_coroutine_threadsafe(coroutine, loop)
        except RuntimeError:
            coroutine.close()
            raise SchedulerUnusable("this scheduler's event loop is closed") from None
        while True:
            try:
                return result.result(LOOK_SECONDS)
            except TimeoutError:
                if result.done():
                    return result.result()  # it may be the call's own
                if not loop.is_running():
                    result.cancel()
                    raise SchedulerUnusable(
                        "this scheduler was closed, or its event loop ended, during the call"
                    ) from None

    # written by tests/repo/blocking.py: change corral/jobs.py, and run it

    @overload
    def enqueue(
        self, queue: Queue[P], payload: P, **options: Unpack[EnqueueOptions]
    ) -> Enqueued: ...

    @overload
    def enqueue(
        self, queue: Queue[Any] | str, payload: Mapping[str, Any], **options: Unpack[EnqueueOptions]
    ) -> Enqueued: ...

    def enqueue(
        self, queue: Queue[Any] | str, payload: Any, **options: Unpack[EnqueueOptions]
    ) -> Enqueued:
        """Write one job.

        Args:
            queue: The queue, or its name.
            payload: An instance of the queue's payload model, or a mapping with the JSON (or
                Python) field names.
            options: Override the queue's own options for this job; `job_id` names it.

        Returns:
            The job's id, whether this call made it, and its state.

        Raises:
            UnknownQueue: No installed plugin declares the queue.
            PayloadRefused: The payload does not fit the queue's model.
            JobRefused: The id, an option or the size was refused.
            StoreUnavailable: The store is away, or no replica of it has the job and the scheduler
                asks for one (`corral.connect`). Its `outcome` says whether the job may have been
                written.
        """
        return self._wait_for(lambda jobs: jobs.enqueue(queue, payload, **options))

    @overload
    def enqueue_many(
        self, queue: Queue[P], payloads: Iterable[P | Entry[P]], **options: Unpack[EnqueueOptions]
    ) -> Sequence[Enqueued]: ...

    @overload
    def enqueue_many(
        self,
        queue: Queue[Any] | str,
        payloads: Iterable[Mapping[str, Any] | Entry[Mapping[str, Any]]],
        **options: Unpack[EnqueueOptions],
    ) -> Sequence[Enqueued]: ...

    def enqueue_many(
        self, queue: Queue[Any] | str, payloads: Iterable[Any], **options: Unpack[EnqueueOptions]
    ) -> Sequence[Enqueued]:
        """Write many jobs of one queue in few round trips.

        All payloads are validated before the first job is written. The jobs are written in parts
        of up to 500 jobs and about 1 MiB; each part is written as a whole or not at all. Jobs of
        other calls may be written between two parts. A part whose reply was lost is sent again,
        which makes no second jobs.

        Args:
            queue: The queue, or its name.
            payloads: What `enqueue` takes, one per job; or `Entry` objects, which have options of
                their own.
            options: For all jobs whose entry does not override them; `job_id` is refused.

        Returns:
            One `Enqueued` per payload, in order. An id that comes twice in one call makes one job,
            the first.

        Raises:
            UnknownQueue: No installed plugin declares the queue. After this error and the next
                two, nothing was written.
            PayloadRefused: A payload does not fit the queue's model.
            JobRefused: An id, an option or a size was refused.
            EnqueueInterrupted: The store is away, or went away between two parts. The error has
                the ids of the jobs that were written, were not written, and may have been.
        """
        return self._wait_for(lambda jobs: jobs.enqueue_many(queue, payloads, **options))

    @overload
    def schedule(self, queue: Queue[P], payload: P, when: Cron | Every, *, id: str) -> datetime: ...

    @overload
    def schedule(
        self, queue: Queue[Any] | str, payload: Mapping[str, Any], when: Cron | Every, *, id: str
    ) -> datetime: ...

    def schedule(
        self,
        queue: Queue[Any] | str,
        payload: Any,
        when: Cron | Every,
        *,
        id: str,  # noqa: A002  # reads best in a call: schedule(…, id=…)
    ) -> datetime:
        """Run a job again and again, from now on.

        A schedule that a queue declares exists once, for everybody. This makes further ones at run
        time, for one customer each, say. The same call again changes nothing. Another payload or
        another `when` under the same id replaces the next run; a run that is due already stays.

        Args:
            queue: The queue, or its name.
            payload: Of every run; as for `enqueue`.
            when: When it runs.
            id: Names the schedule within its queue: a legal job id that is no queue's name. Queues'
                names are for declared schedules.

        Returns:
            The next run (aware, UTC).

        Raises:
            UnknownQueue: No installed plugin declares the queue.
            PayloadRefused: The payload does not fit the queue's model.
            JobRefused: The id, the size or `when` was refused.
            StoreUnavailable: The store is away.
        """
        return self._wait_for(lambda jobs: jobs.schedule(queue, payload, when, id=id))

    def unschedule(self, queue: Queue[Any] | str, schedule_id: str) -> bool:
        """End a schedule that `schedule` made.

        Its next run is removed. A run that waits or is being processed already is left. A schedule
        of the same id in another queue stays.

        Args:
            queue: The queue that the schedule is in, or its name.
            schedule_id: The `id` that the schedule was made with.

        Returns:
            Whether the queue had such a schedule. False is no error: calling it twice is safe.

        Raises:
            UnknownQueue: No installed plugin declares the queue.
            JobRefused: The id belongs to a declared schedule (it is a queue's name). Those end by
                `corral schedules remove`, or with their declaration.
            StoreUnavailable: The store is away.
        """
        return self._wait_for(lambda jobs: jobs.unschedule(queue, schedule_id))
