"""`JobScheduler`: the port through which everybody enqueues. The Redis one is its adapter (`corral.producer`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, Protocol, TypeAlias, TypeVar, cast, overload

from typing_extensions import Unpack

from corral.errors import JobRefused
from corral.job import P
from corral.options import Backoff, EnqueueOptions, Retention
from corral.queue import Queue
from corral.schedule import Cron, Every

__all__ = ["Durability", "EnqueueOptions", "Enqueued", "Entry", "JobScheduler", "with_options"]

T_co = TypeVar("T_co", covariant=True)

Durability: TypeAlias = Literal["replicated"]
"""What must hold of a job before `enqueue` returns, besides that the store has it: see `corral.connect`."""


@dataclass(frozen=True, slots=True)
class Enqueued:
    """What became of an `enqueue` call.

    Attributes:
        id: The job's id.
        created: False where a job of this id existed already; that job was left as it was.
    """

    id: str
    created: bool = True


@dataclass(frozen=True, slots=True)
class Entry(Generic[T_co]):
    """One job of an `enqueue_many` call, with options of its own: `Entry(payload, job_id="welcome-ada")`.

    What is None here, the options of the call answer, and then the queue's.

    Attributes:
        payload: What `enqueue` takes: an instance of the queue's payload model, or a mapping.
        job_id: Names the job, so that the call can be repeated: enqueueing an id twice makes one job.
        attempts: As in `JobOptions`, like all that follow.
        backoff: How long to wait between attempts.
        delay: How long after enqueueing the job becomes due.
        priority: 0 for none, else 1 (most urgent) to 2,097,151.
        lifo: Whether the newest job runs first.
        keep_completed: How long the job stays readable once it is completed.
        keep_failed: How long the job stays readable once it has failed.
    """

    payload: T_co
    _: KW_ONLY
    job_id: str | None = None
    attempts: int | None = None
    backoff: Backoff | None = None
    delay: timedelta | None = None
    priority: int | None = None
    lifo: bool | None = None
    keep_completed: Retention | None = None
    keep_failed: Retention | None = None


_OPTIONS = tuple(field.name for field in fields(Entry) if field.name != "payload")


def with_options(payloads: Iterable[Any], options: EnqueueOptions) -> Iterator[tuple[Any, EnqueueOptions]]:
    """Each payload of an `enqueue_many` call with the options that hold for it.

    Args:
        payloads: Payloads, and `Entry` objects.
        options: Those of the call, which an entry overrides.

    Raises:
        JobRefused: The call itself names a `job_id`.
    """
    if "job_id" in options:
        raise JobRefused(
            "job_id names one job, and enqueue_many writes many", hint="give each job its own: Entry(payload, job_id=…)"
        )
    for each in payloads:
        if isinstance(each, Entry):
            entry = cast("Entry[object]", each)
            own = {name: value for name in _OPTIONS if (value := getattr(entry, name)) is not None}
            yield entry.payload, cast("EnqueueOptions", {**options, **own})
        else:
            yield each, options


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
            StoreUnavailable: The store is away, or no replica of it has the job where the scheduler asks for one
                (`corral.connect`); its `outcome` says whether the job may have been written.
            asyncio.CancelledError: The call was cancelled. A note has the job's id, and says whether it was sent.
        """
        ...

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
        """Write many jobs of one queue in few round trips; all are validated before the first is written.

        They are written in parts of up to 500 jobs and about 1 MiB; each part is written as a whole or not at all.
        Jobs of other calls may be written between two parts. A part whose reply was lost is asked for again, which
        makes no second jobs.

        Args:
            queue: The queue, or its name.
            payloads: What `enqueue` takes, one per job; or `Entry` objects, which have options of their own.
            options: Hold for all jobs, unless their entry says otherwise; `job_id` is refused.

        Returns:
            One `Enqueued` per payload, in order. An id that comes twice in one call makes one job, the first.

        Raises:
            UnknownQueue: As `enqueue`; nothing was written, as with the next two.
            PayloadRefused: A payload has not the queue's shape.
            JobRefused: An id, an option or a size was refused.
            EnqueueInterrupted: The store is away, or was from some part on. It has the ids of what was written, what
                was not, and what may have been.
            asyncio.CancelledError: The call was cancelled; nothing more is sent. A note has the number of jobs that
                were written and the ids of those that may have been.
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
