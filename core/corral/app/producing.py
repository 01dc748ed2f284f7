"""Producers: `connect` and its blocking twin, and what a process tells the others."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import structlog

from corral.app.installed import Installed, log_lock, read_installed
from corral.blocking import BlockingJobScheduler
from corral.catalog.record import differences, dumped, parsed, recorded
from corral.catalog.unserved import unserved
from corral.errors import StoreUnavailable
from corral.jobs import Durability
from corral.producer import RedisJobScheduler
from corral.store.connection import Link
from corral.store.embedded import chosen_store
from corral.store.processes import ProcessRecords, process_name
from corral.store.replies import ResponseError
from corral.tasks import start_task
from corral.worker.stopping import end_tasks

__all__ = ["announced", "connect", "connect_blocking", "scheduler", "watching_workers"]

log = structlog.get_logger("corral")


@asynccontextmanager
async def connect(*, durability: Durability | None = None) -> AsyncIterator[RedisJobScheduler]:
    """Connect a producer; see `corral.connect`."""
    installed = read_installed()
    log_lock(installed, level=logging.INFO)  # a producer may start for a single job
    with chosen_store(installed.settings) as url:
        async with (
            watching_workers(installed, url) as used,
            scheduler(installed, url, used, durability=durability) as jobs,
            announced(installed, url),
        ):
            yield jobs


@contextmanager
def connect_blocking(*, durability: Durability | None = None) -> Iterator[BlockingJobScheduler]:
    """Connect a producer that has no event loop; see `corral.connect_blocking`."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        entered = connect(durability=durability)
        thread = threading.Thread(target=loop.run_forever, name="corral-producer", daemon=True)
        thread.start()
        try:
            jobs = asyncio.run_coroutine_threadsafe(entered.__aenter__(), loop).result()
            try:
                yield BlockingJobScheduler(jobs, loop)
            finally:
                asyncio.run_coroutine_threadsafe(entered.__aexit__(None, None, None), loop).result()
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()


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
    """Keep this process's catalog in the store while it lives, and warn of others that run something else.

    Args:
        installed: What it runs.
        url: The store.
        name: This process's name, unique among all; made up where it is None.
        look: Set when the store may have lost the catalog; without it, that is found within a minute.

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
        records.keep(lambda now_ms: dumped(recorded(installed.catalog, now_ms)), tell, look), "corral-catalog"
    )
    try:
        yield name
    finally:
        await end_tasks([keeping])


@asynccontextmanager
async def watching_workers(installed: Installed, url: str) -> AsyncIterator[Callable[[str], None]]:
    """Warn where this process enqueues to a queue that no worker serves, of Corral or of another client.

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
