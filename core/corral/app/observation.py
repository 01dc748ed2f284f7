"""Observation of a running process: figures for the board, and metrics and probes over HTTP."""

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
from corral.tasks import end_tasks, start_task
from corral.worker.worker import Worker

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

    from corral.observe.http_server import ListenAddress
    from corral.observe.probes import ParentProbes, WorkerProbes

__all__ = ["observe_parent", "observe_worker"]

log = Logger("corral")

WRITE_SECONDS = 5.0
"""How often the figures of the last minutes are written: the board's charts are at most so old."""


@asynccontextmanager
async def observe_worker(
    worker: Worker, tally: Tally, installed: Installed, link: Link, address: ListenAddress | None
) -> AsyncIterator[None]:
    """Observe a worker while entered.

    Args:
        worker: The worker.
        tally: Counts its jobs, as one of its plugins.
        installed: What it runs.
        link: A connection that stays open, for the figures of the last minutes.
        address: Where metrics and health are served, or None.

    Raises:
        ConfigurationError: On entering: it cannot listen on the address, or the extra `metrics` is
            not installed.
    """
    lag = LoopLag()
    with ExitStack() as ending:
        if address is not None:
            from corral.observe.metrics import WorkerMetrics  # noqa: PLC0415  # an extra
            from corral.observe.probes import WorkerProbes  # noqa: PLC0415  # only if served

            metrics = WorkerMetrics(
                tally,
                installed.catalog.served,
                stalled=worker.stalled,
                repaired=worker.repaired,
                lag_seconds=lambda: lag.worst_seconds,
                plugins=installed.plugins,
                counters=worker.counters,
            )
            probes = WorkerProbes(worker, lag, link.url)
            ending.enter_context(_serving(probes, address, installed, link.url, metrics))
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
async def observe_parent(
    probes: ParentProbes,
    stalled: Mapping[str, int],
    installed: Installed,
    url: str,
    address: ListenAddress,
) -> AsyncIterator[None]:
    """Serve a parent's health and the store's figures while entered.

    Args:
        probes: The state of the parent and its processes.
        stalled: How many jobs of dead processes it has put back, by queue. It has every queue that
            the processes serve.
        installed: What its processes run.
        url: The store.
        address: Where to listen.

    Raises:
        ConfigurationError: On entering: it cannot listen on the address, or the extra `metrics` is
            not installed.
    """
    from corral.observe.metrics import ParentMetrics  # noqa: PLC0415  # an extra

    with _serving(probes, address, installed, url, ParentMetrics(stalled, stalled)):
        looking = start_task(probes.watch(), "corral-probes")
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
            pass  # the worker itself logs that the store is away
        except ResponseError as error:
            log.warning(
                "the store refuses the figures of the last minutes: the board's charts have a gap",
                error=str(error),
            )


@contextmanager
def _serving(
    probes: WorkerProbes | ParentProbes,
    address: ListenAddress,
    installed: Installed,
    url: str,
    *collectors: Collector,
) -> Iterator[None]:
    from corral.observe.http_server import HttpAnswer, answer_probe, serve_http  # noqa: PLC0415  # http.server takes 1 MiB: only if served
    from corral.observe.metrics import CONTENT_TYPE, StoreMetrics, render  # noqa: PLC0415  # an extra

    with ExitStack() as ending:
        store = StoreMetrics(
            installed.catalog.entries,
            url=url,
            prefix=installed.settings.prefix,
            declared=installed.catalog.disabled,
        )
        ending.callback(store.close)
        answers = {
            "/metrics": lambda: HttpAnswer(200, CONTENT_TYPE, render(store, *collectors)),
            "/healthz": lambda: answer_probe("healthy", probes.health_problem(), probes.troubles()),
            "/readyz": lambda: answer_probe("ready", probes.readiness_problem(), probes.troubles()),
        }
        served_at = ending.enter_context(serve_http(address, answers))
        log.info("metrics and health are served", url=served_at)
        yield
