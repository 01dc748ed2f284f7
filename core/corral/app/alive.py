"""What a worker process does besides its work: it gives signs of life, and notices when its parent is gone."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import structlog

from corral.errors import StoreUnavailable
from corral.settings import Settings
from corral.store.connection import Link
from corral.store.liveness import Sign, Signs
from corral.store.replies import ResponseError
from corral.tasks import start_task
from corral.worker.stopping import end_tasks
from corral.worker.worker import Worker

__all__ = ["DRAIN_MARGIN_SECONDS", "alive", "bound_to_parent", "signs_of_life"]

log = structlog.get_logger("corral")

SIGN_SECONDS = 3.0
"""How often a process gives a sign of life."""
DRAIN_MARGIN_SECONDS = 10.0
"""How much longer than its shutdown timeout a worker may take to end: it cancels, writes, and closes its resources."""


@asynccontextmanager
async def alive(worker: Worker, url: str, prefix: str) -> AsyncIterator[Link]:
    """Give signs of a worker's life while it runs; yields the connection, for what else is told now and then."""

    def sign() -> Sign:
        return Sign(worker.silent_seconds, draining=worker.is_stopping, troubles=tuple(worker.all_troubles.values()))

    async with signs_of_life(worker.name, sign, url, prefix) as link:
        yield link


@asynccontextmanager
async def signs_of_life(name: str, sign: Callable[[], Sign], url: str, prefix: str) -> AsyncIterator[Link]:
    """Write a process's sign again and again, and remove it in the end; one that cannot be written is not missed."""
    link = Link(url)
    signs = Signs(link, prefix)

    async def write() -> None:
        is_refused = False
        while True:
            try:
                await signs.write(name, sign())
                is_refused = False
            except StoreUnavailable:
                pass  # the worker tells
            except ResponseError as error:
                if not is_refused:
                    told = "signs of life are refused by the store, so that this process seems gone"
                    log.warning(told, error=str(error))
                is_refused = True
            await asyncio.sleep(SIGN_SECONDS)

    writing = start_task(write(), "corral-alive")
    try:
        yield link
    finally:
        await end_tasks([writing])
        with suppress(StoreUnavailable, ResponseError):
            await signs.remove(name)
        await link.close()


@contextmanager
def bound_to_parent(worker: Worker, settings: Settings) -> Iterator[None]:
    """Stop the worker when the other end of standard input is closed: the parent says so, or it is gone.

    A pipe and not a signal: it tells both, on every system, and cannot be counted as a second signal where a service
    manager signals the parent and its children at once. What is run by jobs reads an empty standard input.
    """
    line = os.dup(0)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    loop = asyncio.get_running_loop()

    def wait() -> None:
        os.read(line, 1)
        with suppress(RuntimeError):  # the loop has ended by itself
            loop.call_soon_threadsafe(worker.stop)
        # A processor may hold the loop, or a thread, for ever. A parent that lives will see to it; nobody else would.
        time.sleep(settings.worker.shutdown_timeout_seconds + DRAIN_MARGIN_SECONDS)
        os._exit(5)

    threading.Thread(target=wait, name="corral-parent", daemon=True).start()
    yield
