"""`JobScheduler`: the port through which everybody enqueues, and what a job must pass before it is
written.

Signatures, the look-up in the catalog, validation, options and sizes are here and nowhere else.
What stands behind the port only writes: Redis (`corral.producer`), a transaction
(`corral.sql.Outbox`), a list (`corral.testing`).
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
from corral.options import (
    Backoff,
    EnqueueOptions,
    JobOptions,
    Retention,
    check_job_id,
    check_options,
    check_schedule_id,
    merged,
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
    "new_job_id",
]

T_co = TypeVar("T_co", covariant=True)

WARN_BYTES: Final = 64 * 1024
"""A payload above this is legal and a mistake: it lives in the store's memory until its job is
removed.
"""

Durability: TypeAlias = Literal["replicated"]
"""What must hold of a job before `enqueue` returns, besides that the store has it: see
`corral.connect`.
"""


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
    """One job of an `enqueue_many` call, with options of its own: `Entry(payload,
    job_id="welcome-ada")`.

    What is None here, the options of the call answer, and then the queue's.

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


_OPTIONS: Final = tuple(field.name for field in fields(Entry) if field.name != "payload")

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS: Final = [first + second for first in _ALPHABET for second in _ALPHABET]
"""Two digits in base 32, by the ten bits that they stand for."""


def new_job_id() -> str:
    """An id that no other client makes, and that sorts by time: 48 bits of milliseconds, 80 at
    random, in base 32.
    """
    now, chance, two = time.time_ns() // 1_000_000, int.from_bytes(os.urandom(10), "big"), _PAIRS
    upper, lower = (
        chance >> 40,
        chance & 0xFF_FFFF_FFFF,
    )  # shifts of what fits into 64 bits are cheaper
    return (
        f"{two[now >> 40]}{two[now >> 30 & 1023]}{two[now >> 20 & 1023]}{two[now >> 10 & 1023]}{two[now & 1023]}"
        f"{two[upper >> 30]}{two[upper >> 20 & 1023]}{two[upper >> 10 & 1023]}{two[upper & 1023]}"
        f"{two[lower >> 30]}{two[lower >> 20 & 1023]}{two[lower >> 10 & 1023]}{two[lower & 1023]}"
    )


