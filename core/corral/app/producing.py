"""Producers: `connect` and its blocking twin, and what producers and workers tell each other.

A process announces its catalog to others, and warns if no worker serves a queue that it uses.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    suppress,
)
from dataclasses import dataclass
from typing import Any, Final

from corral.app.child_process import keep_record
from corral.app.installed import Installed, log_lock, read_installed
from corral.blocking import BlockingJobScheduler
from corral.catalog.record import differences, dumped, parsed, recorded
from corral.catalog.unserved import warn_of_unserved
from corral.embedded.server import open_store
from corral.errors import SchedulerUnusable, StoreUnavailable
from corral.fleet.processes import OwnRecord, ProcessRecord, ProcessRecords, process_name
from corral.forking import forks, leave_alone, on_fork
from corral.jobs import Durability, JobScheduler
from corral.loggers import Logger
from corral.producer import RedisJobScheduler
from corral.store.connection import Link
from corral.store.replies import ResponseError
from corral.tasks import end_tasks, start_task

__all__ = ["announce_process", "connect", "connect_blocking", "open_scheduler", "watch_for_workers"]

log = Logger("corral")

OPEN_SECONDS: Final = 330.0
"""How long a blocking producer waits for its connection.

It is longer than an embedded store may take to read its files.
"""
CLOSE_SECONDS: Final = 30.0
"""How long leaving `connect_blocking` may take.

The calls of other threads end within seconds, and the embedded store, if this was its last user,
within ten.
"""
EXIT_SECONDS: Final = 2.0
"""How long a program that ends may wait for a blocking producer that was not closed.

The store drops the connection by itself.
"""


class connect(AbstractAsyncContextManager[RedisJobScheduler]):  # noqa: N801  # called like a function
    """Connect a producer; see `corral.connect`.

    A task holds what is opened, not this object. So it stays open if a program keeps only the
    scheduler, and is closed in order if the program never leaves the `with` block: `asyncio.run`
    cancels the tasks that are left over.

    Args:
        durability: As for `corral.connect`.
        installed: The installed plugins and settings, if they were read before.
    """

    def __init__(
        self, *, durability: Durability | None = None, installed: Installed | None = None
    ) -> None:
        self._durability = durability
        self._installed = installed
        self._forks: int
        self._leaving: asyncio.Event
        self._holding: asyncio.Task[None]
        self._jobs: RedisJobScheduler

    async def __aenter__(self) -> RedisJobScheduler:
        self._forks = forks()
        self._leaving = asyncio.Event()
        opened: asyncio.Future[RedisJobScheduler] = asyncio.get_running_loop().create_future()
        holding = start_task(
            _hold(self._installed, self._durability, opened, self._leaving), "corral-connection"
        )
        either: set[asyncio.Future[Any]] = {opened, holding}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not opened.done():
                holding.result()  # raises
        except BaseException:
            await end_tasks([holding])
            raise
        self._holding, self._jobs = holding, opened.result()
        _held.add(holding)
        holding.add_done_callback(_held.discard)
        return self._jobs

    async def __aexit__(self, *raised: object) -> None:
        # Closed when the event loop ended; or, in a forked child, for the parent to close.
        if self._holding.done() or self._forks != forks():
            return
        try:
            self._jobs.ensure_usable()
        except SchedulerUnusable:
            if raised[0] is not None:
                return  # the block's own exception is raised
            raise
        self._leaving.set()
        await self._holding


def _read() -> Installed:
    """Read the installed plugins and settings for a producer."""
    installed = read_installed()
    log_lock(installed, level=logging.INFO)  # not higher: the process may run for a single job
    return installed


_held: set[asyncio.Task[None]] = set()
"""The tasks that hold connections: an event loop has only weak references to its tasks."""
leave_alone(_held)


async def _hold(
    installed: Installed | None,
    durability: Durability | None,
    opened: asyncio.Future[RedisJobScheduler],
    leaving: asyncio.Event,
) -> None:
    """Keep a producer open until its `with` block is left."""
    installed = installed or _read()
    with open_store(installed.settings) as url:
        async with (
            watch_for_workers(installed, url) as used,
            open_scheduler(installed, url, used, durability=durability) as jobs,
            announce_process(installed, url),
        ):
            opened.set_result(jobs)
            await leaving.wait()


class connect_blocking(AbstractContextManager[BlockingJobScheduler]):  # noqa: N801  # called like a function
    """Connect a producer that has no event loop; see `corral.connect_blocking`."""

    def __init__(self, *, durability: Durability | None = None) -> None:
        self._durability = durability
        self._jobs: _ThreadedScheduler

    def __enter__(self) -> BlockingJobScheduler:
        self._jobs = _ThreadedScheduler(self._durability)
        return self._jobs

    def __exit__(self, *_raised: object) -> None:
        self._jobs.close(CLOSE_SECONDS)


class _ThreadedScheduler(BlockingJobScheduler):
    """Runs an event loop on a thread of its own, in each process that uses it.

    The thread is a daemon, and the garbage collector closes nothing. So a program that never leaves
    `connect_blocking` ends in time, and closes its connection as far as `EXIT_SECONDS` allow.

    Raises:
        CorralError: As `corral.connect`.
    """

    def __init__(self, durability: Durability | None) -> None:
        self._installed = _read()
        self._durability = durability
        self._closed = False
        self._connected: _Connected | None = None
        self._turn = threading.Lock()
        on_fork(self)
        self._connected = self._connect()
        atexit.register(self._exit)

    def leave_to_parent(self) -> None:
        """Drop the parent's thread and connection in a forked child; the next call connects."""
        inherited, self._connected = self._connected, None
        self._turn = threading.Lock()  # a thread of the parent may hold the inherited one
        if inherited is not None:
            leave_alone(inherited, asyncio.all_tasks(inherited.loop))

    def close(self, seconds: float) -> None:
        """Close the connection of this process, if it has one, within this time."""
        with self._turn:
            self._closed = True
            connected, self._connected = self._connected, None
        atexit.unregister(self._exit)
        if connected is not None:
            with suppress(RuntimeError):  # its loop has ended by itself
                connected.loop.call_soon_threadsafe(connected.leaving.set)
            connected.thread.join(seconds)

    def _exit(self) -> None:
        self.close(EXIT_SECONDS)

    def _target(self) -> tuple[JobScheduler, asyncio.AbstractEventLoop]:
        connected = self._connected
        if connected is None or not connected.thread.is_alive():
            with self._turn:
                if self._closed:
                    raise SchedulerUnusable(
                        "this scheduler is closed",
                        hint="call it before its `with` block is left, or connect again",
                    )
                if self._connected is None or not self._connected.thread.is_alive():
                    self._connected = self._connect()
                connected = self._connected
        if connected.thread is threading.current_thread():
            raise SchedulerUnusable(
                "a blocking scheduler is called on its own event loop, "
                "by an implementation of corral_enqueuing for example"
            )
        return connected.jobs, connected.loop

    def _connect(self) -> _Connected:
        connecting: Future[_Connected] = Future()

        async def serve() -> None:
            leaving = asyncio.Event()
            async with connect(durability=self._durability, installed=self._installed) as jobs:
                connecting.set_result(
                    _Connected(
                        jobs, asyncio.get_running_loop(), leaving, threading.current_thread()
                    )
                )
                await leaving.wait()

        def run() -> None:
            try:
                asyncio.run(serve())
            except BaseException as error:  # noqa: BLE001  # raised in the waiting thread
                if not connecting.done():
                    connecting.set_exception(error)

        threading.Thread(target=run, name="corral-producer", daemon=True).start()
        try:
            return connecting.result(OPEN_SECONDS)
        except TimeoutError as error:
            raise StoreUnavailable(f"no connection was made within {OPEN_SECONDS:g} s") from error


