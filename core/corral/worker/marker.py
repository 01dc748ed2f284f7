"""`Marker`: waits for the queue's wake-up signal (wire § 5.4).

It has a connection of its own, which is named after the worker. One pop wakes one worker and
removes the marker. The worker that popped it must fetch, or put it back: otherwise jobs wait
although there are idle workers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from corral.errors import StoreUnavailable
from corral.store.connection import BLOCK_SECONDS, Link
from corral.store.keys import MARKER
from corral.store.queue_store import QueueStore
from corral.store.replies import ResponseError
from corral.tasks import end_tasks, start_task
from corral.worker.outage import Backoff, Outage

__all__ = ["Marker"]


class Marker:
    """One worker's view of one queue's marker.

    Args:
        lanes: The queue, by the consumer's connections. All are closed when the connection for
            blocking commands breaks: they may be broken as well, without having noticed.
        link: The connection for blocking commands.
        outage: Receives failures of the store.
        on_signal: Called when there may be jobs: a marker came, or the wait ended without one.
    """

    def __init__(
        self, lanes: Sequence[QueueStore], link: Link, outage: Outage, on_signal: Callable[[], None]
    ) -> None:
        self._lanes = lanes
        self._store = lanes[0]
        self._link = link
        self._backoff = Backoff(outage)
        self._on_signal = on_signal
        self._wanted = asyncio.Event()
        self._held = False
        self._waiting: asyncio.Task[None] | None = None

    @property
    def held(self) -> bool:
        """Whether a marker was taken and nothing was fetched since."""
        return self._held

    def start(self) -> None:
        """Start the task that waits."""
        self._waiting = start_task(self._wait(), f"corral-marker-{self._store.queue}")

    def want(self) -> None:
        """Wait for the marker, once."""
        self._wanted.set()

    def release(self) -> None:
        """Forget a held marker, and wait for no other: a fetch is being sent."""
        self._wanted.clear()
        self._held = False

    async def put_back(self) -> None:
        """Put a held marker back for other workers.

        If this fails, they wake up when their blocking pop ends; no job is lost.
        """
        if self._held:
            self._held = False
            with suppress(StoreUnavailable, ResponseError):
                await self._store.signal()

    async def stop(self) -> None:
        """Stop waiting, and put back a held marker."""
        if self._waiting is not None:
            await end_tasks([self._waiting])
            self._waiting = None
            await self.put_back()

    async def close(self) -> None:
        """Close the connection for blocking commands, and the queue's."""
        await self._link.close()
        for lane in self._lanes:
            await lane.close()

    async def _wait(self) -> None:
        while True:
            await self._wanted.wait()
            try:
                popped = await self._link.call("BZPOPMIN", self._store.base + MARKER, BLOCK_SECONDS)
            except asyncio.CancelledError:
                self._held = True  # an interrupted wait may have taken it
                raise
            except StoreUnavailable as error:
                for lane in self._lanes:
                    await lane.close()
                await self._backoff.wait_after(error)
            except ResponseError:  # the key has another type
                self._backoff.report_answer()
                with suppress(StoreUnavailable, ResponseError):
                    await self._store.mend()
                await self._backoff.wait()
            else:
                self._backoff.report_success()
                self._held |= popped is not None
            self._wanted.clear()
            self._on_signal()