@dataclass(slots=True, eq=False)
class CheckedJob:
    """A job that may be written: everything that could be refused before that was accepted.

    Attributes:
        id: Unique within its queue.
        payload: The validated payload.
        data: The payload as strict JSON text.
        options: The queue's options with the caller's on top. The jobs of a call share one object,
            but for those of entries that have options of their own.
        overrides: What the caller said, of the call and of the job's own entry.
        nonce: A text that tells a repeated try from another job of this id; empty where the id is
        ours.
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
    """A schedule that may be made; whether its times can be kept at all is found out as it is made.

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
    """What a job must pass before it is written.

    Args:
        find: The queue that is meant; raises `UnknownQueue` or `JobRefused`.
        names: The names of all queues: no schedule may have one of them as its id.
        max_payload_bytes: A larger payload is refused.
        enqueuing: Called with queue, payload and carrier for each job: puts the trace context into
        the carrier.
        new_id: Makes the id of a job that its caller does not name.
        tries_all: Whether every payload is read back as a worker will and compared, and not only
            the first of each queue and those whose schema leaves open how they are read.
    """

    def __init__(
        self,
        find: Callable[[Queue[Any] | str], Queue[Any]],
        names: Container[str],
        *,
        max_payload_bytes: int = MAX_PAYLOAD_BYTES,
        enqueuing: Callable[[Queue[Any], Payload, dict[str, str]], object] | None = None,
        new_id: Callable[[], str] = new_job_id,
        tries_all: bool = False,
    ) -> None:
        self.find = find
        self.names = names
        self._max_payload_bytes = max_payload_bytes
        self._noted_bytes = min(max_payload_bytes, WARN_BYTES)
        self._enqueuing = enqueuing
        self._new_id = new_id
        self._tries_all = tries_all
        self._tried: set[Queue[Any]] = set()

    def job(self, queue: Queue[Any], payload: Any, options: EnqueueOptions) -> CheckedJob:
        """One job.

        Args:
            queue: What `find` returned.
            payload: What the caller handed over.
            options: Those of the call; `job_id` names the job.

        Raises:
            PayloadRefused: The payload has not the queue's shape.
            JobRefused: The id, an option or the size was refused.
        """
        whole = merged(queue.options, options)
        return self._checked(queue, payload, whole, options, options.get("job_id"))

    def jobs(
        self, queue: Queue[Any], payloads: Iterable[Any], options: EnqueueOptions
    ) -> list[CheckedJob]:
        """Many jobs of one call.

        Options are merged once, and again only for an entry that has some of its own.

        Args:
            queue: What `find` returned.
            payloads: Payloads, and `Entry` objects.
            options: Those of the call, which an entry overrides.

        Raises:
            PayloadRefused: A payload has not the queue's shape.
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
                checked.append(self._checked(queue, each, whole, options, None))
                continue
            entry = cast("Entry[object]", each)
            own = {name: value for name in _OPTIONS if (value := getattr(entry, name)) is not None}
            overrides = cast("EnqueueOptions", {**options, **own}) if own else options
            its_options = whole if own.keys() <= {"job_id"} else merged(queue.options, overrides)
            checked.append(
                self._checked(queue, entry.payload, its_options, overrides, entry.job_id)
            )
        return checked

    def schedule(
        self, queue: Queue[Any], payload: Any, when: Cron | Every, schedule_id: str
    ) -> CheckedSchedule:
        """A schedule.

        Args:
            queue: What `find` returned.
            payload: What the caller handed over.
            when: When it runs.
            schedule_id: Its id.

        Raises:
            PayloadRefused: The payload has not the queue's shape.
            JobRefused: The id or the size was refused.
        """
        validated, data = self._payload(queue, payload)
        check_schedule_id(schedule_id, [queue.name] if schedule_id == queue.name else self.names)
        if len(data) > self._noted_bytes:
            self._check_size(queue, data)
        return CheckedSchedule(schedule_id, validated, data, when)

    def _checked(
        self,
        queue: Queue[Any],
        payload: Any,
        options: JobOptions,
        overrides: EnqueueOptions,
        job_id: str | None,
    ) -> CheckedJob:
        validated, data = self._payload(queue, payload)
        nonce = carrier = ""
        if job_id is None:
            job_id = self._new_id()
        else:
            check_job_id(job_id)
            nonce = secrets.token_hex(8)
        if len(data) > self._noted_bytes:
            self._check_size(queue, data)
        if self._enqueuing is not None:
            carried: dict[str, str] = {}
            self._enqueuing(queue, validated, carried)
            if carried:
                carrier = to_json(carried).decode()
        return CheckedJob(job_id, validated, data, options, overrides, nonce, carrier)

    def _payload(self, queue: Queue[Any], payload: Any) -> tuple[Payload, bytes]:
        """The payload, validated, and as the JSON text that a worker reads as the same payload."""
        validated = queue.validated(payload)
        if is_new := queue not in self._tried:
            check_options(queue.options)  # the catalog has done both, where there is one
            queue.ensure_sound()
        data = queue.dumped(validated)
        if is_new or self._tries_all or queue.is_doubtful(validated, data):
            queue.ensure_survives(validated, data)
            self._tried.add(queue)
        return validated, data

    def _check_size(self, queue: Queue[Any], data: bytes) -> None:
        if len(data) > self._max_payload_bytes:
            raise JobRefused(
                f"payload of queue {queue.name!r} has {len(data)} bytes, more than {self._max_payload_bytes}",
                hint="store the content elsewhere and enqueue a reference, or raise CORRAL_MAX_PAYLOAD_BYTES",
            )
        from corral.loggers import Logger  # noqa: PLC0415  # a declaration need not load `logging`

        Logger("corral.producer").warning("large payload", queue=queue.name, bytes=len(data))


Written: TypeAlias = bool | Exception
"""What became of a job: this call made it (True), a job of its id existed (False), or why it may
not be written.
"""


class JobScheduler(ABC):
    """Enqueues jobs.

    Depend on this, not on a store: `corral.testing.RecordingJobScheduler` needs none.

    The calls are here. What a scheduler writes to is behind `_write`, and for schedules behind
    `_keep_schedule` and `_end_schedule`.

    Attributes:
        prefix: The first part of the keys that the jobs are written under; None where they are not
        written to a store.

    The order of the jobs of one queue and one scheduler: the jobs of a call are in the order of its
    payloads, and calls are in the order in which they began to run. An `enqueue_many` of several
    parts takes its place part by part: a call that begins while one part is on its way stands
    before the next.
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
            The job's id, and whether this call made it.

        Raises:
            UnknownQueue: No installed plugin declares the queue.
            PayloadRefused: The payload has not the queue's shape.
            JobRefused: The id, an option or the size was refused.
            StoreUnavailable: The store is away, or no replica of it has the job where the scheduler
                asks for one (`corral.connect`); its `outcome` says whether the job may have been
                written.
            asyncio.CancelledError: The call was cancelled. A note has the job's id, and says
            whether it was sent.
        """
        checks = self._checks()
        declared = checks.find(queue)
        job = checks.job(declared, payload, options)
        (written,) = await self._write(declared, [job])
        if isinstance(written, Exception):
            raise _own(written, job.id)
        return Enqueued(job.id, written)

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
        """Write many jobs of one queue in few round trips; all are validated before the first is
        written.

        They are written in parts of up to 500 jobs and about 1 MiB; each part is written as a whole
        or not at all. Jobs of other calls may be written between two parts. A part whose reply was
        lost is asked for again, which makes no second jobs.

        Args:
            queue: The queue, or its name.
            payloads: What `enqueue` takes, one per job; or `Entry` objects, which have options of
            their own.
            options: Hold for all jobs, unless their entry says otherwise; `job_id` is refused.

        Returns:
            One `Enqueued` per payload, in order. An id that comes twice in one call makes one job,
            the first.

        Raises:
            UnknownQueue: As `enqueue`; nothing was written, as with the next two.
            PayloadRefused: A payload has not the queue's shape.
            JobRefused: An id, an option or a size was refused.
            EnqueueInterrupted: The store is away, or was from some part on. It has the ids of what
                was written, what was not, and what may have been.
            asyncio.CancelledError: The call was cancelled; nothing more is sent. A note has the
                number of jobs that were written and the ids of those that may have been.
        """
        checks = self._checks()
        declared = checks.find(queue)
        jobs = checks.jobs(declared, payloads, options)
        written = await self._write(declared, jobs) if jobs else ()
        if written.count(True) == len(jobs):
            return [Enqueued(job.id) for job in jobs]
        if len(written) < len(jobs) or any(isinstance(each, Exception) for each in written):
            raise _interrupted(declared.name, [job.id for job in jobs], written)
        return [Enqueued(job.id, flag is True) for job, flag in zip(jobs, written, strict=True)]

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
        id: str,  # noqa: A002  # the field's word
    ) -> datetime:
        """Run a job again and again, from now on: what a queue declares is for everybody, this is
        for one customer.

        The same call again changes nothing. Another payload or another `when` under the same id
        replaces what is to come; a run that is due already stays.

        Args:
            queue: The queue, or its name.
            payload: Of every run; as for `enqueue`.
            when: When it runs.
            id: Names the schedule; a legal job id that is no queue's name: those are for declared
            schedules.

        Returns:
            The next run (aware, UTC).

        Raises:
            UnknownQueue: No installed plugin declares the queue.
            PayloadRefused: The payload has not the queue's shape.
            JobRefused: The id, the size or `when` was refused.
            StoreUnavailable: The store is away.
        """
        checks = self._checks()
        declared = checks.find(queue)
        return await self._keep_schedule(declared, checks.schedule(declared, payload, when, id))

    async def unschedule(self, id: str) -> bool:  # noqa: A002  # as above
        """End a schedule that `schedule` made; a run that waits already is left.

        Args:
            id: The schedule, in whichever queues of the catalog it is.

        Returns:
            Whether there was one.

        Raises:
            JobRefused: It is a declared schedule: those end by `corral schedules remove`, or with
            their declaration.
            StoreUnavailable: The store is away.
        """
        check_schedule_id(id, self._checks().names)
        return await self._end_schedule(id)

    @abstractmethod
    def _checks(self) -> JobChecks:
        """What a job must pass before it is written by this scheduler."""

    @abstractmethod
    async def _write(self, queue: Queue[Any], jobs: Sequence[CheckedJob]) -> Sequence[Written]:
        """Write jobs, the first ones first.

        Args:
            queue: Their queue.
            jobs: At least one.

        Returns:
            What became of each. Those that are missing at the end were not sent.

        Raises:
            asyncio.CancelledError: The call was cancelled. A note says what became of the jobs.
        """

    def _leave_to_outbox(self, queue: Queue[Any], jobs: Sequence[CheckedJob]) -> None:  # noqa: B027  # by default
        """Take note of jobs that an outbox writes in this scheduler's place; by default, it takes
        none.
        """

    @abstractmethod
    async def _keep_schedule(self, queue: Queue[Any], schedule: CheckedSchedule) -> datetime:
        """Make a schedule, or replace the one of its id.

        Returns:
            The next run (aware, UTC).

        Raises:
            JobRefused: Its times cannot be kept.
            StoreUnavailable: The store is away.
        """

    @abstractmethod
    async def _end_schedule(self, schedule_id: str) -> bool:
        """End a schedule, in whichever queue it is.

        Returns:
            Whether there was one.

        Raises:
            StoreUnavailable: The store is away.
        """


def _own(error: Exception, job_id: str) -> Exception:
    """The error of a batch for one of its callers: they would all add to the traceback of a shared
    one.
    """
    own = copy(error)
    own.__cause__ = error.__cause__
    if isinstance(own, StoreUnavailable):
        own.job_id = job_id
        return own
    return own.with_traceback(error.__traceback__)


def _interrupted(queue: str, ids: Sequence[str], written: Sequence[Written]) -> EnqueueInterrupted:
    """The error of an `enqueue_many` that stopped: what became of each job; those at the end were
    not sent.
    """
    created: list[str] = []
    existing: list[str] = []
    refused: list[str] = []
    unknown: list[str] = []
    first: Exception | None = None
    for job_id, became in zip(ids, written, strict=False):
        if not isinstance(became, Exception):
            (created if became else existing).append(job_id)
            continue
        first = first or became
        certain = isinstance(became, StoreUnavailable) and became.outcome == "refused"
        (refused if certain else unknown).append(job_id)
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