@dataclass(frozen=True, slots=True)
class _Connected:
    """The connection of a blocking scheduler in one process.

    Attributes:
        jobs: Runs on the loop.
        loop: The event loop that the thread runs.
        leaving: Set on the loop to close the connection.
        thread: The thread.
    """

    jobs: RedisJobScheduler
    loop: asyncio.AbstractEventLoop
    leaving: asyncio.Event
    thread: threading.Thread


@asynccontextmanager
async def open_scheduler(
    installed: Installed,
    url: str,
    on_first_job: Callable[[str], object] | None = None,
    *,
    durability: Durability | None = None,
) -> AsyncIterator[RedisJobScheduler]:
    """Open the producer of a process; it is closed on leaving.

    Args:
        installed: The installed plugins and settings.
        url: The store.
        on_first_job: As for `RedisJobScheduler`.
        durability: As for `corral.connect`.
    """
    settings = installed.settings
    jobs = RedisJobScheduler(
        installed.catalog,
        installed.plugins.job_hooks,
        url=url,
        prefix=settings.prefix,
        max_payload_bytes=settings.max_payload_bytes,
        durability=durability,
        on_first_job=on_first_job,
        proves_all=settings.is_development,
    )
    try:
        yield jobs
    finally:
        await jobs.close()


@asynccontextmanager
async def announce_process(
    installed: Installed, url: str, name: str | None = None
) -> AsyncIterator[OwnRecord]:
    """Keep this process's record in the store while it runs, and warn of differing processes.

    Args:
        installed: The installed plugins and settings.
        url: The store.
        name: This process's name, unique among all; None to make one.

    Yields:
        The record.
    """
    own = recorded(installed.catalog, 0)

    def warn(others: Mapping[str, ProcessRecord]) -> None:
        catalogs = {process: parsed(record.catalog) for process, record in others.items()}
        for warning in differences(own, catalogs):
            log.warning(warning)

    record = OwnRecord(
        Link(url),
        installed.settings.prefix,
        name or process_name(),
        catalog=lambda now_ms: dumped(recorded(installed.catalog, now_ms)),
        report=warn,
    )
    async with keep_record(record):
        yield record


@asynccontextmanager
async def watch_for_workers(installed: Installed, url: str) -> AsyncIterator[Callable[[str], None]]:
    """Warn if this process enqueues to a queue that no worker serves, of Corral or another client.

    Yields:
        A function to call with the name of each queue, when the process first enqueues to it.
    """
    used: asyncio.Queue[str] = asyncio.Queue()
    link, prefix = Link(url), installed.settings.prefix
    own = recorded(installed.catalog, 0)

    async def look() -> None:
        while True:
            queues = [await used.get()]
            while not used.empty():
                queues.append(used.get_nowait())
            with suppress(StoreUnavailable, ResponseError):  # without an answer, nothing is logged
                records = (await ProcessRecords(link, prefix).read()).values()
                catalogs = [own, *(parsed(each.catalog) for each in records)]
                for warning in await warn_of_unserved(queues, catalogs, link, prefix):
                    log.warning(warning)

    looking = start_task(look(), "corral-unserved")
    try:
        yield used.put_nowait
    finally:
        await end_tasks([looking])
        await link.close()
