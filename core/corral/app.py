"""The composition root: settings, then plugins, then the catalog, then the store. Everything else is handed its parts.

`connect` is a producer's front door; the functions below it are what the commands do.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, overload

import structlog
from typing_extensions import Unpack

from corral.catalog import Catalog, Role
from corral.catalog.record import differences, dumped, parsed, recorded
from corral.errors import ConfigurationError
from corral.job import P
from corral.jobs import Enqueued, EnqueueOptions
from corral.observe.logs import configure_logs
from corral.plugins import Claim, Plugins, found
from corral.producer import RedisJobScheduler
from corral.queue import Queue
from corral.settings import Settings
from corral.store.connection import Link
from corral.store.embedded import chosen_store
from corral.store.processes import ProcessRecords, eviction_policy, process_name
from corral.store.queue_store import QueueStore
from corral.worker.stopping import end_tasks
from corral.worker.worker import Stopped, Worker

__all__ = [
    "BlockingJobScheduler",
    "Installed",
    "calm_collector",
    "connect",
    "connect_blocking",
    "count_jobs",
    "enqueue_once",
    "read_installed",
    "run_worker",
]

log = structlog.get_logger("corral")


@dataclass(frozen=True, slots=True, eq=False)
class Installed:
    """What a process starts from.

    Attributes:
        settings: The environment's word.
        plugins: What is installed and loaded.
        catalog: The queues, checked.
    """

    settings: Settings
    plugins: Plugins
    catalog: Catalog


def read_installed(role: Role = "producer", serves: Iterable[str] | None = None) -> Installed:
    """Read the settings, load the plugins, build the catalog.

    Args:
        role: What this process needs of the plugins; see `Catalog.build`.
        serves: In a worker, the queues it serves; None for all.

    Raises:
        ConfigurationError: A setting cannot be used.
        CatalogError: The plugins do not make a catalog.
        UnknownQueue: `serves` names a queue that nobody declares.
    """
    settings, plugins = read_plugins()
    return Installed(settings, plugins, Catalog.build(plugins, role=role, serves=serves))


def read_plugins() -> tuple[Settings, Plugins]:
    """Read the settings and load the plugins, without judging them.

    Raises:
        ConfigurationError: A setting cannot be used.
    """
    settings = Settings.read({claim.name for claim in found() if isinstance(claim, Claim)})
    return settings, Plugins.load(application=settings.app, disabled=settings.disabled_plugins)


@asynccontextmanager
async def connect() -> AsyncIterator[RedisJobScheduler]:
    """Connect a producer; see `corral.connect`."""
    installed = read_installed()
    with chosen_store(installed.settings) as url:
        async with _scheduler(installed, url) as jobs, _announced(installed, url):
            yield jobs


class BlockingJobScheduler:
    """A `JobScheduler` for threads: the same calls, which block.

    Args:
        jobs: Runs on `loop`.
        loop: An event loop that another thread runs.
    """

    def __init__(self, jobs: RedisJobScheduler, loop: asyncio.AbstractEventLoop) -> None:
        self._jobs = jobs
        self._loop = loop

    @overload
    def enqueue(self, queue: Queue[P], payload: P, **options: Unpack[EnqueueOptions]) -> Enqueued: ...

    @overload
    def enqueue(
        self, queue: Queue[Any] | str, payload: Mapping[str, Any], **options: Unpack[EnqueueOptions]
    ) -> Enqueued: ...

    def enqueue(self, queue: Queue[Any] | str, payload: Any, **options: Unpack[EnqueueOptions]) -> Enqueued:
        """Write one job; see `JobScheduler.enqueue`."""
        return asyncio.run_coroutine_threadsafe(self._jobs.enqueue(queue, payload, **options), self._loop).result()

    @overload
    def enqueue_many(
        self, queue: Queue[P], payloads: Iterable[P], **options: Unpack[EnqueueOptions]
    ) -> Sequence[Enqueued]: ...

    @overload
    def enqueue_many(
        self, queue: Queue[Any] | str, payloads: Iterable[Mapping[str, Any]], **options: Unpack[EnqueueOptions]
    ) -> Sequence[Enqueued]: ...

    def enqueue_many(
        self, queue: Queue[Any] | str, payloads: Iterable[Any], **options: Unpack[EnqueueOptions]
    ) -> Sequence[Enqueued]:
        """Write many jobs of one queue; see `JobScheduler.enqueue_many`."""
        written = self._jobs.enqueue_many(queue, payloads, **options)
        return asyncio.run_coroutine_threadsafe(written, self._loop).result()


@contextmanager
def connect_blocking() -> Iterator[BlockingJobScheduler]:
    """Connect a producer that has no event loop; see `corral.connect_blocking`."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        entered = connect()
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


def enqueue_once(queue: str, payload: Mapping[str, Any], options: EnqueueOptions) -> Enqueued:
    """Write one job, from the command line.

    Raises:
        CorralError: The name, the payload or an option was refused, or there is no store.
    """
    installed = read_installed()
    installed.catalog.get(queue).queue.validated(payload)  # before a store is looked for, or even started
    with chosen_store(installed.settings) as url:

        async def write() -> Enqueued:
            async with _scheduler(installed, url) as jobs:
                return await jobs.enqueue(queue, payload, **options)

        return asyncio.run(write())


def count_jobs() -> dict[str, dict[str, int]]:
    """How many jobs are in each state, by queue.

    Raises:
        CorralError: The catalog was refused, or there is no store.
    """
    installed = read_installed()
    with chosen_store(installed.settings) as url:

        async def count() -> dict[str, dict[str, int]]:
            link = Link(url)
            try:
                return {
                    name: await QueueStore(link, installed.settings.prefix, name).counts()
                    for name in installed.catalog.entries
                }
            finally:
                await link.close()

        return asyncio.run(count())


