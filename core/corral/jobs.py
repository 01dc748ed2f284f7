"""`JobScheduler`: the interface through which jobs are enqueued, and the checks of each job.

All implementations share what is in this module: signatures, the look-up of the queue, validation,
options and size limits. An implementation only writes: to Redis (`corral.producer`), in a database
transaction (`corral.sql.Outbox`), or to a list (`corral.testing`).
"""

from __future__ import annotations

import os
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import KW_ONLY, dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar, cast, overload

from pydantic_core import to_json
from typing_extensions import Unpack

from corral.errors import EnqueueInterrupted, JobRefused, StoreUnavailable
from corral.job import P
from corral.job_state import JobState
from corral.options import (
    OF_THE_ID,
    Backoff,
    EnqueueOptions,
    JobOptions,
    Retention,
    check_job_id,
    check_options,
    check_schedule_id,
    merged,
    milliseconds,
)
from corral.payload import MAX_PAYLOAD_BYTES, Payload
from corral.queue import Queue
from corral.schedule import Cron, Every

__all__ = [
    "CheckedJob",
    "CheckedSchedule",
    "Durability",
    "EnqueueOptions",
    "Enqueued",
    "Entry",
    "JobChecks",
    "JobScheduler",
    "Written",
    "initial_state",
    "new_job_id",
]

T_co = TypeVar("T_co", covariant=True)

WARN_BYTES: Final = 64 * 1024
"""A larger payload is logged as a warning: the store has it in memory until its job is removed."""

Durability: TypeAlias = Literal["replicated"]
"""What must be true, beyond "the store has the job", before `enqueue` returns: `corral.connect`."""


@dataclass(frozen=True, slots=True)
class Enqueued:
    """What an `enqueue` call did.

    Attributes:
        id: The job's id.
        created: Whether this call made the job. False if the id existed already: that job keeps
            its payload and its options, whatever this call had.
        state: Of a job that this call made, the state that it was put into: waiting, delayed or
            prioritized. Of one that existed, its state when the store handled this call: where that
            was failed and the call had `if_failed="retry"`, the job waits again now. None if
            the store could not tell: no container of the queue holds that job (it will never
            run), or one that may hold it is damaged or may not be read.
    """

    id: str
    created: bool = True
    state: JobState | None = JobState.WAITING


