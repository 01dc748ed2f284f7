"""`BoardContext`: what a handler works with.

One per process behind it, opened by the first request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from corral.app.installed import Installed, read_installed, read_usable_plugins
from corral.app.operating import inspector
from corral.app.producing import scheduler
from corral.board.identity import Identity
from corral.board.messages import Answer, Page, Redirect, Request, Stream
from corral.board.recent import Recent
from corral.catalog import Catalog
from corral.embedded.server import chosen_store
from corral.errors import Problem
from corral.fleet.minutes import Minute, read_minutes
from corral.fleet.processes import store_time_ms
from corral.inspector import JobInspector
from corral.jobs import JobScheduler
from corral.observe.metrics import render_metrics
from corral.queue import Queue
from corral.store.connection import Link

__all__ = ["BoardContext", "BoardContexts", "Handler", "OpenPages"]

MINUTES = 60
"""How far back the charts go."""


@dataclass(frozen=True, slots=True, eq=False)
class BoardContext:
    """What a handler works with.

    Attributes:
        installed: Settings, plugins, catalog.
        problems: Why something that is installed is not in the catalog.
        inspector: Looks at jobs and changes them, in the name of whoever asks.
        jobs: Enqueues.
        who: The name of whoever asks, for the audit log.
        recent: What was read a moment ago.
        open_pages: The streams of pages that are open in browsers.
        link: A connection of the board's own.
        ahead_seconds: How far the store's clock, in Unix seconds, is ahead of this process's
        monotonic one.
    """

    installed: Installed
    problems: tuple[Problem, ...]
    inspector: JobInspector
    jobs: JobScheduler
    who: str
    recent: Recent
    open_pages: OpenPages
    link: Link
    ahead_seconds: float

    @property
    def catalog(self) -> Catalog:
        """The queues."""
        return self.installed.catalog

    @property
    def now(self) -> datetime:
        """What the time is for the store."""
        return datetime.fromtimestamp(time.monotonic() + self.ahead_seconds, UTC)

    @property
    def prefix(self) -> str:
        """The first part of the keys."""
        return self.installed.settings.prefix

    async def minutes(self, queue: str) -> Sequence[Minute]:
        """How long jobs of a queue waited and ran, minute by minute of the last hour; one round
        trip.
        """
        return await read_minutes(self.link, self.prefix, queue, MINUTES)

    async def metrics(self) -> bytes:
        """The store's figures, for Prometheus; one round trip per queue."""
        return await render_metrics(self.link, self.prefix, self.inspector.queues)

    def queue(self, name: str) -> Queue[Any]:
        """A queue of the catalog.

        Raises:
            UnknownQueue: There is none of this name.
        """
        return self.catalog.get(name).queue


class OpenPages:
    """The pages that are open in browsers, each with a stream that tells it of changes.

    Attributes:
        count: How many there are.
        closing: Set when all are to end.
    """

    def __init__(self) -> None:
        self.count = 0
        self.closing = asyncio.Event()

    def close(self) -> None:
        """End them: a server that shuts down waits for them."""
        self.closing.set()

    @contextmanager
    def one_more(self) -> Iterator[OpenPages]:
        """Count a page while it is open."""
        self.count += 1
        try:
            yield self
        finally:
            self.count -= 1


Handler = Callable[[Request, BoardContext], Awaitable[Page | Redirect | Answer | Stream]]


class BoardContexts:
    """Opens what handlers work with, once, and closes it.

    Args:
        url: The store, where the settings do not say it.
    """

    def __init__(self, url: str | None = None) -> None:
        self._url = url
        self._installed: Installed | None = None
        self._problems: tuple[Problem, ...] = ()
        self._desk: BoardContext | None = None
        self._opening = asyncio.Lock()
        self._opened = AsyncExitStack()
        self._pages = OpenPages()

    def read(self, *, what_fits: bool) -> Installed:
        """Build the catalog.

        Args:
            what_fits: Whether to leave out what is broken, and tell why, instead of refusing all.

        Returns:
            What the board starts from.

        Raises:
            CatalogError: The installed plugins do not make one.
        """
        if what_fits:
            self._installed, self._problems = read_usable_plugins()
        else:
            self._installed = read_installed()
        return self._installed

    async def context(self, identity: Identity) -> BoardContext:
        """The context, for somebody.

        Raises:
            StoreUnavailable: There is no store.
        """
        async with self._opening:
            if self._desk is None:
                self._desk = await self._open()
        return replace(
            self._desk, inspector=self._desk.inspector.acting_as(identity.name), who=identity.name
        )

    async def metrics(self) -> bytes:
        """The store's figures, for Prometheus; one round trip per queue.

        Raises:
            StoreUnavailable: There is no store.
        """
        return await (await self.context(Identity("metrics"))).metrics()

    async def _open(self) -> BoardContext:
        installed = self._installed or read_installed()
        async with AsyncExitStack() as opened:
            url = self._url
            if url is None:
                store = ExitStack()
                opened.callback(store.close)
                url = await asyncio.to_thread(store.enter_context, chosen_store(installed.settings))
            looking = await opened.enter_async_context(inspector(installed, url))
            jobs = await opened.enter_async_context(scheduler(installed, url))
            link = Link(url)
            opened.push_async_callback(link.close)
            ahead_seconds = await store_time_ms(link) / 1000 - time.monotonic()
            self._opened = opened.pop_all()
        return BoardContext(
            installed, self._problems, looking, jobs, "", Recent(), self._pages, link, ahead_seconds
        )

    def end_streams(self) -> None:
        """End the streams of open pages."""
        self._pages.close()

    async def close(self) -> None:
        """End the streams and close the connections; a later request opens them again."""
        self._pages.close()
        self._pages = OpenPages()
        self._desk = None
        await self._opened.aclose()
