"""The `JobScheduler` on Redis: validates, then writes; calls that overlap are written together.

Nothing is buffered beyond the call that waits for it: a store that is away is an error within about a second.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any, TypeAlias, overload

from pydantic_core import to_json
from redis.exceptions import ResponseError
from typing_extensions import Unpack

from corral.catalog import Catalog
from corral.errors import ConfigurationError, EnqueueInterrupted, JobRefused, StoreUnavailable
from corral.job import P
from corral.jobs import Durability, Enqueued, Entry, with_options
from corral.options import EnqueueOptions, JobOptions, check_job_id, check_schedule_id, merged, milliseconds
from corral.plugins import Relay
from corral.queue import Queue
from corral.schedule import Cron, Every
from corral.store.clock import Clock
from corral.store.codec import NewJob, encode_options
from corral.store.connection import Link
from corral.store.queue_store import QueueStore, batch_length, job_bytes
from corral.store.replies import is_missing_right, is_unreplicated, unexpected
from corral.store.schedules import NewSchedule, Schedules
from corral.store.scripts import call_again
from corral.store.wire import BYTES_PER_SECOND
from corral.tasks import start_task

__all__ = ["RedisJobScheduler", "new_job_id"]

GIVE_UP_SECONDS = 1.0
"""How long a call tries before it raises `StoreUnavailable`, counted from the last progress: a batch of its jobs that
was written, or a try that took longer than this because there was much to send."""
REPLY_SECONDS = 0.7
"""How long one try waits for its reply: less than GIVE_UP_SECONDS, so that a swallowed request ends within a second,
and 10,000 callers, whose own work takes 0.3 s, are told within 1.2 s."""
WARN_BYTES = 64 * 1024
"""A payload above this is legal and a mistake: it lives in the store's memory until its job is removed."""

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_job_id() -> str:
    """An id that no other client makes, and that sorts by time: 48 bits of milliseconds, 80 at random, in base 32."""
    number = time.time_ns() // 1_000_000 << 80 | secrets.randbits(80)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


