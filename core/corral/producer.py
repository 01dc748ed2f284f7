"""The `JobScheduler` on Redis: calls that overlap are written together.

A job is held in memory only while its call waits. If the store is away, the call fails after about
a second.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from corral.catalog import Catalog
from corral.errors import ConfigurationError, JobRefused, SchedulerUnusable, StoreUnavailable
from corral.forking import forks
from corral.job_state import JobState
from corral.jobs import CheckedJob, CheckedSchedule, Durability, JobChecks, JobScheduler, Written
from corral.plugins import JobHooks
from corral.queue import Queue
from corral.store.clock import Clock
from corral.store.codec import JobEncoder, NewJob
from corral.store.connection import Link
from corral.store.queue_store import BATCH_BYTES, MAX_BATCH, QueueStore, batches, job_bytes
from corral.store.replies import ResponseError, is_missing_right, is_unreplicated, unexpected
from corral.store.schedules import NewSchedule, Schedules
from corral.store.scripts import call_again
from corral.store.wire import BYTES_PER_SECOND
from corral.tasks import start_task

__all__ = ["RedisJobScheduler"]

GIVE_UP_SECONDS = 1.0
"""How long a call tries before it raises `StoreUnavailable`, counted from the last progress.

Progress is a batch of its jobs that was written, or a try that took longer than this because it had
many bytes to send.
"""
REPLY_SECONDS = 0.7
"""How long one try waits for its reply.

It is less than GIVE_UP_SECONDS, so that a request without a reply ends within a second, and 10,000
callers, whose own work takes 0.3 s, get their error within 1.2 s.
"""
WRITES_AT_ONCE = 2
"""How many writes of one queue may be sent at the same time.

The store works on one; the other is in its buffer when it is done with that.
"""
SHARED_JOBS = 16
"""How many jobs must be in line to start a second write.

