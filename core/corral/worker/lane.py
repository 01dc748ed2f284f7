"""`Lane`: one connection of a consumer, and the call to the store that is on its way through it.

A call survives an outage of the store: it is repeated under the same number on a new connection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

from corral.errors import StoreUnavailable
from corral.store.codec import Advanced, Ending, FetchedJob
from corral.store.queue_store import FETCH_BYTES, QueueStore
from corral.store.replies import ResponseError
from corral.worker.leases import PendingCall
from corral.worker.outage import Backoff, Outage

__all__ = ["Lane"]

T = TypeVar("T")

MAX_FETCH_BYTES = 16 * 1024 * 1024
"""Bytes of the jobs of one fetch on the fastest link.

The store takes about 20 ms to read them, and serves no other client meanwhile.
"""


class Lane:
    """One connection of a consumer. One call at a time goes through it.

    Attributes:
        store: The queue, by this connection.
        call: The task of the call that is on its way, or None.

    Args:
        store: The queue, by this connection.
        worker: The worker's name; unique among all workers.
        numbers: Numbers the calls of all lanes of the consumer: a lock's token has the number of
            the call that took it.
        lock_seconds: How long a lock lives without renewal.
        outage: Receives failures of the store.
    """

    def __init__(
        self,
        store: QueueStore,
        worker: str,
        numbers: Iterator[int],
        lock_seconds: float,
        outage: Outage,
    ) -> None:
        self.store = store
        self.call: asyncio.Task[None] | None = None
        self._worker = worker
        self._numbers = numbers
        self._lock_seconds = lock_seconds
        self._lock_ms = int(lock_seconds * 1000)
        self._backoff = Backoff(outage)

    @property
    def silent_seconds(self) -> float:
        """Seconds since the store answered, or during a reply, since a byte of it came."""
        return min(self._backoff.silent_seconds, self.store.unheard_seconds)

    @property
    def seconds_since_last_call(self) -> float:
        """Seconds since this lane's last call to the store was answered, or failed."""
        return self._backoff.seconds_since_last_call

    @property
    def failing_seconds(self) -> float:
        """For how many seconds all calls have failed; 0 if the last one has not."""
        return self._backoff.failing_seconds

    def next_call(self) -> PendingCall:
        """Return the next call, with a number of its own."""
        return PendingCall(self.store, self._worker, next(self._numbers), time.monotonic())

    async def advance(
        self,
        call: PendingCall,
        endings: Sequence[Ending],
        want: int,
        *,
        ticks: Callable[[], bytes],
        suspects: int,
        confirm_from: int,
    ) -> Advanced:
        """Finish jobs and fetch more: one call under one number, until the store answers it.

        Args:
            call: The result of `next_call`.
            endings: The jobs that ended.
            want: How many jobs to fetch at most.
            ticks: Returns the coming ticks of the queue's cron schedules; called at each try.
            suspects: As in `QueueStore.advance`.
            confirm_from: As in `QueueStore.advance`.

        Raises:
            ResponseError: The script failed.
        """
        sizes = self._fetch_sizes()

        async def once() -> Advanced:
            return await self.store.advance(
                self._worker,
                call.seq,
                endings,
                want,
                lock_ms=self._lock_ms,
                ticks=ticks(),
                suspects=suspects,
                confirm_from=confirm_from,
                max_bytes=next(sizes),
            )

        return await self.persist(once)

    async def renew(self, call: PendingCall, jobs: Sequence[FetchedJob]) -> Sequence[FetchedJob]:
        """Renew the locks of jobs that a call has fetched and that have not started.

        Args:
            call: The call; from when its jobs' locks live is recorded in it.
            jobs: Its jobs.

        Returns:
            The jobs whose lock is still held.

        Raises:
            ResponseError: The script failed.
        """

        async def once() -> tuple[float, list[FetchedJob]]:
            return time.monotonic(), await self.store.renew(jobs, self._lock_ms)

        sent, held = await self.persist(once)
        call.renewed = max(call.renewed, sent)
        return held

    async def persist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Repeat `attempt` until the store answers, and return its reply.

        Raises:
            ResponseError: The store answered with an error.
        """
        while True:
            try:
                reply = await attempt()
            except StoreUnavailable as error:
                await self._backoff.wait_after(error)
            except ResponseError:
                self._backoff.report_answer()
                raise
            else:
                self._backoff.report_success()
                return reply

    async def pause(self) -> None:
        """Wait before another try of a call that the store answered with an error."""
        await self._backoff.wait()

    def _fetch_sizes(self) -> Iterator[int]:
        """Yield how many bytes of jobs one fetch may bring, for each try of its call.

        It is what the link carries in a quarter of a lock's life. If the call must be repeated more
        than once, the size of its reply may be what breaks the link: later tries ask for less and
        less.
        """
        size = FETCH_BYTES
        if self.store.bytes_per_second is not None:
            size = min(int(self.store.bytes_per_second * self._lock_seconds / 4), MAX_FETCH_BYTES)
        yield size
        while True:
            yield size
            size = min(size // 2, FETCH_BYTES)
