"""`BoardContext`: what a page's handler works with; `BoardContexts` opens it once per process."""

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
from corral.app.producing import open_scheduler
from corral.board.identity import Identity
from corral.board.messages import BoardPage, BoardRequest, EventStream, RawBody, Redirect
from corral.board.read_cache import ReadCache
from corral.catalog import Catalog
from corral.embedded.server import open_store
from corral.errors import Problem
from corral.fleet.minutes import Minute, read_minutes
from corral.fleet.processes import store_time_ms
from corral.inspector import JobInspector, OrphanedQueues, OrphanSearch
from corral.inspector.orphans import declared_names
from corral.jobs import JobScheduler
from corral.observe.metrics import render_metrics
from corral.queue import Queue
from corral.store.connection import Link

__all__ = ["BoardContext", "BoardContexts", "Handler", "OpenPages"]

CHART_MINUTES = 60
"""How many minutes the charts of a queue's page show."""
ORPHAN_SECONDS = 10.0
"""How old the counts of queues that nobody declares may be: a page of them may cost 100 calls."""


@dataclass(frozen=True, slots=True, eq=False)
class BoardContext:
    """What a page's handler works with: the catalog, the store, and the name of the reader.

    Attributes:
        installed: Settings, plugins and catalog of this process.
        problems: Why something that is installed is not in the catalog.
        inspector: Reads and changes jobs; writes its changes to the audit log under `who`.
        jobs: Enqueues jobs.
        who: The reader's name in the audit log.
        cache: Answers of the store that several open pages share for a moment.
        open_pages: The event streams of pages that are open in browsers.
        link: A connection to the store of the board's own.
        orphan_search: Finds the queues in the store that nobody declares, in small steps.
        ahead_seconds: The store's clock in Unix seconds, minus this process's monotonic clock.
    """

    installed: Installed
    problems: tuple[Problem, ...]
    inspector: JobInspector
    jobs: JobScheduler
    who: str
    cache: ReadCache
    open_pages: OpenPages
    link: Link
    orphan_search: OrphanSearch
    ahead_seconds: float

    @property
    def catalog(self) -> Catalog:
        """The queues that are installed."""
        return self.installed.catalog

    @property
    def now(self) -> datetime:
        """The current time by the store's clock, in UTC."""
        return datetime.fromtimestamp(time.monotonic() + self.ahead_seconds, UTC)

    @property
    def prefix(self) -> str:
        """The first part of every key in the store, `CORRAL_PREFIX`."""
        return self.installed.settings.prefix

    async def read_chart_minutes(self, queue: str) -> Sequence[Minute]:
        """How long a queue's jobs waited and ran, per minute of the last hour; one round trip."""
        return await read_minutes(self.link, self.prefix, queue, CHART_MINUTES)

    async def read_orphans(self) -> OrphanedQueues:
        """The queues in the store that nobody declares, and their jobs, at most 10 s old."""
        return await self.cache.get(
            "orphans", lambda: self.orphan_search.read(self.link), seconds=ORPHAN_SECONDS
        )

    async def render_metrics(self) -> bytes:
        """The store's figures in Prometheus's text format; one round trip per queue."""
        return await render_metrics(
            self.link, self.prefix, self.inspector.queues, search=self.orphan_search
        )

    def queue(self, name: str) -> Queue[Any]:
        """The queue of that name in the catalog.

        Raises:
            UnknownQueue: The catalog has no such queue.
        """
        return self.catalog.get(name).queue


class OpenPages:
    """Counts the pages that are open in browsers; each holds a stream of server-sent events.

    Attributes:
        count: How many are open.
        closing: Set when all streams must end.
    """

    def __init__(self) -> None:
        self.count = 0
        self.closing = asyncio.Event()

    def close(self) -> None:
        """End all streams: a server that shuts down waits for them."""
        self.closing.set()

    @contextmanager
    def count_one(self) -> Iterator[OpenPages]:
        """Count one more page while inside."""
        self.count += 1
        try:
            yield self
        finally:
            self.count -= 1


Handler = Callable[
    [BoardRequest, BoardContext], Awaitable[BoardPage | Redirect | RawBody | EventStream]
]
"""Answers one route's requests."""


class BoardContexts:
    """Opens the store for handlers with the first request, and closes it.

    Args:
        url: The store's URL, where the settings do not name one.
    """

    def __init__(self, url: str | None = None) -> None:
        self._url = url
        self._installed: Installed | None = None
        self._problems: tuple[Problem, ...] = ()
        self._shared: BoardContext | None = None
        self._opening = asyncio.Lock()
        self._connections = AsyncExitStack()
        self._open_pages = OpenPages()

    def load_plugins(self, *, leave_out_broken: bool) -> Installed:
        """Load the plugins and build the catalog.

        Args:
            leave_out_broken: Whether a broken plugin is left out and shown on the catalog's page,
                instead of refusing the start.

        Returns:
            Settings, plugins and catalog of this process.

        Raises:
            CatalogError: The installed plugins do not make a catalog.
        """
        if leave_out_broken:
            self._installed, self._problems = read_usable_plugins()
        else:
            self._installed = read_installed()
        return self._installed

    async def open_context(self, identity: Identity) -> BoardContext:
        """The context for a reader; connects to the store if that has not happened yet.

        Raises:
            StoreUnavailable: The store cannot be reached.
        """
        async with self._opening:
            if self._shared is None:
                self._shared = await self._connect()
        return replace(
            self._shared,
            inspector=self._shared.inspector.acting_as(identity.name),
            who=identity.name,
        )

    async def render_metrics(self) -> bytes:
        """The store's figures in Prometheus's text format; one round trip per queue.

        Raises:
            StoreUnavailable: The store cannot be reached.
        """
        return await (await self.open_context(Identity("metrics"))).render_metrics()

    async def _connect(self) -> BoardContext:
        installed = self._installed or read_installed()
        async with AsyncExitStack() as opened:
            url = self._url
            if url is None:
                store = ExitStack()
                opened.callback(store.close)
                url = await asyncio.to_thread(store.enter_context, open_store(installed.settings))
            job_inspector = await opened.enter_async_context(inspector(installed, url))
            jobs = await opened.enter_async_context(open_scheduler(installed, url))
            link = Link(url)
            opened.push_async_callback(link.close)
            ahead_seconds = await store_time_ms(link) / 1000 - time.monotonic()
            self._connections = opened.pop_all()
        return BoardContext(
            installed=installed,
            problems=self._problems,
            inspector=job_inspector,
            jobs=jobs,
            who="",
            cache=ReadCache(),
            open_pages=self._open_pages,
            link=link,
            orphan_search=OrphanSearch(
                installed.settings.prefix, declared_names(installed.catalog)
            ),
            ahead_seconds=ahead_seconds,
        )

    def end_streams(self) -> None:
        """End the event streams of all open pages."""
        self._open_pages.close()

    async def close(self) -> None:
        """End the streams and close the connections; a later request opens them again."""
        self._open_pages.close()
        self._open_pages = OpenPages()
        self._shared = None
        await self._connections.aclose()