def run_worker(
    served: Mapping[str, int | None],
    *,
    burst: bool = False,
    concurrency: int | None = None,
    shutdown_timeout_seconds: float | None = None,
    development: bool = False,
) -> tuple[int, int]:
    """Work off queues until stopped.

    Args:
        served: The queues, each with its concurrency or None; all that are installed where it is empty.
        burst: Whether to end when nothing waits and nothing runs.
        concurrency: Overrides every queue's own.
        shutdown_timeout_seconds: Overrides the setting.
        development: Whether to start an embedded store where none is named.

    Returns:
        The exit code, and how many processors still run: whoever gets more than none must end the process itself.

    Raises:
        CorralError: The process must not start.
    """
    installed = read_installed("worker", served or None)
    settings = installed.settings
    configure_logs(settings)
    for warning in installed.plugins.warnings:
        log.warning(warning)
    if not installed.catalog.served:
        raise ConfigurationError(
            "no queues are installed: there is nothing to work off", hint="pip install corral-emails, for one"
        )
    for entry in installed.catalog:
        if entry.processor is not None and entry.queue.schedule is not None:
            log.warning("this release does not run schedules yet", queue=entry.queue.name)
    overrides = {name: number or concurrency for name, number in served.items()}
    if not served and concurrency:
        overrides = dict.fromkeys(installed.catalog.served, concurrency)
    if shutdown_timeout_seconds is not None:
        worker = settings.worker.model_copy(update={"shutdown_timeout_seconds": shutdown_timeout_seconds})
        settings = settings.model_copy(update={"worker": worker})
        installed = Installed(settings, installed.plugins, installed.catalog)
    with chosen_store(settings, implied_development=development) as url:
        if development:
            log.info("store", url=url, data_dir=str(settings.data_dir))
        limits = {name: number for name, number in overrides.items() if number}
        lenient = development or settings.is_development
        calm_collector()
        with ExitStack() as ending:
            runner = ending.enter_context(asyncio.Runner())
            stopped = runner.run(_work(installed, url, limits, burst=burst, lenient=lenient))
            if stopped.stuck:
                ending.pop_all()  # closing the runner would wait for what does not end
    return (0 if stopped.in_order else 5), stopped.stuck


def calm_collector() -> None:
    """Make the garbage collector of a worker's process rare: at its defaults it took an eighth of the time.

    What is loaded by now stays for good, so it is never looked at again; and a job leaves no cycles behind, so that
    young objects need not be looked at after every 700 of them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


async def _work(
    installed: Installed, url: str, concurrency: Mapping[str, int], *, burst: bool, lenient: bool
) -> Stopped:
    settings, catalog = installed.settings, installed.catalog
    await _check_store(url, lenient=lenient)
    async with _scheduler(installed, url) as jobs, _announced(installed, url) as name:
        structlog.contextvars.bind_contextvars(worker=name)
        worker = Worker(
            [entry.processor for entry in catalog if entry.processor is not None],
            url=url,
            prefix=settings.prefix,
            settings=settings.worker,
            plugins=installed.plugins,
            jobs=jobs,
            concurrency=concurrency,
            burst=burst,
            name=name,
        )
        with _stopped_by_signals(worker):
            return await worker.run()


async def _check_store(url: str, *, lenient: bool) -> None:
    """Refuse a store that is away, or one that may throw away parts of jobs when its memory is full."""
    link = Link(url)
    try:
        policy = await eviction_policy(link)
    finally:
        await link.close()
    if policy not in {"", "noeviction"}:
        told = f"the store evicts keys when its memory is full (maxmemory-policy {policy}): jobs would be lost"
        if not lenient:
            raise ConfigurationError(told, hint="set maxmemory-policy noeviction in the store")
        log.warning(told)


@contextmanager
def _stopped_by_signals(worker: Worker) -> Iterator[None]:
    """The first SIGTERM or SIGINT stops the worker in order, the second ends the process.

    The handlers are the interpreter's, not the loop's: the second signal is for a processor that blocks the loop, too.
    """
    loop = asyncio.get_running_loop()
    asked: list[int] = []

    def stop(number: int, _frame: object) -> None:
        if asked:
            os._exit(128 + number)
        asked.append(number)
        loop.call_soon_threadsafe(worker.stop)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@asynccontextmanager
async def _scheduler(installed: Installed, url: str) -> AsyncIterator[RedisJobScheduler]:
    settings = installed.settings
    jobs = RedisJobScheduler(
        installed.catalog,
        installed.plugins.relay,
        url=url,
        prefix=settings.prefix,
        max_payload_bytes=settings.max_payload_bytes,
    )
    try:
        yield jobs
    finally:
        await jobs.close()


@asynccontextmanager
async def _announced(installed: Installed, url: str) -> AsyncIterator[str]:
    """Keep this process's catalog in the store while it lives, and warn of others that run something else.

    Yields:
        This process's name, unique among all.
    """
    name = process_name()
    own = recorded(installed.catalog, 0)

    def tell(others: dict[str, bytes]) -> None:
        for warning in differences(own, {process: parsed(raw) for process, raw in others.items()}):
            log.warning(warning)

    records = ProcessRecords(Link(url), installed.settings.prefix, name)
    keeping = asyncio.create_task(
        records.keep(lambda now_ms: dumped(recorded(installed.catalog, now_ms)), tell), name="corral-catalog"
    )
    try:
        yield name
    finally:
        await end_tasks([keeping])
