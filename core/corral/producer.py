"""The `JobScheduler` on Redis: validates, then writes; calls that overlap are written together.

Nothing is buffered beyond the call that waits for it: a store that is away is an error within about a second.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal, overload

from pydantic_core import to_json
from redis.exceptions import ResponseError
from typing_extensions import Unpack

from corral.catalog import Catalog
from corral.errors import JobRefused, StoreUnavailable
from corral.job import P
from corral.jobs import Enqueued
from corral.options import EnqueueOptions, JobOptions, check_job_id, check_schedule_id, merged, milliseconds
from corral.plugins import Relay
from corral.queue import Queue
from corral.schedule import Cron, Every
from corral.store.clock import Clock
from corral.store.codec import NewJob, encode_options
from corral.store.connection import Link
from corral.store.queue_store import MAX_BATCH, QueueStore
from corral.store.replies import is_missing_right, unexpected
from corral.store.schedules import NewSchedule, Schedules
from corral.tasks import start_task

__all__ = ["RedisJobScheduler", "new_job_id"]

GIVE_UP_SECONDS = 1.0
"""How long a call tries before it raises `StoreUnavailable`."""
REPLY_SECONDS = 0.8
"""How long one try waits for its reply: less than GIVE_UP_SECONDS, so that a swallowed request ends within a second."""
WARN_BYTES = 64 * 1024
"""A payload above this is legal and a mistake: it lives in the store's memory until its job is removed."""

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_job_id() -> str:
    """An id that no other client makes, and that sorts by time: 48 bits of milliseconds, 80 at random, in base 32."""
    number = time.time_ns() // 1_000_000 << 80 | secrets.randbits(80)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


@dataclass(slots=True, eq=False)
class _Waiting:
    """A job that is to be written, and the call that waits for it."""

    job: NewJob
    done: asyncio.Future[bool]


class _Writer:
    """Writes one queue's jobs: those that come while a write is on its way go together in the next one."""

    def __init__(self, store: QueueStore, url: str) -> None:
        self.store = store
        self._url = url
        self._waiting: list[_Waiting] = []
        self._writing: asyncio.Task[None] | None = None

    def write(self, job: NewJob) -> asyncio.Future[bool]:
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(job, done))
        if self._writing is None:
            self._writing = start_task(self._write_all(), f"corral-add-{self.store.queue}")
        return done

    async def close(self) -> None:
        if self._writing is not None:
            await self._writing
        await self.store.close()

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
                try:
                    with _no_client_errors(self._url):
                        created = await self._add([each.job for each in batch])
                except Exception as error:  # noqa: BLE001  # every caller must learn of it
                    for each in batch:
                        _fail(each, error)
                    if isinstance(error, StoreUnavailable):
                        behind, self._waiting = self._waiting, []
                        error.outcome = "refused"  # nothing of them was sent
                        for each in behind:
                            _fail(each, error)
                else:
                    for each, flag in zip(batch, created, strict=True):
                        if not each.done.done():
                            each.done.set_result(flag)
        finally:
            self._writing = None

    async def _add(self, jobs: Sequence[NewJob]) -> list[bool]:
        """Write a batch; after a lost reply the same jobs are written again, which makes no second ones."""
        give_up = time.monotonic() + GIVE_UP_SECONDS
        outcome: Literal["refused", "unknown"] = "refused"
        while True:
            try:
                return await self.store.add(jobs)
            except StoreUnavailable as error:
                if error.outcome == "unknown":
                    outcome = "unknown"
                if is_missing_right(error):  # nor may what is left half-written be taken for this call's own
                    error.outcome = outcome
                    raise
                wait = random.uniform(0.02, 0.1)  # noqa: S311  # keeps producers apart, no secret
                if time.monotonic() + wait + REPLY_SECONDS / 2 > give_up:
                    error.outcome = outcome
                    raise
                await asyncio.sleep(wait)


@contextmanager
def _no_client_errors(url: str) -> Iterator[None]:
    """Let an error reply that a script gave become an error of ours: no producer meets those of the client library."""
    try:
        yield
    except ResponseError as error:
        raise unexpected(error, url) from error


def _fail(waiting: _Waiting, error: Exception) -> None:
    if waiting.done.done():
        return
    if isinstance(error, StoreUnavailable):
        told = StoreUnavailable(str(error), job_id=waiting.job.id, outcome=error.outcome, hint=error.hint)
        told.__cause__, error = error.__cause__, told
    waiting.done.set_exception(error)


class RedisJobScheduler:
    """Enqueues jobs of a catalog's queues; see `corral.jobs.JobScheduler`.

    Args:
        catalog: The queues there are.
        relay: Calls the subscribers of `corral_enqueuing`.
        url: The store.
        prefix: The first part of the keys.
        max_payload_bytes: A larger payload is refused.
        clock: Moves the store's time, in tests.
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
    ) -> None:
        self._catalog = catalog
        self._enqueuing = relay.enqueuing
        self._url = url
        self._prefix = prefix
        self._max_payload_bytes = max_payload_bytes
        self._clock = clock
        self._writers: dict[str, _Writer] = {}

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
        return Enqueued(job.id, await self._writer(declared).write(job))

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
        """Write many jobs; see `JobScheduler.enqueue_many`."""
        if "job_id" in options:
            raise JobRefused("job_id names one job, and enqueue_many writes many", hint="call enqueue for each")
        declared = self._catalog.get(queue).queue
        jobs = [self._new_job(declared, payload, options) for payload in payloads]
        writer = self._writer(declared)
        created = await asyncio.gather(*(writer.write(job) for job in jobs))
        return [Enqueued(job.id, flag) for job, flag in zip(jobs, created, strict=True)]

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
        new = NewSchedule(id, declared.name, data, declared.options, when)
        try:
            with _no_client_errors(self._url):
                _, next_ms = await Schedules(self._writer(declared).store).ensure(new)
        except ValueError as error:
            raise JobRefused(f"schedule {id!r} cannot be kept: {error}") from None
        return datetime.fromtimestamp(next_ms / 1000, UTC)

    async def unschedule(self, id: str) -> bool:  # noqa: A002  # as in the port
        """End a schedule; see `JobScheduler.unschedule`."""
        check_schedule_id(id, self._catalog.entries)
        stores = [self._writer(entry.queue).store for entry in self._catalog]
        with _no_client_errors(self._url):
            return any(await asyncio.gather(*(Schedules(store).remove(id) for store in stores)))

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
            writer = self._writers[queue.name] = _Writer(store, self._url)
        return writer

    def _new_job(self, queue: Queue[Any], payload: Any, overrides: EnqueueOptions) -> NewJob:
        """A job, or a refusal; nothing is written here."""
        validated = queue.validated(payload)
        data = queue.dumped(validated)
        options = merged(queue.options, overrides)
        job_id = overrides.get("job_id")
        nonce = ""
        if job_id is None:
            job_id = new_job_id()
        else:
            check_job_id(job_id)
            nonce = secrets.token_hex(8)
        self._check_size(queue, data)
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
        """The options' JSON text. All jobs of a queue share theirs, but for named jobs and for traced ones."""
        carrier: dict[str, str] = {}
        if self._enqueuing is not None:
            self._enqueuing(queue, payload, carrier)
        if nonce or carrier:
            return encode_options(options, nonce=nonce, carrier=to_json(carrier).decode() if carrier else "")
        return _shared_options(options)


_shared_options = lru_cache(maxsize=256)(encode_options)
