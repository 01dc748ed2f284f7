"""What the operator's commands do, below their arguments and above their output."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from corral.app.installed import Installed, read_installed
from corral.app.producing import scheduler
from corral.embedded.server import chosen_store
from corral.inspector.audit import Audit, this_process
from corral.inspector.damage import naming_damage
from corral.jobs import Enqueued, EnqueueOptions
from corral.settings import Settings
from corral.store.connection import Link

if TYPE_CHECKING:
    from corral.inspector import JobInspector, Sizes

__all__ = ["configure_operators_logs", "count_jobs", "enqueue_once", "inspector", "operate"]

T = TypeVar("T")


@asynccontextmanager
async def inspector(
    installed: Installed, url: str, who: str | None = None
) -> AsyncIterator[JobInspector]:
    """The inspector of a process, closed on leaving; what it changes is told as `who`, see
    `JobInspector`.
    """
    from corral.inspector import JobInspector  # noqa: PLC0415  # 20 ms that `corral enqueue` need not wait for

    made = JobInspector(installed.catalog, Link(url), prefix=installed.settings.prefix, who=who)
    try:
        yield made
    finally:
        await made.close()


def operate(work: Callable[[JobInspector], Coroutine[Any, Any, T]], *queues: str) -> T:
    """Do something with an inspector, from the command line.

    Args:
        work: What to do.
        queues: The queues it is about: a name that is not declared is refused before a store is
        looked for.

    Returns:
        What `work` returns.

    Raises:
        CorralError: A name was refused, there is no store, or what `work` raises.
    """
    installed = read_installed()
    configure_operators_logs(installed.settings)
    for name in queues:
        installed.catalog.get(name)
    with chosen_store(installed.settings) as url:

        async def run() -> T:
            async with inspector(installed, url, this_process("cli")) as made:
                return await work(made)

        return asyncio.run(run())


def enqueue_once(queue: str, payload: Mapping[str, Any], options: EnqueueOptions) -> Enqueued:
    """Write one job, from the command line.

    Raises:
        CorralError: The name, the payload or an option was refused, or there is no store.
    """
    installed = read_installed()
    configure_operators_logs(installed.settings)
    installed.catalog.get(queue).queue.validated(
        payload
    )  # before a store is looked for, or even started
    with chosen_store(installed.settings) as url:

        async def write() -> Enqueued:
            link, prefix = Link(url), installed.settings.prefix
            audit = Audit(link, prefix)
            try:
                async with scheduler(installed, url) as jobs, naming_damage(link, prefix, queue):
                    await audit.ensure_writable()
                    enqueued = await jobs.enqueue(queue, payload, **options)
                if enqueued.created:
                    await audit.added(this_process("cli"), queue, enqueued.id)
                return enqueued
            finally:
                await link.close()

        return asyncio.run(write())


def configure_operators_logs(settings: Settings) -> None:
    """Send the audit's lines, and whatever else is logged, to standard error.

    A person at a terminal reads what the command prints: an audit's line beside each line of that
    would be noise.
    """
    if sys.stderr.isatty():
        settings = settings.model_copy(update={"log_level": "WARNING"})
    if "structlog" in sys.modules or settings.log_processors:
        _configure_logs(settings)
        return
    root, level = logging.getLogger(), logging.getLevelNamesMapping()[settings.log_level]
    root.handlers = [each for each in root.handlers if not isinstance(each, _FirstLine)]
    root.addHandler(_FirstLine(settings))
    root.setLevel(max(level, logging.INFO))
    logging.getLogger("corral").setLevel(level)


def _configure_logs(settings: Settings) -> logging.Handler:
    from corral.observe.logs import configure_logs  # noqa: PLC0415  # structlog, which most commands have no line for

    return configure_logs(settings)


class _FirstLine(logging.Handler):
    """Sets up the logs when there is a line: structlog takes 40 ms of commands that most often log
    nothing.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings

    def emit(self, record: logging.LogRecord) -> None:
        """Hand on the first line, and leave the others to the handler that stands here now."""
        logging.getLogger().removeHandler(self)
        _configure_logs(self._settings).handle(record)


def count_jobs() -> dict[str, Sizes]:
    """How many jobs are in each state and in quarantine, and what holds the queue back, by queue.

    Of a queue with damaged keys, what the others tell.

    Raises:
        CorralError: The catalog was refused, or there is no store.
    """
    return operate(lambda inspector: inspector.all_sizes())
