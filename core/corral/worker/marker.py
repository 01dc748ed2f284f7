"""`Marker`: waits for the queue's wake-up signal (wire § 5.4), on a connection that is named after
the worker.

One pop wakes one worker and takes the marker away. Whoever popped it must fetch, or put it back:
otherwise jobs wait although there are idle workers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from corral.errors import StoreUnavailable
from corral.store.connection import BLOCK_SECONDS, Link
from corral.store.queue_store import QueueStore
from corral.store.replies import ResponseError
from corral.tasks import start_task
from corral.worker.outage import Backoff, Outage
from corral.worker.stopping import end_tasks

__all__ = ["Marker"]


class Marker:
    """One worker's view of one queue's marker.

    Args:
        lanes: The queue; all are closed when the own connection breaks: they may be as dead without
        anybody knowing.
        link: The own connection, for blocking commands.
        outage: Told when the store is away.
        on_signal: Called when there may be work: a marker came, or the wait ended without one.
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
        """Be ready to wait."""
        self._waiting = start_task(self._wait(), f"corral-marker-{self._store.queue}")

    def want(self) -> None:
        """Wait for the marker, once."""
        self._wanted.set()

    def fetching(self) -> None:
        """A fetch is made: it is what a held marker stood for, and no further one is wanted."""
        self._wanted.clear()
        self._held = False

    async def put_back(self) -> None:
        """Leave a held marker to others.

        Without it they wait for the end of their block; no job is lost.
        """
        if self._held:
            self._held = False
            with suppress(StoreUnavailable, ResponseError):
                await self._store.signal()

    async def stop(self) -> None:
        """Wait no more."""
        if self._waiting is not None:
            await end_tasks([self._waiting])
            self._waiting = None
            await self.put_back()

    async def close(self) -> None:
        """Close the own connection and the queue's."""
        await self._link.close()
        for lane in self._lanes:
            await lane.close()

    async def _wait(self) -> None:
        while True:
            await self._wanted.wait()
            try:
                popped = await self._link.call(
                    "BZPOPMIN", f"{self._store.base}marker", BLOCK_SECONDS
                )
            except asyncio.CancelledError:
                self._held = True  # an interrupted wait may have taken it
                raise
            except StoreUnavailable as error:
                for lane in self._lanes:
                    await lane.close()
                await self._backoff.failed(error)
            except ResponseError:  # something else stands there
                self._backoff.answered()
                with suppress(StoreUnavailable, ResponseError):
                    await self._store.mend()
                await self._backoff.wait()
            else:
                self._backoff.succeeded()
                self._held |= popped is not None
            self._wanted.clear()
            self._on_signal()