_Written: TypeAlias = bool | Exception
"""What became of a job: this call made it (True), a job of its id existed (False), or why it may not be written."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """A job that is to be written, and the call that waits for it.

    Attributes:
        job: The job.
        done: What became of it; cancelled with the call.
        sent: Whether it may have reached the store.
    """

    job: NewJob
    done: asyncio.Future[_Written]
    sent: bool = False


class _Writer:
    """Writes one queue's jobs: those that come while a write is on its way go together in the next one.

    Args:
        store: The queue.
        url: Where it is.
        replicated: Whether each write waits until a replica has it.
    """

    def __init__(self, store: QueueStore, url: str, *, replicated: bool) -> None:
        self.store = store
        self._url = url
        self._replicated = replicated
        self._waiting: list[_Waiting] = []
        self._writing: asyncio.Task[None] | None = None
        self._bulks: set[asyncio.Future[None]] = set()

    @contextmanager
    def bulk(self) -> Iterator[None]:
        """Around a call that writes its jobs part by part: `close` waits for all of them."""
        ended = asyncio.get_running_loop().create_future()
        self._bulks.add(ended)
        try:
            yield
        finally:
            self._bulks.discard(ended)
            ended.set_result(None)

    def write(self, job: NewJob) -> _Waiting:
        """Have a job written. A job whose future is cancelled before it was sent is not sent."""
        waiting = _Waiting(job, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._writing is None:
            self._writing = start_task(self._write_all(), f"corral-add-{self.store.queue}")
        return waiting

    async def close(self) -> None:
        while self._bulks:
            await asyncio.wait(self._bulks)
        if self._writing is not None:
            await self._writing
        await self.store.close()

    async def _write_all(self) -> None:
        batch: list[_Waiting] = []
        try:
            while wanted := _wanted(self._waiting):
                count = batch_length(each.job for each in wanted)
                batch, self._waiting = wanted[:count], wanted[count:]
                try:
                    with _no_client_errors(self._url):
                        written: Sequence[_Written] = await self._add(batch)
                except Exception as error:  # noqa: BLE001  # every caller must learn of it
                    written = [error] * len(batch)
                    if isinstance(error, StoreUnavailable):
                        self._refuse_waiting(error)
                _tell(batch, written)
            self._waiting = []  # those that were cancelled
        except BaseException as error:  # somebody has cancelled all tasks
            unknown = StoreUnavailable(f"the write was ended by {type(error).__name__}", outcome="unknown")
            _tell(batch, [unknown] * len(batch))
            self._refuse_waiting(unknown)
            raise
        finally:
            self._writing = None

    def _refuse_waiting(self, error: StoreUnavailable) -> None:
        """Tell those whose jobs were not sent, too: a crowd waits no longer than one."""
        refused = copy(error)
        refused.outcome, refused.__cause__ = "refused", error.__cause__
        behind, self._waiting = self._waiting, []
        _tell(behind, [refused] * len(behind))

    async def _add(self, batch: list[_Waiting]) -> list[bool]:
        """Write a batch; after a lost reply the same jobs are written again, which makes no second ones.

        What is cancelled while nothing has reached the store is taken out of the batch.
        """
        began = progress = time.monotonic()
        lost: StoreUnavailable | None = None
        while True:
            if lost is None:
                batch[:] = _wanted(batch)
                if not batch:
                    return []
            for each in batch:
                each.sent = True
            tried = time.monotonic()
            try:
                return await self.store.add([each.job for each in batch], replicated=self._replicated)
            except StoreUnavailable as error:
                now = time.monotonic()
                if error.outcome == "unknown":
                    lost = error
                    if now - tried > GIVE_UP_SECONDS:  # no silence is waited for so long: bytes were moving
                        progress = now
                elif lost is None:
                    for each in batch:
                        each.sent = False
                wait = random.uniform(0.02, 0.1)  # noqa: S311  # keeps producers apart, no secret
                longest = began + sum(job_bytes(each.job) for each in batch) / BYTES_PER_SECOND
                is_late = now + wait + REPLY_SECONDS / 2 > min(progress, longest) + GIVE_UP_SECONDS
                # Without the right a further try could take what is left half-written for this call's own.
                if is_late or is_missing_right(error) or is_unreplicated(error):
                    error.outcome = "refused" if lost is None else "unknown"
                    raise
                await asyncio.sleep(wait)
            except ResponseError as error:
                if lost is None:
                    raise  # its script has taken back what it had written
                raise StoreUnavailable(f"{lost}; then {error}", outcome="unknown") from error


@contextmanager
def _no_client_errors(url: str) -> Iterator[None]:
    """Let an error reply that a script gave become an error of ours: no producer meets those of the client library."""
    try:
        yield
    except ResponseError as error:
        raise unexpected(error, url) from error


def _wanted(waiting: list[_Waiting]) -> list[_Waiting]:
    """Those whose call was not cancelled."""
    return [each for each in waiting if not each.done.done()]


def _tell(waiting: Sequence[_Waiting], written: Sequence[_Written]) -> None:
    for each, told in zip(waiting, written, strict=True):
        if not each.done.done():
            each.done.set_result(told)


def _own(error: Exception, job_id: str) -> Exception:
    """A batch's error for one of its callers: they would all add to the traceback of a shared one."""
    own = copy(error)
    own.__cause__ = error.__cause__
    if isinstance(own, StoreUnavailable):
        own.job_id = job_id
        return own
    return own.with_traceback(error.__traceback__)


def _certainly_refused(error: Exception) -> bool:
    """Whether an error means that nothing was written."""
    return isinstance(error, StoreUnavailable) and error.outcome == "refused"