With fewer jobs, the additional call costs more than it saves in waiting.
"""


@dataclass(slots=True, eq=False)
class _Part:
    """Jobs of one call that are written together.

    Attributes:
        jobs: At least one, and no more than one script takes.
        size: Their size in bytes.
        done: Gets one result per job; cancelled with the call.
        sent: Whether the jobs may have reached the store.
    """

    jobs: list[NewJob]
    size: int
    done: asyncio.Future[Sequence[Written]]
    sent: bool = False


class _Writer:
    """Writes one queue's jobs.

    Parts that arrive while a write is being sent are written together by the next one. Where many
    jobs arrive, two writes are sent at the same time: the store works on one while the callers of
    the other go on. Both use one connection, so the store gets them in order.

    Args:
        store: The queue.
        url: The URL of its store, for errors.
        replicated: Whether each write waits until a replica has it.
    """

    def __init__(self, store: QueueStore, url: str, *, replicated: bool) -> None:
        self.store = store
        self._url = url
        self._replicated = replicated
        # With replicas, no other command may come between a write and its WAIT.
        self._most_writes = 1 if replicated else WRITES_AT_ONCE
        self._encoder = JobEncoder(store.queue)
        self._line: deque[_Part] = deque()
        self._in_line = 0  # jobs
        # Writes that have not ended, in the order in which they were started.
        self._writes: list[asyncio.Future[bool]] = []
        # Those of them that have taken nothing from the line yet.
        self._unbegun: set[asyncio.Future[bool]] = set()
        self._last = 1  # jobs in the last write
        self._calls: set[asyncio.Future[None]] = set()

    async def write(self, jobs: Sequence[CheckedJob]) -> Sequence[Written]:
        """Write the jobs of one call; see `JobScheduler._write`."""
        if len(jobs) > 1:
            return await self._write_in_parts(jobs)
        encoded = [self._encoder.encode(jobs[0])]
        alone = self._last == 1 and not (self._writes or self._line)
        part = self._part(encoded) if alone else self._line_up(encoded)
        try:
            if alone:
                await self._write_alone(part)
            return await part.done
        except asyncio.CancelledError as error:
            outcome = "may have been written" if part.sent else "was not sent"
            error.add_note(f"job {jobs[0].id} of queue {self.store.queue!r} {outcome}")
            raise

    async def close(self) -> None:
        """Wait for the calls that are being made, and close the connection."""
        while self._calls:
            await asyncio.wait(self._calls)
        while self._writes:
            await asyncio.wait(self._writes)
        await self.store.close()

    async def _write_in_parts(self, jobs: Sequence[CheckedJob]) -> Sequence[Written]:
        """Write a call's jobs part by part, so that other calls wait for one part and not for all.

        The next part is encoded while the store writes the one before, and is sent when that is
        answered: if a call fails half-way, the outcome of at most one part is unknown.
        """
        parts = batches(map(self._encoder.encode, jobs))
        batch = next(parts, None)
        written: list[Written] = []
        ended = asyncio.get_running_loop().create_future()
        self._calls.add(ended)
        try:
            while batch is not None:
                part = self._line_up(batch)
                try:
                    await asyncio.sleep(0)  # lets the write begin: it sends this part
                    batch = next(parts, None)
                    written += await part.done
                except asyncio.CancelledError as error:
                    part.done.cancel()
                    error.add_note(_cancelled_note(self.store.queue, len(jobs), len(written), part))
                    raise
                if isinstance(written[-1], Exception):
                    break
        finally:
            self._calls.discard(ended)
            ended.set_result(None)
        return written

    async def _write_alone(self, part: _Part) -> None:
        """Write a single job in the caller's own task, if no other call of this queue is running.

        That saves the event loop's turns that a task of its own takes.
        """
        write = asyncio.get_running_loop().create_future()
        self._writes.append(write)
        took = False
        try:
            took = await self._write_batch([part], None)
        finally:
            self._end_write(write)
            write.set_result(took)

    def _part(self, jobs: list[NewJob]) -> _Part:
        return _Part(jobs, sum(map(job_bytes, jobs)), asyncio.get_running_loop().create_future())

    def _line_up(self, jobs: list[NewJob]) -> _Part:
        """Put jobs at the end of the line, as one part.

        A part whose future is cancelled before it is sent is not sent.
        """
        part = self._part(jobs)
        self._line.append(part)
        self._in_line += len(jobs)
        self._start_write()
        return part

    def _start_write(self) -> None:
        """Start writing what is in line.

        Beside a write that is being sent, a second one starts only if enough jobs are in line.
        """
        if self._line and (
            not self._writes
            or (len(self._writes) < self._most_writes and self._in_line >= SHARED_JOBS)
        ):
            before = self._writes[-1] if self._writes else None
            write = start_task(self._write_line(before), f"corral-add-{self.store.queue}")
            write.add_done_callback(self._fail_unbegun)
            self._writes.append(write)
            self._unbegun.add(write)

    async def _write_line(self, before: asyncio.Future[bool] | None) -> bool:
        """Write the jobs at the head of the line; leave a share to other writes that are starting.

        Args:
            before: The write that was started before this one and has not ended, or None.

        Returns:
            Whether the store took the jobs.
        """
        own: asyncio.Task[bool] = asyncio.current_task()  # type: ignore[assignment]  # a coroutine that runs has a task
        batch: list[_Part] = []
        try:
            # Without a connection, nothing is sent yet that this write could follow.
            if before is not None and self.store.is_connecting:
                await asyncio.wait([before])
            batch = self._next_batch(-(-self._in_line // len(self._unbegun)))
            self._unbegun.discard(own)
            return await self._write_batch(batch, before)
        except BaseException as error:  # the program cancels all tasks, or ends
            unknown = _ended_by(error)
            _set_error(batch, unknown)
            self._refuse_line(unknown)
            raise
        finally:
            self._end_write(own)

    def _fail_unbegun(self, write: asyncio.Future[bool]) -> None:
        """Fail the parts in line if a write was cancelled before it began: no other takes them."""
        if write in self._writes:
            self._refuse_line(_ended_by(asyncio.CancelledError()))
            self._end_write(write)

    def _end_write(self, write: asyncio.Future[bool]) -> None:
        self._writes.remove(write)
        self._unbegun.discard(write)
        self._start_write()

    async def _write_batch(self, batch: list[_Part], before: asyncio.Future[bool] | None) -> bool:
        """Write parts together, and set the result of each.

        Arguments and result are those of `_write_line`.
        """
        self._last = sum(len(part.jobs) for part in batch)
        try:
            with _translate_client_errors(self._url):
                written = await self._add(batch, before)
        except Exception as error:  # noqa: BLE001  # every waiting caller must get it
            _set_error(batch, error)
            self._refuse_line(error)
            return False
        at = 0
        for part in batch:
            _set_result(part, written[at : at + len(part.jobs)])
            at += len(part.jobs)
        return True

    def _next_batch(self, share: int) -> list[_Part]:
        """Take the parts at the head of the line that fit into one script call.

        Parts whose call was cancelled are dropped.

        Args:
            share: With this many jobs the batch is full.
        """
        batch: list[_Part] = []
        count = size = 0
        while self._line and count < share:
            part = self._line[0]
            if not part.done.done():
                count += len(part.jobs)
                size += part.size
                if batch and (count > MAX_BATCH or size > BATCH_BYTES):
                    break
                batch.append(part)
            self._in_line -= len(part.jobs)
            self._line.popleft()
        return batch

    def _refuse_line(self, error: Exception) -> None:
        """Fail the parts that were not sent, too: many callers wait no longer than one."""
        refused = copy(error)
        refused.__cause__ = error.__cause__
        if isinstance(refused, StoreUnavailable):
            refused.outcome = "refused"
        line, self._line, self._in_line = self._line, deque(), 0
        _set_error(line, refused)

    async def _add(
        self, batch: list[_Part], before: asyncio.Future[bool] | None
    ) -> list[bool | JobState]:
        """Write a batch, and try again if the store is away.

        After a lost reply the same jobs are written again, which makes no second ones. Parts that
        are cancelled while nothing has reached the store are taken out of the batch. A further try
        waits for the write that was sent before this one, to keep their order.
        """
        patience = _Patience(sum(part.size for part in batch))
        while True:
            if patience.lost is None:
                batch[:] = [part for part in batch if not part.done.done()]
                if not batch:
                    return []
            for part in batch:
                part.sent = True
            jobs = (
                batch[0].jobs if len(batch) == 1 else [job for part in batch for job in part.jobs]
            )
            tried = time.monotonic()
            try:
                return await self.store.add(jobs, replicated=self._replicated)
            except StoreUnavailable as error:
                patience.record_failure(error, tried)
                for part in batch:
                    part.sent = patience.lost is not None
                if before is not None:
                    await asyncio.wait([before])
                    if not (before.cancelled() or before.result()):
                        patience.end()
                    before = None
                await patience.wait(error)
            except ResponseError as error:
                if patience.lost is None:
                    raise  # the script has taken back what it had written
                raise StoreUnavailable(
                    f"{patience.lost}; then {error}", outcome="unknown"
                ) from error


class _Patience:
    """Decides for how long a write is tried again.

    Attributes:
        lost: The error of a try whose reply was lost: the jobs may be written. None as long as no
            try may have written anything.

    Args:
        size: How many bytes are sent.
    """

    def __init__(self, size: int) -> None:
        self.lost: StoreUnavailable | None = None
        self._began = self._progress = time.monotonic()
        self._size = size

    def record_failure(self, error: StoreUnavailable, tried: float) -> None:
        """Record a try that failed. `tried` is when it began, by the monotonic clock."""
        if error.outcome == "unknown":
            self.lost = error
            # No try waits so long for a silent store: it was still sending bytes.
            if time.monotonic() - tried > GIVE_UP_SECONDS:
                self._progress = time.monotonic()

    def end(self) -> None:
        """Allow no further try."""
        self._progress = -math.inf

    async def wait(self, error: StoreUnavailable) -> None:
        """Wait until the next try.

        Raises:
            StoreUnavailable: The error of the last try, if no further one is allowed. Its outcome
                is that of all tries together.
        """
        seconds = random.uniform(0.02, 0.1)  # noqa: S311  # keeps producers apart, no secret
        longest = self._began + self._size / BYTES_PER_SECOND
        is_late = (
            time.monotonic() + seconds + REPLY_SECONDS / 2
            > min(self._progress, longest) + GIVE_UP_SECONDS
        )
        # If a right is missing, a job may be half-written, and a further try would find it and
        # report it as written.
        if is_late or is_missing_right(error) or is_unreplicated(error):
            error.outcome = "refused" if self.lost is None else "unknown"
            raise error
        await asyncio.sleep(seconds)


@contextmanager
def _translate_client_errors(url: str) -> Iterator[None]:
    """Raise a script's error reply as an error of ours.

    Callers of a producer never get an exception of the client library.
    """
    try:
        yield
    except ResponseError as error:
        raise unexpected(error, url) from error


def _ended_by(error: BaseException) -> StoreUnavailable:
    return StoreUnavailable(f"the write was ended by {type(error).__name__}", outcome="unknown")


def _set_result(part: _Part, written: Sequence[Written]) -> None:
    if not part.done.done():
        part.done.set_result(written)


def _set_error(parts: Iterable[_Part], error: Exception) -> None:
    for part in parts:
        _set_result(part, [error] * len(part.jobs))


def _cancelled_note(queue: str, count: int, written: int, part: _Part) -> str:
    """What happened to the jobs of an `enqueue_many` that was cancelled while it wrote a part."""
    unknown = [job.id for job in part.jobs] if part.sent else []
    unsent = count - written - len(unknown)
    note = f"of {count} jobs of queue {queue!r}, {written} are written and {unsent} were not sent"
    return note + (f"; these may be written: {', '.join(unknown)}" if unknown else "")


class RedisJobScheduler(JobScheduler):
    """Enqueues jobs of a catalog's queues; see `corral.jobs.JobScheduler`.

    Args:
        catalog: The queues.
        job_hooks: Calls the implementations of the hook `corral_enqueuing`.
        url: The store.
        prefix: The first part of the keys.
        max_payload_bytes: A larger payload is refused.
        clock: Moves the store's time, in tests.
        durability: See `corral.connect`.
        on_first_job: Called with the name of each queue before its first job is written.
        proves_all: As for `JobChecks`.
    """

    def __init__(
        self,
        catalog: Catalog,
        job_hooks: JobHooks,
        *,
        url: str,
        prefix: str,
        max_payload_bytes: int,
        clock: Clock | None = None,
        durability: Durability | None = None,
        on_first_job: Callable[[str], object] | None = None,
        proves_all: bool = False,
    ) -> None:
        if durability not in {None, "replicated"}:
            raise ConfigurationError(
                f"durability {durability!r} does not exist", hint='there is "replicated", or None'
            )
        self._replicated = durability is not None
        self._catalog = catalog
        self._own_checks = JobChecks(
            lambda queue: catalog.get(queue).queue,
            catalog.entries,
            max_payload_bytes=max_payload_bytes,
            enqueuing=job_hooks.enqueuing,
            proves_all=proves_all,
        )
        self.prefix: str = prefix
        self._url = url
        self._clock = clock
        self._writers: dict[str, _Writer] = {}
        self._on_first_job = on_first_job
        self._used: set[str] = set()
        self._closed = False
        self._forks = forks()
        self._loop: asyncio.AbstractEventLoop | None = None
        with suppress(RuntimeError):  # made outside of a loop: that of its first call counts
            self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        """Wait for calls that are writing, and close the connections. Later calls are refused.

        Raises:
            SchedulerUnusable: Called in another event loop.
        """
        if self._closed or self._forks != forks():  # in a forked child, all of it is the parent's
            return
        self.ensure_usable()
        self._closed = True
        for writer in self._writers.values():
            await writer.close()
        self._writers.clear()

    def ensure_usable(self) -> None:
        """Refuse a call that would wait for ever: its replies go to another event loop or process.

        Raises:
            SchedulerUnusable: Closed, made in another event loop, or made before this process was
                forked.
        """
        if self._forks != forks():
            raise SchedulerUnusable(
                "this scheduler was connected before the process was forked, and is the parent's",
                hint="connect in the child, or use corral.connect_blocking(), "
                "which connects again by itself",
            )
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise SchedulerUnusable(
                "this scheduler belongs to another event loop, the one in which it was connected",
                hint="connect once per event loop, or use corral.connect_blocking(), "
                "which needs none",
            )
        if self._closed:
            raise SchedulerUnusable(
                "this scheduler is closed",
                hint="call it before its `with` block is left, or connect again",
            )

    def _checks(self) -> JobChecks:
        return self._own_checks

    async def _write(self, queue: Queue[Any], jobs: Sequence[CheckedJob]) -> Sequence[Written]:
        self.ensure_usable()
        self._note_use(queue.name)
        return await self._writer(queue).write(jobs)

    def _leave_to_outbox(self, queue: Queue[Any], jobs: Sequence[CheckedJob]) -> None:  # noqa: ARG002  # the base class has it
        self._note_use(queue.name)

    async def _keep_schedule(self, queue: Queue[Any], schedule: CheckedSchedule) -> datetime:
        self.ensure_usable()
        self._note_use(queue.name)
        new = NewSchedule(schedule.id, queue.name, schedule.data, queue.options, schedule.when)
        schedules = Schedules(self._writer(queue).store)
        try:
            with _translate_client_errors(self._url):
                _, next_ms = await call_again(lambda: schedules.ensure(new))
        except ValueError as error:
            raise JobRefused(f"schedule {schedule.id!r} cannot be kept: {error}") from None
        return datetime.fromtimestamp(next_ms / 1000, UTC)

    async def _end_schedule(self, queue: Queue[Any], schedule_id: str) -> bool:
        self.ensure_usable()
        schedules = Schedules(self._writer(queue).store)
        with _translate_client_errors(self._url):
            # Asked before the removal: a removal whose reply is lost is repeated, and the second
            # one finds nothing.
            existed = await _has_schedule(schedules, schedule_id)
            return await call_again(partial(schedules.remove, schedule_id)) or existed

    def _writer(self, queue: Queue[Any]) -> _Writer:
        writer = self._writers.get(queue.name)
        if writer is None:
            link = Link(self._url, read_seconds=REPLY_SECONDS, pipelined=not self._replicated)
            store = QueueStore(link, self.prefix, queue.name, clock=self._clock)
            writer = self._writers[queue.name] = _Writer(
                store, self._url, replicated=self._replicated
            )
        return writer

    def _note_use(self, queue: str) -> None:
        if queue not in self._used:
            self._used.add(queue)
            if self._on_first_job is not None:
                self._on_first_job(queue)


async def _has_schedule(schedules: Schedules, schedule_id: str) -> bool:
    """Whether a queue has a schedule. A damaged one counts: it can be ended, too."""
    try:
        return await schedules.get(schedule_id) is not None
    except ResponseError:
        return True
