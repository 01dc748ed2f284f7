"""The work of an operator's commands: without their arguments and their output, which `cli` has."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from corral.app.installed import Installed, read_installed
from corral.app.producing import open_scheduler
from corral.embedded.server import attach, open_store
from corral.errors import ConfigurationError, StoreUnavailable
from corral.inspector.audit import Audit, process_identity
from corral.inspector.damage import report_damage
from corral.jobs import Enqueued, EnqueueOptions
from corral.loggers import Logger
from corral.settings import Settings
from corral.store.connection import Link

if TYPE_CHECKING:
    from corral.inspector import JobInspector, OrphanedQueues, QueueSizes

__all__ = [
    "configure_command_logs",
    "count_jobs",
    "enqueue_once",
    "find_orphans",
    "inspector",
    "open_inspector",
    "operate",
]

T = TypeVar("T")

log = Logger("corral")

LOOK_SECONDS: Final = 5.0
"""How long `corral check` looks for orphaned queues: some ten million keys of a store nearby."""


@asynccontextmanager
async def inspector(
    installed: Installed, url: str, who: str | None = None
) -> AsyncIterator[JobInspector]:
    """The inspector of a process, closed on leaving.

    Args:
        installed: What the process starts from.
        url: The store.
        who: Whose name the audit gives to what it changes; see `JobInspector`.
    """
    from corral.inspector import JobInspector  # noqa: PLC0415  # 20 ms that `corral enqueue` need not wait for

    made = JobInspector(installed.catalog, Link(url), prefix=installed.settings.prefix, who=who)
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def open_inspector() -> AsyncIterator[JobInspector]:
    """Open the inspector of an operator's program; see `corral.open_inspector`."""
    installed = read_installed()
    with open_store(installed.settings) as url:
        async with inspector(installed, url) as made:
            yield made


def operate(work: Callable[[JobInspector], Coroutine[Any, Any, T]], *queues: str) -> T:
    """Run a command's work with an inspector.

    Args:
        work: What to do.
        queues: The queues it is about: declared ones, and others that the store has. A log line
            says of those that they are not installed.

    Returns:
        What `work` returns.

    Raises:
        CorralError: A name was refused, there is no store, or what `work` raises.
    """
    installed = read_installed()
    configure_command_logs(installed.settings)
    undeclared = [name for name in queues if name not in installed.catalog.entries]
    for name in undeclared:
        if name in installed.catalog.disabled:
            installed.catalog.get(name)  # raises, and names the setting
    with ExitStack() as opened:
        try:
            url = opened.enter_context(open_store(installed.settings))
        except ConfigurationError:
            for name in undeclared:  # without a store there are no other queues
                installed.catalog.get(name)
            raise

        async def run() -> T:
            async with inspector(installed, url, process_identity("cli")) as made:
                if not undeclared:
                    return await work(made)
                including = await made.including_undeclared(*undeclared)
                for name in undeclared:
                    log.warning(
                        "queue is not installed: it is in the store, and no plugin declares it",
                        queue=name,
                    )
                return await work(including)

        return asyncio.run(run())


def enqueue_once(queue: str, payload: Mapping[str, Any], options: EnqueueOptions) -> Enqueued:
    """Enqueue one job from the command line.

    Raises:
        CorralError: The name, the payload or an option was refused, or there is no store.
    """
    installed = read_installed()
    configure_command_logs(installed.settings)
    # refuse a wrong payload before the store is contacted, or an embedded one started
    installed.catalog.get(queue).queue.validated(payload)
    with open_store(installed.settings) as url:

        async def write() -> Enqueued:
            link, prefix = Link(url), installed.settings.prefix
            audit = Audit(link, prefix)
            try:
                async with (
                    open_scheduler(installed, url) as jobs,
                    report_damage(link, prefix, queue),
                ):
                    await audit.ensure_writable()
                    enqueued = await jobs.enqueue(queue, payload, **options)
                if enqueued.created:
                    await audit.record_added_job(process_identity("cli"), queue, enqueued.id)
                return enqueued
            finally:
                await link.close()

        return asyncio.run(write())


def configure_command_logs(settings: Settings) -> None:
    """Send a command's log lines, the audit's among them, to standard error.

    On a terminal only warnings are written: the command's own output shows what was done.
    """
    if sys.stderr.isatty():
        settings = settings.model_copy(update={"log_level": "WARNING"})
    if "structlog" in sys.modules or settings.log_processors:
        _configure_logs(settings)
        return
    root, level = logging.getLogger(), logging.getLevelNamesMapping()[settings.log_level]
    root.handlers = [each for each in root.handlers if not isinstance(each, _FirstLineHandler)]
    root.addHandler(_FirstLineHandler(settings))
    root.setLevel(max(level, logging.INFO))
    logging.getLogger("corral").setLevel(level)


def _configure_logs(settings: Settings) -> logging.Handler:
    from corral.observe.logs import configure_logs  # noqa: PLC0415  # structlog, which most commands have no line for

    return configure_logs(settings)


class _FirstLineHandler(logging.Handler):
    """Configures the logs when the first line is logged.

    Loading structlog takes 40 ms, and most commands log nothing.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings

    def emit(self, record: logging.LogRecord) -> None:
        """Configure the logs, and pass the first line to the handler that replaces this one."""
        logging.getLogger().removeHandler(self)
        _configure_logs(self._settings).handle(record)


def count_jobs() -> tuple[dict[str, QueueSizes], OrphanedQueues]:
    """Count the jobs in each state and in quarantine, by queue, and what holds each queue back.

    For a queue with damaged keys, only what its other keys show is counted.

    Returns:
        The queues of the catalog, and those in the store that nobody declares.

    Raises:
        CorralError: The catalog was refused, or there is no store.
    """

    async def read(inspector: JobInspector) -> tuple[dict[str, QueueSizes], OrphanedQueues]:
        return await inspector.all_sizes(), await inspector.find_orphaned()

    return operate(read)


def find_orphans(installed: Installed) -> OrphanedQueues | None:
    """Look for queues in the store that nobody declares; start no store for that.

    Args:
        installed: What the process starts from.

    Returns:
        None if no store is configured, and no embedded one is running.

    Raises:
        ConfigurationError: The data directory of an embedded store cannot be used.
        StoreUnavailable: The store is away, or did not answer in time.
    """
    settings = installed.settings
    configured = settings.redis_url is not None
    with open_store(settings) if configured else attach(settings.data_dir) as url:
        if url is None:
            return None
        store = url

        async def look() -> OrphanedQueues:
            async with asyncio.timeout(LOOK_SECONDS), inspector(installed, store) as made:
                return await made.find_orphaned()

        try:
            return asyncio.run(look())
        except TimeoutError as error:
            raise StoreUnavailable(
                f"the store did not list its keys within {LOOK_SECONDS:g} s"
            ) from error
