"""What is looked at of a process while it works: its minutes go to the store, and over HTTP goes
what is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING

from corral.app.installed import Installed
from corral.errors import StoreUnavailable
from corral.loggers import Logger
from corral.observe.lag import LoopLag
from corral.observe.tally import Tally
from corral.store.connection import Link
from corral.store.replies import ResponseError
from corral.tasks import start_task
from corral.worker.stopping import end_tasks
from corral.worker.worker import Worker

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from corral.observe.http_server import Address
    from corral.observe.probes import ParentProbes, WorkerProbes

__all__ = ["observed", "observed_parent"]

log = Logger("corral")

WRITE_SECONDS = 5.0
"""How often the minutes are written: what the board draws is at most so old."""


@asynccontextmanager
async def observed(
    worker: Worker, tally: Tally, installed: Installed, link: Link, address: Address | None
) -> AsyncIterator[None]:
    """Observe a worker while it runs.

    Args:
        worker: The worker.
        tally: Counts its jobs, as one of its plugins.
        installed: What it runs.
        link: A connection that is open for as long, for the minutes.
        address: Where metrics and health are served, or None.

    Raises:
        ConfigurationError: On entering: the address cannot be listened on, or the extra is not
        installed.
    """
    lag = LoopLag()
    with ExitStack() as ending:
        if address is not None:
            from corral.observe.metrics import WorkerMetrics  # noqa: PLC0415  # an extra
            from corral.observe.probes import WorkerProbes  # noqa: PLC0415  # where it is wanted

            counted = WorkerMetrics(
                tally,
                installed.catalog.served,
                stalled=worker.stalled,
                repaired=worker.repaired,
                lag_seconds=lambda: lag.worst_seconds,
                plugins=installed.plugins,
            )
            probes = WorkerProbes(worker, lag, link.url)
            ending.enter_context(_serving(probes, address, installed, link.url, counted))
        tasks = [
            start_task(lag.measure(), "corral-lag"),
            start_task(_write_minutes(tally, link, installed.settings.prefix), "corral-minutes"),
        ]
        try:
            yield
        finally:
            await end_tasks(tasks)
            with suppress(StoreUnavailable, ResponseError):
                await tally.write(link, installed.settings.prefix)


@asynccontextmanager
async def observed_parent(
    probes: ParentProbes,
    stalled: Mapping[str, int],
    installed: Installed,
    url: str,
    address: Address,
) -> AsyncIterator[None]:
    """Serve a parent's health, and the store's figures.

    Args:
        probes: Its state.
        stalled: How many jobs of dead processes it has put back; every queue that it serves is in
        it.
        installed: What its processes run.
        url: The store.
        address: Where to listen.

    Raises:
        ConfigurationError: As `observed`.
    """
    from corral.observe.metrics import ParentMetrics  # noqa: PLC0415  # an extra

    with _serving(probes, address, installed, url, ParentMetrics(stalled, stalled)):
        looking = start_task(probes.look(), "corral-probes")
        try:
            yield
        finally:
            await end_tasks([looking])


async def _write_minutes(tally: Tally, link: Link, prefix: str) -> None:
    while True:
        await asyncio.sleep(WRITE_SECONDS)
        try:
            await tally.write(link, prefix)
        except StoreUnavailable:
            pass  # the worker tells
        except ResponseError as error:
            log.warning("figures of the last minutes refused by the store", error=str(error))


@contextmanager
def _serving(
    probes: WorkerProbes | ParentProbes,
    address: Address,
    installed: Installed,
    url: str,
    *counted: Collector,
) -> Iterator[None]:
    from corral.observe.http_server import Answer, served, verdict  # noqa: PLC0415  # http.server: 1 MiB, where it is wanted
    from corral.observe.metrics import CONTENT_TYPE, StoreMetrics, render  # noqa: PLC0415  # an extra

    with ExitStack() as ending:
        store = StoreMetrics(installed.catalog.entries, url=url, prefix=installed.settings.prefix)
        ending.callback(store.close)
        answers = {
            "/metrics": lambda: Answer(200, CONTENT_TYPE, render(store, *counted)),
            "/healthz": lambda: verdict("healthy", probes.unwell(), probes.troubles()),
            "/readyz": lambda: verdict("ready", probes.unready(), probes.troubles()),
        }
        where = ending.enter_context(served(address, answers))
        log.info("metrics and health are served", url=where)
        yield
