"""`run_worker`: a worker process, from its settings to its exit code."""

from __future__ import annotations

import asyncio
import ctypes
import gc
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from corral.app.child_process import start_heartbeats, stop_with_parent
from corral.app.installed import Installed, log_lock, log_plugin_warnings, read_installed
from corral.app.observation import observe_worker
from corral.app.operating import inspector
from corral.app.producing import announce_process, open_scheduler, watch_for_workers
from corral.app.service import run_service
from corral.app.sql_database import prepare_database, relay_beside_worker
from corral.embedded.server import open_store
from corral.errors import ConfigurationError, CorralError, ResourceOpenError, StoreUnavailable
from corral.fleet.processes import eviction_policy
from corral.inspector import of_worker
from corral.loggers import Logger
from corral.observe.logs import configure_logs, name_worker
from corral.observe.store_vulnerabilities import store_version, vulnerability_warning
from corral.observe.tally import Tally
from corral.settings import WorkerSettings
from corral.shutdown import CUT_EXIT_CODE, StopHandler, on_stop, settle
from corral.store.connection import Link
from corral.store.replies import RIGHTS_HINT, ResponseError, is_missing_right
from corral.worker.worker import Worker

if TYPE_CHECKING:
    from corral.observe.http_server import ListenAddress

__all__ = ["check_store", "run_worker", "tune_garbage_collector"]

log = Logger("corral")

Beside = Callable[[str], AbstractAsyncContextManager[None]]


def run_worker(
    served: Mapping[str, int | None],
    *,
    burst: bool = False,
    concurrency: int | None = None,
    shutdown_timeout_seconds: float | None = None,
    development: bool = False,
    child: str | None = None,
    address: ListenAddress | None = None,
    beside: Beside | None = None,
) -> int:
    """Run a worker until it is stopped.

    Args:
        served: The queues, each with its concurrency or None. If it is empty: all that are
            installed.
        burst: Whether to end when nothing waits and nothing runs.
        concurrency: Overrides every queue's own.
        shutdown_timeout_seconds: Overrides the setting.
        development: Whether to start an embedded store if none is named.
        child: The name that a parent gave to this process, which then ends when its standard input
            does. None if it has no parent.
        address: Where metrics and health are served, or None.
        beside: Called with the store's URL; entered while the worker runs.

    Returns:
        The exit code. Processors may still run: end the process by `corral.shutdown.leave`.

    Raises:
        CorralError: The process must not start.
    """
    if child:
        stop_with_parent()
    installed = read_installed("worker", served or None)
    settings = installed.settings
    configure_logs(settings)
    if child is None:  # else the parent has logged it
        log_plugin_warnings(installed.plugins)
        if not development:
            log_lock(installed)
    if not installed.catalog.served:
        raise ConfigurationError(
            "no queues are installed: there is nothing to work off",
            hint="a queue is a distribution with an entry point in the group corral.queues:"
            " install one",
        )
    overrides = {name: number or concurrency for name, number in served.items()}
    if not served and concurrency:
        overrides = dict.fromkeys(installed.catalog.served, concurrency)
    if shutdown_timeout_seconds is not None:
        worker = settings.worker.model_copy(
            update={"shutdown_timeout_seconds": shutdown_timeout_seconds}
        )
        settings = settings.model_copy(update={"worker": worker})
        installed = Installed(settings, installed.plugins, installed.catalog)
    new_loop = _new_loop(settings.worker)
    with open_store(settings, implied_development=development) as url:
        if development:
            log.info("store is ready", url=url, data_dir=str(settings.data_dir))
            prepare_database(installed)
        limits = {name: number for name, number in overrides.items() if number}
        lenient = development or settings.is_development
        tune_garbage_collector()
        entered = nullcontext() if beside is None else beside(url)
        work = _run_worker(
            installed, url, limits, burst=burst, lenient=lenient, child=child, address=address
        )
        return run_service(_run_beside(entered, work), new_loop)


def _new_loop(settings: WorkerSettings) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The factory of the worker's event loop; None for Python's own."""
    if settings.event_loop == "asyncio":
        return None
    try:
        import uvloop  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise ConfigurationError(
            "CORRAL_WORKER__EVENT_LOOP is uvloop, and uvloop is not installed",
            hint="install the extra 'uvloop' from where you got corral",
        ) from error
    new_loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return new_loop


def tune_garbage_collector() -> None:
    """Let the garbage collector of a worker's process run rarely.

    With Python's defaults it took an eighth of a worker's time. What is loaded by now stays for
    good, so it is frozen and not examined again; and a job leaves no reference cycles behind, so
    young objects need not be examined after every 700 of them. Memory that loading has freed is
    given back to the system, which glibc would keep: 3 MiB of an idle worker's 77.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    with suppress(OSError, AttributeError):  # another C library has no such function
        ctypes.CDLL(None).malloc_trim(0)