@dataclass(frozen=True, slots=True)
class Entry(Generic[T_co]):
    """One job of an `enqueue_many` call with options of its own: `Entry(payload, job_id="ada")`.

    An option that is None is taken from the call, or else from the queue.

    Attributes:
        payload: What `enqueue` takes: an instance of the queue's payload model, or a mapping.
        job_id: Names the job, so that the call can be repeated: enqueueing an id twice makes one
            job.
        attempts: As in `JobOptions`, like all that follow.
        backoff: How long to wait between attempts.
        delay: How long after enqueueing the job becomes due.
        priority: 0 for none, else 1 (most urgent) to 2,097,151.
        lifo: Whether the newest job runs first.
        keep_completed: How long the job stays readable once it is completed.
        keep_failed: How long the job stays readable once it has failed.
        if_failed: What happens if the id's job exists and has failed; see `EnqueueOptions`.
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
    if_failed: Literal["retry"] | None = None


_OPTIONS: Final = tuple(field.name for field in fields(Entry) if field.name != "payload")

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS: Final = [first + second for first in _ALPHABET for second in _ALPHABET]
"""All numbers of ten bits, as two digits in base 32: the index is the number."""


def new_job_id() -> str:
    """Make a job id that is unique and sorts by time.

    It has 26 digits in base 32: 48 bits of Unix milliseconds, then 80 random bits.
    """
    now, chance, two = time.time_ns() // 1_000_000, int.from_bytes(os.urandom(10), "big"), _PAIRS
    # Shifting a number that fits into 64 bits is cheaper.
    upper, lower = chance >> 40, chance & 0xFF_FFFF_FFFF
    return (
        f"{two[now >> 40]}{two[now >> 30 & 1023]}{two[now >> 20 & 1023]}"
        f"{two[now >> 10 & 1023]}{two[now & 1023]}"
        f"{two[upper >> 30]}{two[upper >> 20 & 1023]}{two[upper >> 10 & 1023]}{two[upper & 1023]}"
        f"{two[lower >> 30]}{two[lower >> 20 & 1023]}{two[lower >> 10 & 1023]}{two[lower & 1023]}"
    )


@dataclass(slots=True, eq=False)
class CheckedJob:
    """A job that passed all checks and may be written.

    Attributes:
        id: Unique within its queue.
        payload: The validated payload.
        data: The payload as strict JSON text.
        options: The queue's options with the caller's on top. Jobs of one call share this object,
            except those of entries that have options of their own.
        overrides: The options that the caller gave, in the call and in the job's own entry.
        nonce: A random text that tells a repeated try of this write from another job of the same
            id. Empty if the id was made by this process, which is unique anyway.
        carrier: The trace context as JSON text, or empty.
    """

    id: str
    payload: Payload
    data: bytes
    options: JobOptions
    overrides: EnqueueOptions
    nonce: str
    carrier: str


@dataclass(frozen=True, slots=True, eq=False)
class CheckedSchedule:
    """A schedule that passed all checks. Whether its times exist is found out when it is written.

    Attributes:
        id: A legal job id that is no queue's name.
        payload: The validated payload of every run.
        data: The payload as strict JSON text.
        when: When it runs.
    """

    id: str
    payload: Payload
    data: bytes
    when: Cron | Every


class JobChecks:
    """The checks that a job must pass before it is written.

    Args:
        find_queue: Returns the queue for an object or a name. Raises `UnknownQueue` or
            `JobRefused`.
        names: The names of all queues. No schedule made at run time may have one as its id.
        max_payload_bytes: A larger payload is refused.
        enqueuing: Called with queue and payload for each job; returns the carrier, which is stored
            with the job as its trace context.
        new_id: Makes the id of a job whose caller names none.
        proves_all: Whether each payload is read back, as a worker will read it, and compared. If
            false, that is done for the first payload of each queue, and for payloads whose JSON
            text may be read in more than one way.
    """

    def __init__(
        self,
        find_queue: Callable[[Queue[Any] | str], Queue[Any]],
        names: Container[str],
        *,
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
        enqueuing: Callable[[Queue[Any], Payload], Mapping[str, str]] | None = None,
        new_id: Callable[[], str] = new_job_id,
        proves_all: bool = False,
    ) -> None:
        self.find_queue = find_queue
        self.names = names
        self._max_payload_bytes = max_payload_bytes
        self._warn_bytes = min(max_payload_bytes, WARN_BYTES)
        self._enqueuing = enqueuing
        self._new_id = new_id
        self._proves_all = proves_all
        self._proved: set[Queue[Any]] = set()

    def check_job(self, queue: Queue[Any], payload: Any, options: EnqueueOptions) -> CheckedJob:
        """Check one job.

        Args:
            queue: What `find_queue` returned.
            payload: The payload, as the caller gave it.
            options: The options of the call; `job_id` names the job.

        Raises:
            PayloadRefused: The payload does not fit the queue's model.
            JobRefused: The id, an option or the size was refused.
        """
        whole = merged(queue.options, options)
        return self._check(queue, payload, whole, options, options.get("job_id"))

    def check_jobs(
        self, queue: Queue[Any], payloads: Iterable[Any], options: EnqueueOptions
    ) -> list[CheckedJob]:
        """Check the jobs of one call.

        Options are merged once, and once more for each entry that has options of its own.

        Args:
            queue: What `find_queue` returned.
            payloads: Payloads, and `Entry` objects.
            options: The options of the call, which an entry overrides.

        Raises:
            PayloadRefused: A payload does not fit the queue's model.
            JobRefused: The call names a `job_id`, or an id, an option or a size was refused.
        """
        if "job_id" in options:
            raise JobRefused(
                "job_id names one job, and enqueue_many writes many",
                hint="give each job its own: Entry(payload, job_id=…)",
            )
        whole = merged(queue.options, options)
        checked: list[CheckedJob] = []
        for each in payloads:
            if not isinstance(each, Entry):
                checked.append(self._check(queue, each, whole, options, None))
                continue
            entry = cast("Entry[object]", each)
            own = {name: value for name in _OPTIONS if (value := getattr(entry, name)) is not None}
            overrides = cast("EnqueueOptions", {**options, **own}) if own else options
            merged_options = whole if own.keys() <= OF_THE_ID else merged(queue.options, overrides)
            checked.append(
                self._check(queue, entry.payload, merged_options, overrides, entry.job_id)
            )
        return checked

    def check_schedule(
        self, queue: Queue[Any], payload: Any, when: Cron | Every, schedule_id: str
    ) -> CheckedSchedule:
        """Check a schedule.

        Args:
            queue: What `find_queue` returned.
            payload: The payload, as the caller gave it.
            when: When it runs.
            schedule_id: Its id.

        Raises:
            PayloadRefused: The payload does not fit the queue's model.
            JobRefused: The id or the size was refused.
        """
        validated, data = self._check_payload(queue, payload)
        self.check_schedule_id(queue, schedule_id)
        return CheckedSchedule(schedule_id, validated, data, when)

    def check_schedule_id(self, queue: Queue[Any], schedule_id: str) -> None:
        """Refuse an id that no schedule made at run time can have.

        Args:
            queue: The queue of the schedule; what `find_queue` returned.
            schedule_id: The id.

        Raises:
            JobRefused: It is no legal job id, or it is the name of a queue.
        """
        check_schedule_id(schedule_id, [queue.name] if schedule_id == queue.name else self.names)

    def _check(
        self,
        queue: Queue[Any],
        payload: Any,
        options: JobOptions,
        overrides: EnqueueOptions,
        job_id: str | None,
    ) -> CheckedJob:
        validated, data = self._check_payload(queue, payload)
        nonce = carrier = ""
        if job_id is None:
            if overrides.get("if_failed") is not None:
                raise JobRefused(
                    "if_failed needs a job_id: a job without one is always new",
                    hint="name the job by what it is about",
                )
            job_id = self._new_id()
        else:
            check_job_id(job_id)
            nonce = secrets.token_hex(8)
        if self._enqueuing is not None:
            carried = self._enqueuing(queue, validated)
            if carried:
                carrier = to_json(carried).decode()
        return CheckedJob(job_id, validated, data, options, overrides, nonce, carrier)

    def _check_payload(self, queue: Queue[Any], payload: Any) -> tuple[Payload, bytes]:
        """Validate a payload.

        Returns:
            The validated payload, and the JSON text that a worker will read as an equal payload.
        """
        validated = queue.validated(payload)
        if is_new := queue not in self._proved:
            # A queue of a catalog was checked there already; this one may be in none.
            check_options(queue.options)
            queue.ensure_sound()
        data = queue.dumped(validated)
        if is_new or self._proves_all or queue.is_doubtful(validated, data):
            queue.ensure_survives(validated, data)
            self._proved.add(queue)
        if len(data) > self._warn_bytes:
            self._check_size(queue, data)
        return validated, data

    def _check_size(self, queue: Queue[Any], data: bytes) -> None:
        if len(data) > self._max_payload_bytes:
            raise JobRefused(
                f"payload of queue {queue.name!r} has {len(data)} bytes, "
                f"more than {self._max_payload_bytes}",
                hint="store the content elsewhere and enqueue a reference, "
                "or raise CORRAL_MAX_PAYLOAD_BYTES",
            )
        from corral.loggers import Logger  # noqa: PLC0415  # declaring a queue must not load `logging`

        Logger("corral.producer").warning("large payload", queue=queue.name, bytes=len(data))


Written: TypeAlias = bool | JobState | Exception
"""The result of writing one job. True: this call made it. A state: its id existed already, and that
job is in this state. False: its id existed already, and the state of that job is not known. An
exception: why the job is not written, or may not be.
"""


def initial_state(options: JobOptions) -> JobState:
    """The state that a new job with these options is put into."""
    if options.delay and milliseconds(options.delay):
        return JobState.DELAYED
    return JobState.PRIORITIZED if options.priority else JobState.WAITING


def _enqueued(job: CheckedJob, written: bool | JobState) -> Enqueued:
    if written is True:
        return Enqueued(job.id, True, initial_state(job.options))
    return Enqueued(job.id, False, written or None)


def _all_created(jobs: Sequence[CheckedJob]) -> list[Enqueued]:
    """The results of a call that made all of its jobs: most of them share one options object."""
    options: JobOptions | None = None
    state = JobState.WAITING
    results: list[Enqueued] = []
    for job in jobs:
        if job.options is not options:
            options = job.options
            state = initial_state(options)
        results.append(Enqueued(job.id, True, state))
    return results


class JobScheduler(ABC):
    """Enqueues jobs.

    Write your functions against this class, not against a store: `corral.testing` has a
    `RecordingJobScheduler` that needs no store.

    This class has the public calls. An implementation provides `_write`, `_keep_schedule` and
    `_end_schedule`.

    Order: the jobs of one call are in the order of its payloads, and calls of one scheduler to one
    queue are in the order in which they began. An `enqueue_many` of several parts is ordered part
    by part: a call that begins while a part is being written comes before the next part.

    Attributes:
        prefix: The first part of the keys that the jobs are written under; None if the jobs are
            not written to a store.
    """

    prefix: str | None = None

    @overload
    async def enqueue(
        self, queue: Queue[P], payload: P, **options: Unpack[EnqueueOptions]
    ) -> Enqueued: ...

    @overload
    async def enqueue(
        self, queue: Queue[Any] | str, payload: Mapping[str, Any], **options: Unpack[EnqueueOptions]
    ) -> Enqueued: ...

    async def enqueue(
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
            asyncio.CancelledError: The call was cancelled. A note has the job's id, and says
                whether the job was sent.
        """
        checks = self._checks()
        declared = checks.find_queue(queue)
        job = checks.check_job(declared, payload, options)
        (written,) = await self._write(declared, [job])
        if isinstance(written, Exception):
            raise _copy_for_caller(written, job.id)
        return _enqueued(job, written)

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
            asyncio.CancelledError: The call was cancelled; nothing more is sent. A note has the
                number of jobs that were written and the ids of those that may have been.
        """
        checks = self._checks()
        declared = checks.find_queue(queue)
        jobs = checks.check_jobs(declared, payloads, options)
        written = await self._write(declared, jobs) if jobs else ()
        if written.count(True) == len(jobs):
            return _all_created(jobs)
        results = [each for each in written if not isinstance(each, Exception)]
        if len(results) < len(jobs):
            raise _interrupted_error(declared.name, [job.id for job in jobs], written)
        return [_enqueued(job, each) for job, each in zip(jobs, results, strict=True)]

    @overload
    async def schedule(
        self, queue: Queue[P], payload: P, when: Cron | Every, *, id: str
    ) -> datetime: ...

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
        checks = self._checks()
        declared = checks.find_queue(queue)
        return await self._keep_schedule(
            declared, checks.check_schedule(declared, payload, when, id)
        )

    async def unschedule(self, queue: Queue[Any] | str, schedule_id: str) -> bool:
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
        checks = self._checks()
        declared = checks.find_queue(queue)
        checks.check_schedule_id(declared, schedule_id)
        return await self._end_schedule(declared, schedule_id)

    @abstractmethod
    def _checks(self) -> JobChecks:
        """Return the checks that each job of this scheduler must pass."""

    @abstractmethod
    async def _write(self, queue: Queue[Any], jobs: Sequence[CheckedJob]) -> Sequence[Written]:
        """Write jobs, in their order.

        Args:
            queue: Their queue.
            jobs: At least one.

        Returns:
            One result per job. If there are fewer results than jobs, the last jobs were not sent.

        Raises:
            asyncio.CancelledError: The call was cancelled. A note says what became of the jobs.
        """

    def _leave_to_outbox(self, queue: Queue[Any], jobs: Sequence[CheckedJob]) -> None:  # noqa: B027  # optional: does nothing by default
        """Note jobs that an outbox writes instead of this scheduler. By default, do nothing."""

    @abstractmethod
    async def _keep_schedule(self, queue: Queue[Any], schedule: CheckedSchedule) -> datetime:
        """Make a schedule, or replace the one that has its id.

        Returns:
            The next run (aware, UTC).

        Raises:
            JobRefused: Its times do not exist, or its expression cannot be read.
            StoreUnavailable: The store is away.
        """

    @abstractmethod
    async def _end_schedule(self, queue: Queue[Any], schedule_id: str) -> bool:
        """End a schedule of one queue.

        Returns:
            Whether the queue had it.

        Raises:
            StoreUnavailable: The store is away.
        """


def _copy_for_caller(error: Exception, job_id: str) -> Exception:
    """Copy the error of a batch for one of its callers.

    Each caller raises its own copy: raising one shared error would add to its traceback each time.
    """
    copied = copy(error)
    copied.__cause__ = error.__cause__
    if isinstance(copied, StoreUnavailable):
        copied.job_id = job_id
        return copied
    return copied.with_traceback(error.__traceback__)


def _interrupted_error(
    queue: str, ids: Sequence[str], written: Sequence[Written]
) -> EnqueueInterrupted:
    """Build the error of an `enqueue_many` that stopped before its end.

    Args:
        queue: The queue's name.
        ids: The ids of all jobs of the call.
        written: The results, in the same order; the jobs at the end that have none were not sent.
    """
    created: list[str] = []
    existing: list[str] = []
    refused: list[str] = []
    unknown: list[str] = []
    first: Exception | None = None
    for job_id, result in zip(ids, written, strict=False):
        if not isinstance(result, Exception):
            (created if result is True else existing).append(job_id)
            continue
        first = first or result
        is_refused = isinstance(result, StoreUnavailable) and result.outcome == "refused"
        (refused if is_refused else unknown).append(job_id)
    refused += ids[len(written) :]
    error = EnqueueInterrupted(
        f"{len(created) + len(existing)} of {len(ids)} jobs of queue {queue!r} are written, "
        f"{len(unknown)} may be, {len(refused)} are not: {first}",
        ids=tuple(ids),
        created=tuple(created),
        existing=tuple(existing),
        refused=tuple(refused),
        unknown=tuple(unknown),
        hint=getattr(first, "hint", None),
    )
    error.__cause__ = first.__cause__ if isinstance(first, StoreUnavailable) else first
    return error
