"""`Desk`: what a handler works with. One per process behind it, opened by the first request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, replace

from corral.app.installed import Installed, read_installed
from corral.app.operating import inspector
from corral.app.producing import scheduler
from corral.board.exchange import Answer, Page, Redirect, Request, Stream
from corral.board.identity import Identity
from corral.catalog import Catalog
from corral.inspector import JobInspector
from corral.jobs import JobScheduler
from corral.store.embedded import chosen_store

__all__ = ["Desk", "DeskDrawer", "Handler"]


@dataclass(frozen=True, slots=True, eq=False)
class Desk:
    """What a handler works with.

    Attributes:
        installed: Settings, plugins, catalog.
        inspector: Looks at jobs and changes them, in the name of whoever asks.
        jobs: Enqueues.
    """

    installed: Installed
    inspector: JobInspector
    jobs: JobScheduler

    @property
    def catalog(self) -> Catalog:
        """The queues."""
        return self.installed.catalog


Handler = Callable[[Request, Desk], Awaitable[Page | Redirect | Answer | Stream]]


class DeskDrawer:
    """Opens what handlers work with, once, and closes it.

    Args:
        url: The store, where the settings do not say it.
    """

    def __init__(self, url: str | None = None) -> None:
        self._url = url
        self._installed: Installed | None = None
        self._desk: Desk | None = None
        self._opening = asyncio.Lock()
        self._opened = AsyncExitStack()

    def read(self) -> None:
        """Build the catalog.

        Raises:
            CatalogError: The installed plugins do not make one.
        """
        self._installed = read_installed()

    async def desk(self, identity: Identity) -> Desk:
        """The desk, for somebody.

        Raises:
            StoreUnavailable: There is no store.
        """
        async with self._opening:
            if self._desk is None:
                self._desk = await self._open()
        return replace(self._desk, inspector=self._desk.inspector.acting_as(identity.name))

    async def _open(self) -> Desk:
        installed = self._installed or read_installed()
        async with AsyncExitStack() as opened:
            url = self._url
            if url is None:
                store = ExitStack()
                opened.callback(store.close)
                url = await asyncio.to_thread(store.enter_context, chosen_store(installed.settings))
            looking = await opened.enter_async_context(inspector(installed, url))
            jobs = await opened.enter_async_context(scheduler(installed, url))
            self._opened = opened.pop_all()
        return Desk(installed, looking, jobs)

    async def close(self) -> None:
        """Close the connections; a later request opens them again."""
        self._desk = None
        await self._opened.aclose()
