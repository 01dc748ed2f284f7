"""The `JobScheduler` on Redis: calls that overlap are written together.

Nothing is buffered beyond the call that waits for it: a store that is away is an error within about
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
from corral.jobs import CheckedJob, CheckedSchedule, Durability, JobChecks, JobScheduler, Written
from corral.plugins import Relay
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
"""How long a call tries before it raises `StoreUnavailable`, counted from the last progress: a
batch of its jobs that was written, or a try that took longer than this because there was much to
send.
"""
REPLY_SECONDS = 0.7
"""How long one try waits for its reply: less than GIVE_UP_SECONDS, so that a swallowed request ends
within a second, and 10,000 callers, whose own work takes 0.3 s, are told within 1.2 s.
"""
WRITES_AT_ONCE = 2
"""How many writes of one queue may be on their way: one that the store works on, and one that it
finds after that.
"""
SHARED_JOBS = 16
"""How many jobs must be in line for a second write: fewer cost more in calls than they save in
waiting.
"""


@dataclass(slots=True, eq=False)
class _Part:
    """Jobs that are written together, of one call.

    Attributes:
        jobs: At least one, and no more than one script takes.
        size: How many bytes they have.
        done: What became of each; cancelled with the call.
        sent: Whether they may have reached the store.
    """

    jobs: list[NewJob]
    size: int
    done: asyncio.Future[Sequence[Written]]
    sent: bool = False


class _Writer:
    """Writes one queue's jobs: the parts that come while a write is on its way go together in the
    next one.

    Where many come, two writes are on their way: the store works on one while the callers of the
    other go on. They go through one connection, so that the store has them in their order.

    Args:
        store: The queue.
        url: Where it is.
        replicated: Whether each write waits until a replica has it.
    """

    def __init__(self, store: QueueStore, url: str, *, replicated: bool) -> None:
        self.store = store
        self._url = url
        self._replicated = replicated
        self._most_writes = (
            1 if replicated else WRITES_AT_ONCE
        )  # nothing may come between a write and its WAIT
        self._encoder = JobEncoder(store.queue)
        self._line: deque[_Part] = deque()
        self._in_line = 0  # jobs
        self._writes: list[
            asyncio.Future[bool]
        ] = []  # on their way, in the order in which they were sent
        self._unbegun: set[asyncio.Future[bool]] = (
            set()
        )  # those of them that have taken nothing from the line yet
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
            became = "may have been written" if part.sent else "was not sent"
            error.add_note(f"job {jobs[0].id} of queue {self.store.queue!r} {became}")
            raise

    async def close(self) -> None:
        """Wait for the calls there are, and close the connection."""
        while self._calls:
            await asyncio.wait(self._calls)
        while self._writes:
            await asyncio.wait(self._writes)
        await self.store.close()

    async def _write_in_parts(self, jobs: Sequence[CheckedJob]) -> Sequence[Written]:
        """Write a call's jobs part by part, so that calls beside it wait for a part, not for all.

        The next part is encoded while the store writes the one before, and sent when that is
        answered: of a call that fails half-way, at most one part may be written or not.
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
                    await asyncio.sleep(0)  # it is sent
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
        """Write one job from the caller's own task, where nobody enqueues beside it: it saves the
        turns of another.
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
        """Have jobs written after those that are in line.

        A part whose future is cancelled before that is not sent.
        """
        part = self._part(jobs)
        self._line.append(part)
        self._in_line += len(jobs)
        self._start_write()
        return part

    def _start_write(self) -> None:
        """Write what is in line: beside a write that is on its way only what is worth a call of its
        own.
        """
        if self._line and (
            not self._writes
            or (len(self._writes) < self._most_writes and self._in_line >= SHARED_JOBS)
        ):
            before = self._writes[-1] if self._writes else None
            write = start_task(self._write_line(before), f"corral-add-{self.store.queue}")
            write.add_done_callback(self._give_up_unbegun)
            self._writes.append(write)
            self._unbegun.add(write)

    async def _write_line(self, before: asyncio.Future[bool] | None) -> bool:
        """Write the head of the line; where another write is about to begin, it takes the rest.

        Args:
            before: The write that is on its way already, or None.

        Returns:
            Whether the store took it.
        """
        own: asyncio.Task[bool] = asyncio.current_task()  # type: ignore[assignment]  # of this very coroutine
        batch: list[_Part] = []
        try:
            if (
                before is not None and self.store.is_connecting
            ):  # else the other one is sent, and this one follows it
                await asyncio.wait([before])
            batch = self._next_batch(-(-self._in_line // len(self._unbegun)))
            self._unbegun.discard(own)
            return await self._write_batch(batch, before)
        except BaseException as error:  # somebody has cancelled all tasks
            unknown = _ended_by(error)
            _fail(batch, unknown)
            self._refuse_line(unknown)
            raise
        finally:
            self._end_write(own)

    def _give_up_unbegun(self, write: asyncio.Future[bool]) -> None:
        """Let nobody wait for a write that somebody has cancelled before it began."""
        if write in self._writes:
            self._refuse_line(_ended_by(asyncio.CancelledError()))
            self._end_write(write)

    def _end_write(self, write: asyncio.Future[bool]) -> None:
        self._writes.remove(write)
        self._unbegun.discard(write)
        self._start_write()

    async def _write_batch(self, batch: list[_Part], before: asyncio.Future[bool] | None) -> bool:
        """Write parts together, and say what became of each; arguments and result as of
        `_write_line`.
        """
        self._last = sum(len(part.jobs) for part in batch)
        try:
            with _no_client_errors(self._url):
                written = await self._add(batch, before)
        except Exception as error:  # noqa: BLE001  # every caller must learn of it
            _fail(batch, error)
            self._refuse_line(error)
            return False
        at = 0
        for part in batch:
            _tell(part, written[at : at + len(part.jobs)])
            at += len(part.jobs)
        return True

    def _next_batch(self, share: int) -> list[_Part]:
        """The parts at the head of the line that fit into one script, without those whose call was
        cancelled.

        Args:
            share: With so many jobs it is full.
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
        """Tell those whose jobs were not sent, too: a crowd waits no longer than one."""
        refused = copy(error)
        refused.__cause__ = error.__cause__
        if isinstance(refused, StoreUnavailable):
            refused.outcome = "refused"
        line, self._line, self._in_line = self._line, deque(), 0
        _fail(line, refused)

    async def _add(self, batch: list[_Part], before: asyncio.Future[bool] | None) -> list[bool]:
        """Write a batch; after a lost reply the same jobs are written again, which makes no second
        ones.

        What is cancelled while nothing has reached the store is taken out of the batch. A further
        try waits for the write that was sent before this one, so that their order stays.
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
                patience.failed(error, tried)
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
                    raise  # its script has taken back what it had written
                raise StoreUnavailable(
                    f"{patience.lost}; then {error}", outcome="unknown"
                ) from error


class _Patience:
    """For how long a write is tried.

    Attributes:
        lost: The error of a try whose reply was lost: what was sent may be written. None where
        nothing was.

    Args:
        size: How many bytes are to be sent.
    """

    def __init__(self, size: int) -> None:
        self.lost: StoreUnavailable | None = None
        self._began = self._progress = time.monotonic()
        self._size = size

    def failed(self, error: StoreUnavailable, tried: float) -> None:
        """Take note of a try that began at this time, by the monotonic clock."""
        if error.outcome == "unknown":
            self.lost = error
            if (
                time.monotonic() - tried > GIVE_UP_SECONDS
            ):  # no silence is waited for so long: bytes were moving
                self._progress = time.monotonic()

    def end(self) -> None:
        """Make no further try."""
        self._progress = -math.inf

    async def wait(self, error: StoreUnavailable) -> None:
        """Wait until the next try.

        Raises:
            StoreUnavailable: The error of the last one, where there is no next; its outcome is that
            of all tries.
        """
        seconds = random.uniform(0.02, 0.1)  # noqa: S311  # keeps producers apart, no secret
        longest = self._began + self._size / BYTES_PER_SECOND
        is_late = (
            time.monotonic() + seconds + REPLY_SECONDS / 2
            > min(self._progress, longest) + GIVE_UP_SECONDS
        )
        # Without the right a further try could take what is left half-written for this call's own.
        if is_late or is_missing_right(error) or is_unreplicated(error):
            error.outcome = "refused" if self.lost is None else "unknown"
            raise error
        await asyncio.sleep(seconds)


@contextmanager
def _no_client_errors(url: str) -> Iterator[None]:
    """Let an error reply that a script gave become an error of ours: no producer meets those of the
    client library.
    """
    try:
        yield
    except ResponseError as error:
        raise unexpected(error, url) from error


def _ended_by(error: BaseException) -> StoreUnavailable:
    return StoreUnavailable(f"the write was ended by {type(error).__name__}", outcome="unknown")


def _tell(part: _Part, written: Sequence[Written]) -> None:
    if not part.done.done():
        part.done.set_result(written)


def _fail(parts: Iterable[_Part], error: Exception) -> None:
    for part in parts:
        _tell(part, [error] * len(part.jobs))


def _cancelled_note(queue: str, count: int, written: int, part: _Part) -> str:
    """What became of the jobs of an `enqueue_many` that was cancelled while it wrote a part of
    them.
    """
    unknown = [job.id for job in part.jobs] if part.sent else []
    unsent = count - written - len(unknown)
    note = f"of {count} jobs of queue {queue!r}, {written} are written and {unsent} were not sent"
    return note + (f"; these may be written: {', '.join(unknown)}" if unknown else "")


class RedisJobScheduler(JobScheduler):
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
        tries_all: As for `JobChecks`.
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
        tries_all: bool = False,
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
            enqueuing=relay.enqueuing,
            tries_all=tries_all,
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
        with suppress(RuntimeError):  # made without a loop: it is bound to that of its first call
            self._loop = asyncio.get_running_loop()

    async def close(self) -> None:
        """Wait for what is being written and close the connections. A later call is refused.

        Raises:
            SchedulerUnusable: Called in another event loop.
        """
        if self._closed or self._forks != forks():  # all of it is the parent's
            return
        self.ensure_usable()
        self._closed = True
        for writer in self._writers.values():
            await writer.close()
        self._writers.clear()

    def ensure_usable(self) -> None:
        """Refuse a call that would wait for ever: what answers it is in another event loop, or in
        another process.

        Raises:
            SchedulerUnusable: Closed, made in another event loop, or made before this process was
            forked.
        """
        if self._forks != forks():
            raise SchedulerUnusable(
                "this scheduler was connected before the process was forked, and is the parent's",
                hint="connect in the child, or use corral.connect_blocking(), which connects again by itself",
            )
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise SchedulerUnusable(
                "this scheduler belongs to another event loop, the one in which it was connected",
                hint="connect once per event loop, or use corral.connect_blocking(), which needs none",
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

    def _leave_to_outbox(self, queue: Queue[Any], jobs: Sequence[CheckedJob]) -> None:  # noqa: ARG002  # as in the port
        self._note_use(queue.name)

    async def _keep_schedule(self, queue: Queue[Any], schedule: CheckedSchedule) -> datetime:
        self.ensure_usable()
        self._note_use(queue.name)
        new = NewSchedule(schedule.id, queue.name, schedule.data, queue.options, schedule.when)
        schedules = Schedules(self._writer(queue).store)
        try:
            with _no_client_errors(self._url):
                _, next_ms = await call_again(lambda: schedules.ensure(new))
        except ValueError as error:
            raise JobRefused(f"schedule {schedule.id!r} cannot be kept: {error}") from None
        return datetime.fromtimestamp(next_ms / 1000, UTC)

    async def _end_schedule(self, schedule_id: str) -> bool:
        self.ensure_usable()
        kept = [Schedules(self._writer(entry.queue).store) for entry in self._catalog]
        removed = False
        with _no_client_errors(self._url):
            # Whether there is one is asked before: a removal whose reply is lost may be repeated
            # then.
            there = await asyncio.gather(*(_has(schedules, schedule_id) for schedules in kept))
            for schedules in kept:
                try:
                    removed |= await call_again(partial(schedules.remove, schedule_id))
                except StoreUnavailable as error:
                    if removed and error.outcome == "refused":
                        error.outcome = "partial"
                    raise
        return removed or any(there)

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


async def _has(schedules: Schedules, schedule_id: str) -> bool:
    """Whether a queue has a schedule; one whose keys are damaged can be ended, too."""
    try:
        return await schedules.get(schedule_id) is not None
    except ResponseError:
        return True
