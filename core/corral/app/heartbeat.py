"""What a worker process does besides its work: it gives heartbeats, and notices when its parent is
gone.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from corral.errors import StoreUnavailable
from corral.fleet.heartbeats import HEARTBEAT_SECONDS, Heartbeat, Heartbeats
from corral.loggers import Logger
from corral.shutdown import ask_to_hurry, ask_to_stop
from corral.store.connection import Link
from corral.store.replies import ResponseError
from corral.tasks import start_task
from corral.worker.stopping import end_tasks
from corral.worker.worker import Worker

__all__ = ["HURRY", "STOP", "alive", "sending_heartbeats", "stop_with_parent"]

log = Logger("corral")

STOP, HURRY = b"s", b"h"
"""What a parent writes to its workers' standard input: do what a first signal does, and what a
second one does.
"""


@asynccontextmanager
async def alive(worker: Worker, url: str, prefix: str) -> AsyncIterator[Link]:
    """Give heartbeats of a worker's life while it runs; yields the connection, for what else is
    told now and then.
    """

    def heartbeat() -> Heartbeat:
        return Heartbeat(
            worker.silent_seconds,
            draining=worker.is_stopping,
            troubles=tuple(worker.all_troubles.values()),
        )

    async with sending_heartbeats(worker.name, heartbeat, url, prefix) as link:
        yield link


@asynccontextmanager
async def sending_heartbeats(
    name: str, heartbeat: Callable[[], Heartbeat], url: str, prefix: str
) -> AsyncIterator[Link]:
    """Write a process's heartbeat again and again, and remove it in the end; one that cannot be
    written is not missed.
    """
    link = Link(url)
    heartbeats = Heartbeats(link, prefix)

    async def write() -> None:
        is_refused = False
        while True:
            try:
                await heartbeats.write(name, heartbeat())
                is_refused = False
            except StoreUnavailable:
                pass  # the worker tells
            except ResponseError as error:
                if not is_refused:
                    told = "heartbeats are refused by the store, so that this process seems gone"
                    log.warning(told, error=str(error))
                is_refused = True
            await asyncio.sleep(HEARTBEAT_SECONDS)

    writing = start_task(write(), "corral-alive")
    try:
        yield link
    finally:
        await end_tasks([writing])
        with suppress(StoreUnavailable, ResponseError):
            await heartbeats.remove(name)
        await link.close()


def stop_with_parent() -> None:
    """Stop this process when its parent says so on standard input, or is gone.

    A pipe and not a signal: it tells both, on every system, and cannot be counted as a second
    signal where a service manager signals the parent and its children at once. What is run by jobs
    reads an empty standard input.
    """
    line = os.dup(0)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)

    def read() -> None:
        while (asked := os.read(line, 1)) == STOP:
            ask_to_stop()
        if asked == HURRY:
            ask_to_hurry()
        ask_to_stop()

    threading.Thread(target=read, name="corral-parent", daemon=True).start()