async def _run_beside(
    what: AbstractAsyncContextManager[None], work: Coroutine[Any, Any, int]
) -> int:
    try:
        async with what:
            return await work
    finally:
        work.close()  # if it never began


async def _run_worker(
    installed: Installed,
    url: str,
    concurrency: Mapping[str, int],
    *,
    burst: bool,
    lenient: bool,
    child: str | None,
    address: ListenAddress | None,
) -> int:
    settings, catalog, tally = installed.settings, installed.catalog, Tally()
    await check_store(url, lenient=lenient, warns=child is None)
    async with (
        watch_for_workers(installed, url) as used,
        open_scheduler(installed, url, used) as jobs,
        inspector(installed, url) as operator,
        announce_process(installed, url, child) as record,
        relay_beside_worker(installed, url),
    ):
        name_worker(record.name)
        worker = Worker(
            [entry.processor for entry in catalog if entry.processor is not None],
            url=url,
            prefix=settings.prefix,
            settings=settings.worker,
            plugins=installed.plugins.with_own(tally),
            jobs=jobs,
            provided={of_worker: operator.acting_as(f"worker:{record.name}")},
            concurrency=concurrency,
            burst=burst,
            name=record.name,
            on_check=record.write_soon,
        )
        with on_stop(_stop_handler(worker, settings.worker)):
            start_heartbeats(worker, record)
            async with observe_worker(worker, tally, installed, record.link, address):
                try:
                    stopped = await worker.run()
                except Exception as error:
                    if worker.opens is None:
                        raise
                    raise _resource_error(installed, worker.opens, error) from error
                code = int(stopped.unclosed) if stopped.in_order else CUT_EXIT_CODE
                settle(code)
                return code


async def check_store(url: str, *, lenient: bool, warns: bool = True) -> None:
    """Refuse a store that is away, or that evicts keys when its memory is full.

    Args:
        url: The store.
        lenient: Whether a store that evicts keys is only warned of.
        warns: Whether to warn of a version with a known vulnerability. A child need not: its parent
            has done it.

    Raises:
        StoreUnavailable: It is away.
        ConfigurationError: It evicts keys, and `lenient` is false.
    """
    link = Link(url)
    try:
        policy = await eviction_policy(link)
        if warns and (warning := vulnerability_warning(*await store_version(link))):
            log.warning(warning)
    except StoreUnavailable as error:
        if not is_missing_right(error):
            raise
        policy = ""
        log.warning(
            "the store does not say whether it evicts keys: its user may not call INFO",
            hint=RIGHTS_HINT,
        )
    finally:
        await link.close()
    if policy not in {"", "noeviction"}:
        problem = (
            f"the store evicts keys when its memory is full (maxmemory-policy {policy}):"
            " jobs would be lost"
        )
        if not lenient:
            raise ConfigurationError(problem, hint="set maxmemory-policy noeviction in the store")
        log.warning(problem)


def _stop_handler(worker: Worker, settings: WorkerSettings) -> StopHandler:
    """How signals stop a worker."""
    loop = asyncio.get_running_loop()

    def call(what: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop has ended by itself
            loop.call_soon_threadsafe(what)

    def announce() -> None:
        log.info(
            "worker stopping",
            waits_for="running jobs",
            running=worker.running,
            timeout_seconds=settings.shutdown_timeout_seconds,
            hint="a second signal hands them back at once",
        )

    def cut() -> None:
        try:
            handed_back = worker.hand_back()
        except (StoreUnavailable, ResponseError) as error:
            log.warning(
                "could not hand back the running jobs:"
                " other workers take them over when their locks expire",
                error=str(error),
            )
        else:
            log.warning(
                "worker did not end within its shutdown timeout, and its process ends now:"
                " a processor or a resource blocks it",
                handed_back=handed_back,
            )

    return StopHandler(
        settings.shutdown_timeout_seconds,
        stop=lambda: call(worker.stop),
        announce=announce,
        hurry=lambda: call(worker.hurry),
        cut=cut,
    )


def _resource_error(installed: Installed, queue: str, error: Exception) -> CorralError:
    """The error of a resource that could not be opened: one sentence that names its package."""
    provider = installed.catalog.get(queue).provider
    if not isinstance(error, CorralError):
        log.error("resource cannot be opened", queue=queue, exc_info=error)
    return ResourceOpenError(queue, str(provider), error)