class RedisJobScheduler:
    """Enqueues jobs of a catalog's queues; see `corral.jobs.JobScheduler`.

    Args:
        catalog: The queues there are.
        relay: Calls the subscribers of `corral_enqueuing`.
        url: The store.
        prefix: The first part of the keys.
        max_payload_bytes: A larger payload is refused.
        clock: Moves the store's time, in tests.
        durability: See `corral.connect`.
        on_first_job: Told the name of each queue, before the first job of that queue is written.
    """

    def __init__(
        self,
        catalog: Catalog,
        relay: Relay,
        *,
        url: str,
        prefix: str,
        max_payload_bytes: int,
        clock: Clock | None = None,
        durability: Durability | None = None,
        on_first_job: Callable[[str], object] | None = None,
    ) -> None:
        if durability not in {None, "replicated"}:
            raise ConfigurationError(f"durability {durability!r} does not exist", hint='there is "replicated", or None')
        self._replicated = durability is not None
        self._catalog = catalog
        self._enqueuing = relay.enqueuing
        self._url = url
        self._prefix = prefix
        self._max_payload_bytes = max_payload_bytes
        self._clock = clock
        self._writers: dict[str, _Writer] = {}
        self._declared_options: dict[str, bytes] = {}
        self._on_first_job = on_first_job
        self._used: set[str] = set()

    @overload
    async def enqueue(self, queue: Queue[P], payload: P, **options: Unpack[EnqueueOptions]) -> Enqueued: ...

    @overload
    async def enqueue(
        self, queue: Queue[Any] | str, payload: Mapping[str, Any], **options: Unpack[EnqueueOptions]
    ) -> Enqueued: ...

    async def enqueue(self, queue: Queue[Any] | str, payload: Any, **options: Unpack[EnqueueOptions]) -> Enqueued:
        """Write one job; see `JobScheduler.enqueue`."""
        declared = self._catalog.get(queue).queue
        job = self._new_job(declared, payload, options)
        waiting = self._writer(declared).write(job)
        try:
            written = await waiting.done
        except asyncio.CancelledError as error:
            became = "may have been written" if waiting.sent else "was not sent"
            error.add_note(f"job {job.id} of queue {declared.name!r} {became}")
            raise
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
        """Write many jobs; see `JobScheduler.enqueue_many`."""
        declared = self._catalog.get(queue).queue
        new = deque(self._new_job(declared, payload, own) for payload, own in with_options(payloads, options))
        ids = [job.id for job in new]
        writer = self._writer(declared)
        written: list[_Written] = []
        with writer.bulk():
            while new:
                # Part by part: calls beside this one wait for a part, not for all, and what is written is let go.
                part = [writer.write(new.popleft()) for _ in range(batch_length(new))]
                try:
                    written += await asyncio.gather(*(each.done for each in part))
                except asyncio.CancelledError as error:
                    error.add_note(_cancelled_note(declared.name, ids, written, part))
                    raise
                if any(isinstance(each, Exception) for each in written[-len(part) :]):
                    raise _interruption(declared.name, ids, written)
        return [Enqueued(job_id, flag is True) for job_id, flag in zip(ids, written, strict=True)]

    def prepared(self, queue: Queue[Any] | str, payload: Any, options: EnqueueOptions) -> tuple[str, str, NewJob]:
        """What `enqueue` would write, for whoever writes it later: `corral.sql.Outbox`.

        Returns:
            The keys' prefix, the queue's name, and the job.

        Raises:
            As `enqueue`, but for `StoreUnavailable`.
        """
        declared = self._catalog.get(queue).queue
        return self._prefix, declared.name, self._new_job(declared, payload, options)

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
        """Run a job again and again; see `JobScheduler.schedule`."""
        declared = self._catalog.get(queue).queue
        data = declared.dumped(declared.validated(payload))
        check_schedule_id(id, self._catalog.entries)
        self._check_size(declared, data)
        self._note_use(declared.name)
        new = NewSchedule(id, declared.name, data, declared.options, when)
        schedules = Schedules(self._writer(declared).store)
        try:
            with _no_client_errors(self._url):
                _, next_ms = await call_again(lambda: schedules.ensure(new))
        except ValueError as error:
            raise JobRefused(f"schedule {id!r} cannot be kept: {error}") from None
        return datetime.fromtimestamp(next_ms / 1000, UTC)

    async def unschedule(self, id: str) -> bool:  # noqa: A002  # as in the port
        """End a schedule; see `JobScheduler.unschedule`."""
        check_schedule_id(id, self._catalog.entries)
        kept = [Schedules(self._writer(entry.queue).store) for entry in self._catalog]
        removed = False
        with _no_client_errors(self._url):
            # Whether there is one is asked before: a removal whose reply is lost may be repeated then.
            there = await asyncio.gather(*(_has(schedules, id) for schedules in kept))
            for schedules in kept:
                try:
                    removed |= await call_again(partial(schedules.remove, id))
                except StoreUnavailable as error:
                    if removed and error.outcome == "refused":
                        error.outcome = "partial"
                    raise
        return removed or any(there)

    async def close(self) -> None:
        """Wait for what is being written and close the connections."""
        for writer in self._writers.values():
            await writer.close()
        self._writers.clear()

    def _writer(self, queue: Queue[Any]) -> _Writer:
        writer = self._writers.get(queue.name)
        if writer is None:
            link = Link(self._url, read_seconds=REPLY_SECONDS)
            store = QueueStore(link, self._prefix, queue.name, clock=self._clock)
            writer = self._writers[queue.name] = _Writer(store, self._url, replicated=self._replicated)
        return writer

    def _new_job(self, queue: Queue[Any], payload: Any, overrides: EnqueueOptions) -> NewJob:
        """A job, or a refusal; nothing is written here."""
        validated = queue.validated(payload)
        data = queue.dumped(validated)
        options = merged(queue.options, overrides) if overrides else queue.options
        job_id = overrides.get("job_id")
        nonce = ""
        if job_id is None:
            job_id = new_job_id()
        else:
            check_job_id(job_id)
            nonce = secrets.token_hex(8)
        self._check_size(queue, data)
        self._note_use(queue.name)
        return NewJob(
            id=job_id,
            name=queue.name,
            data=data,
            opts=self._encoded(queue, options, nonce, validated),
            delay_ms=milliseconds(options.delay),
            priority=options.priority,
            lifo=options.lifo,
            nonce=nonce,
        )

    def _note_use(self, queue: str) -> None:
        if queue not in self._used:
            self._used.add(queue)
            if self._on_first_job is not None:
                self._on_first_job(queue)

    def _check_size(self, queue: Queue[Any], data: bytes) -> None:
        if len(data) > self._max_payload_bytes:
            raise JobRefused(
                f"payload of queue {queue.name!r} has {len(data)} bytes, more than {self._max_payload_bytes}",
                hint="store the content elsewhere and enqueue a reference, or raise CORRAL_MAX_PAYLOAD_BYTES",
            )
        if len(data) > WARN_BYTES:
            import structlog  # noqa: PLC0415  # a producer that never warns need not load it

            structlog.get_logger("corral.producer").warning("large payload", queue=queue.name, bytes=len(data))

    def _encoded(self, queue: Queue[Any], options: JobOptions, nonce: str, payload: Any) -> bytes:
        """The options' JSON text. All jobs of a queue share theirs, but for named jobs and for traced ones.

        It is kept by the queue where the call has no options: hashing them costs a third of an `enqueue`, 11 µs.
        """
        carrier: dict[str, str] = {}
        if self._enqueuing is not None:
            self._enqueuing(queue, payload, carrier)
        if nonce or carrier:
            return encode_options(options, nonce=nonce, carrier=to_json(carrier).decode() if carrier else "")
        if options is not queue.options:
            return _shared_options(options)
        if queue.name not in self._declared_options:
            self._declared_options[queue.name] = encode_options(options)
        return self._declared_options[queue.name]


