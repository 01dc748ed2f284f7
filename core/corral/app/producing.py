"""Producers: `connect` and its blocking twin, and what a process tells the others."""

from __future__ import annotations

import asyncio
import atexit
import logging
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    suppress,
)
from dataclasses import dataclass
from typing import Any, Final

from corral.app.installed import Installed, log_lock, read_installed
from corral.blocking import BlockingJobScheduler
from corral.catalog.record import differences, dumped, parsed, recorded
from corral.catalog.unserved import unserved
from corral.embedded.server import chosen_store
from corral.errors import SchedulerUnusable, StoreUnavailable
from corral.fleet.processes import ProcessRecords, process_name
from corral.forking import forks, leave_alone, on_fork
from corral.jobs import Durability, JobScheduler
from corral.loggers import Logger
from corral.producer import RedisJobScheduler
from corral.store.connection import Link
from corral.store.replies import ResponseError
from corral.tasks import start_task
from corral.worker.stopping import end_tasks

__all__ = ["announced", "connect", "connect_blocking", "scheduler", "watching_workers"]

log = Logger("corral")

OPEN_SECONDS: Final = 330.0
"""How long a blocking producer waits for its connection: longer than an embedded store may take to
read its files.
"""
CLOSE_SECONDS: Final = 30.0
"""How long leaving `connect_blocking` may take: other threads' calls end within seconds, and the
embedded store, where this was its last user, within ten.
"""
EXIT_SECONDS: Final = 2.0
"""How long a program that ends may wait for a blocking producer that was never left.

The store forgets it by itself.
"""


class connect(AbstractAsyncContextManager[RedisJobScheduler]):  # noqa: N801  # called as the function it stands for
    """Connect a producer; see `corral.connect`.

    What it opens is held by a task and not by this object: it stays open when only the scheduler is
    kept, and is closed in order where it is never left, as `asyncio.run` cancels the tasks that are
    left over.

    Args:
        durability: As for `corral.connect`.
        installed: What is installed, where it was read before.
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
        if (
            self._holding.done() or self._forks != forks()
        ):  # closed as the event loop ended, or the parent's to close
            return
        try:
            self._jobs.ensure_usable()
        except SchedulerUnusable:
            if raised[0] is not None:
                return  # what was raised says more
            raise
        self._leaving.set()
        await self._holding


def _read() -> Installed:
    """What is installed, for a producer."""
    installed = read_installed()
    log_lock(installed, level=logging.INFO)  # it may start for a single job
    return installed


_held: set[asyncio.Task[None]] = set()
"""The tasks of what is connected: an event loop itself holds its tasks weakly."""
leave_alone(_held)


async def _hold(
    installed: Installed | None,
    durability: Durability | None,
    opened: asyncio.Future[RedisJobScheduler],
    leaving: asyncio.Event,
) -> None:
    """Keep a producer open until it is left."""
    installed = installed or _read()
    with chosen_store(installed.settings) as url:
        async with (
            watching_workers(installed, url) as used,
            scheduler(installed, url, used, durability=durability) as jobs,
            announced(installed, url),
        ):
            opened.set_result(jobs)
            await leaving.wait()


class connect_blocking(AbstractContextManager[BlockingJobScheduler]):  # noqa: N801  # as above
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

    The thread is a daemon and nothing is closed by the garbage collector: a program that never
    leaves `connect_blocking` ends in time, and is tidied up after as far as `EXIT_SECONDS` allow.

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
        """In a forked child: there is no thread and no connection; the next call makes both."""
        inherited, self._connected = self._connected, None
        self._turn = threading.Lock()  # a thread that only the parent has may hold the other one
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
                "a blocking scheduler is called on its own event loop, by a subscriber of corral_enqueuing for one"
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
            except BaseException as error:  # noqa: BLE001  # raised where it is waited for
                if not connecting.done():
                    connecting.set_exception(error)

        threading.Thread(target=run, name="corral-producer", daemon=True).start()
        try:
            return connecting.result(OPEN_SECONDS)
        except TimeoutError as error:
            raise StoreUnavailable(f"no connection was made within {OPEN_SECONDS:g} s") from error


@dataclass(frozen=True, slots=True)
class _Connected:
    """What a blocking scheduler has in one process.

    Attributes:
        jobs: Runs on the loop.
        loop: The event loop that the thread runs.
        leaving: Set on the loop to close it all.
        thread: The thread.
    """

    jobs: RedisJobScheduler
    loop: asyncio.AbstractEventLoop
    leaving: asyncio.Event
    thread: threading.Thread


@asynccontextmanager
async def scheduler(
    installed: Installed,
    url: str,
    on_first_job: Callable[[str], object] | None = None,
    *,
    durability: Durability | None = None,
) -> AsyncIterator[RedisJobScheduler]:
    """The producer of a process, closed on leaving.

    Args:
        installed: What is installed.
        url: The store.
        on_first_job: As for `RedisJobScheduler`.
        durability: As for `corral.connect`.
    """
    settings = installed.settings
    jobs = RedisJobScheduler(
        installed.catalog,
        installed.plugins.relay,
        url=url,
        prefix=settings.prefix,
        max_payload_bytes=settings.max_payload_bytes,
        durability=durability,
        on_first_job=on_first_job,
        tries_all=settings.is_development,
    )
    try:
        yield jobs
    finally:
        await jobs.close()


@asynccontextmanager
async def announced(
    installed: Installed, url: str, name: str | None = None, *, look: asyncio.Event | None = None
) -> AsyncIterator[str]:
    """Keep this process's catalog in the store while it lives, and warn of others that run
    something else.

    Args:
        installed: What it runs.
        url: The store.
        name: This process's name, unique among all; made up where it is None.
        look: Set when the store may have lost the catalog; without it, that is found within a
        minute.

    Yields:
        The name.
    """
    name = name or process_name()
    own = recorded(installed.catalog, 0)

    def tell(others: dict[str, bytes]) -> None:
        for warning in differences(own, {process: parsed(raw) for process, raw in others.items()}):
            log.warning(warning)

    records = ProcessRecords(Link(url), installed.settings.prefix, name)
    keeping = start_task(
        records.keep(lambda now_ms: dumped(recorded(installed.catalog, now_ms)), tell, look),
        "corral-catalog",
    )
    try:
        yield name
    finally:
        await end_tasks([keeping])


@asynccontextmanager
async def watching_workers(installed: Installed, url: str) -> AsyncIterator[Callable[[str], None]]:
    """Warn where this process enqueues to a queue that no worker serves, of Corral or of another
    client.

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
            with suppress(StoreUnavailable, ResponseError):  # who cannot be asked is not accused
                others = (await ProcessRecords(link, prefix, "").others()).values()
                for warning in await unserved(queues, [own, *map(parsed, others)], link, prefix):
                    log.warning(warning)

    looking = start_task(look(), "corral-unserved")
    try:
        yield used.put_nowait
    finally:
        await end_tasks([looking])
        await link.close()