async def _has(schedules: Schedules, schedule_id: str) -> bool:
    """Whether a queue has a schedule; one whose keys are damaged can be ended, too."""
    try:
        return await schedules.get(schedule_id) is not None
    except ResponseError:
        return True


def _interruption(queue: str, ids: Sequence[str], written: Sequence[_Written]) -> EnqueueInterrupted:
    """The error of an `enqueue_many` that stopped: what became of each job; those at the end were not sent."""
    created: list[str] = []
    existing: list[str] = []
    refused: list[str] = []
    unknown: list[str] = []
    first: Exception | None = None
    for job_id, told in zip(ids, written, strict=False):
        if isinstance(told, Exception):
            first = first or told
            (refused if _certainly_refused(told) else unknown).append(job_id)
        else:
            (created if told else existing).append(job_id)
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


def _cancelled_note(queue: str, ids: Sequence[str], written: Sequence[_Written], part: Sequence[_Waiting]) -> str:
    """What became of the jobs of an `enqueue_many` that was cancelled while it wrote a part of them."""
    unknown = [each.job.id for each in part if each.sent]
    unsent = len(ids) - len(written) - len(unknown)
    note = f"of {len(ids)} jobs of queue {queue!r}, {len(written)} are written and {unsent} were not sent"
    return note + (f"; these may be written: {', '.join(unknown)}" if unknown else "")


_shared_options = lru_cache(maxsize=256)(encode_options)
