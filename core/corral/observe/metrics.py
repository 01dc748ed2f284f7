"""`/metrics`: what Prometheus scrapes. Needs the extra `metrics`.

There are two sources. `StoreMetrics` asks the store when it is scraped, in one round trip per
queue. Its figures are the same in every process that serves them, so queries take the maximum and
not the sum.
`WorkerMetrics` has what one worker process counted. Labels are queues, states, outcomes and
installed distributions, and nothing that a job carries. docs/metrics.md lists every metric.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final, get_args

from corral.counter import PluginCounter
from corral.errors import MissingExtra, StoreUnavailable
from corral.inspector.orphans import OrphanedQueues, OrphanSearch
from corral.observe.queue_figures import (
    QueueFigures,
    read_queue_figures,
    read_queue_figures_blocking,
)
from corral.observe.tally import Distribution, QueueTally, Tally
from corral.outcome import LeaseLost, Outcome
from corral.plugins import Plugins
from corral.store.connection import Link, ThreadLink
from corral.store.replies import ResponseError, is_missing_right

try:
    from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        InfoMetricFamily,
        Metric,
    )
    from prometheus_client.registry import Collector
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] != "prometheus_client":
        raise
    raise MissingExtra(
        "metrics need prometheus_client, which is not installed:"
        " install the extra 'metrics' from where you got corral"
    ) from missing

__all__ = [
    "CONTENT_TYPE",
    "ParentMetrics",
    "StoreMetrics",
    "WorkerMetrics",
    "render",
    "render_metrics",
]

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
"""The media type of what `render` returns."""
READ_SECONDS: Final = 2.0
"""How long a reply of the store may take in a scrape; Prometheus waits for 10 s."""

SIZES: Final = {
    "bullmq_waiting_jobs": ("wait", "Jobs that are ready to run, without a priority."),
    "bullmq_active_jobs": ("active", "Jobs that a worker runs."),
    "bullmq_prioritized_jobs": ("prioritized", "Jobs that are ready to run and have a priority."),
    "bullmq_delayed_jobs": (
        "delayed",
        "Jobs that are to run later: delayed, scheduled or waiting for another attempt.",
    ),
    "bullmq_waiting_children_jobs": ("waiting-children", "Jobs that wait for the jobs below them."),
    "bullmq_completed_jobs": ("completed", "Completed jobs that are kept."),
    "bullmq_failed_jobs": ("failed", "Jobs that failed for good and are kept."),
}
OUTCOMES: Final = {
    kind: re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower() for kind in get_args(Outcome)
}
"""The label of each type of outcome: `TimedOut` is `timed_out`."""


class StoreMetrics(Collector):
    """The store's figures, for a registry of prometheus_client.

    Each scrape asks the store, on the thread of the scrape and on a connection of its own. If the
    store is away, `corral_store_up` is 0 and the other figures are missing.

    Args:
        queues: The names of the catalog's queues.
        url: The store.
        prefix: The first part of the keys.
        declared: The names of all queues that are declared, if `queues` has not all of them. Other
            queues of the store are orphaned; see `corral.inspector.OrphanSearch`.
    """

    def __init__(
        self, queues: Iterable[str], *, url: str, prefix: str, declared: Iterable[str] = ()
    ) -> None:
        self._queues = tuple(queues)
        self._search = OrphanSearch(prefix, {*self._queues, *declared})
        self._url = url
        self._prefix = prefix
        self._scrape_lock = threading.Lock()
        self._link: ThreadLink | None = None

    def describe(self) -> Iterator[Metric]:
        """The metrics without figures, for a registry that asks for their names."""
        return _store_families({}, OrphanedQueues({}))

    def collect(self) -> Iterator[Metric]:
        """Ask the store."""
        with self._scrape_lock:
            self._link = link = self._link or ThreadLink(self._url, READ_SECONDS)
            try:
                found, orphans = self._read(link), self._search.read_blocking(link)
            except StoreUnavailable:
                self._disconnect()
                found, orphans = {}, OrphanedQueues({})
        return _store_families(found or None, orphans)

    def _read(self, link: ThreadLink) -> dict[str, QueueFigures]:
        found: dict[str, QueueFigures] = {}
        for name in self._queues:
            with _skip_damaged_queue():
                found[name] = read_queue_figures_blocking(link, self._prefix, name)
        return found

    def close(self) -> None:
        """Close the connection. A later scrape opens another one."""
        with self._scrape_lock:
            self._disconnect()

    def _disconnect(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()


class WorkerMetrics(Collector):
    """The metrics of one worker process.

    Args:
        tally: The counts of its jobs.
        queues: The names of the queues that it serves. They are there from the start, with zeros.
        stalled: How many jobs of dead workers it has put back, by queue.
        lag_seconds: Returns the lag of its event loop.
        plugins: The plugins that it has loaded.
        repaired: How often it has repaired a declared schedule that was gone, by queue.
        counters: What its plugins count, by the counter's name; see `Deps.counter`.
    """

    def __init__(
        self,
        tally: Tally,
        queues: Iterable[str],
        *,
        stalled: Mapping[str, int],
        lag_seconds: Callable[[], float],
        plugins: Plugins,
        repaired: Mapping[str, int] = MappingProxyType({}),
        counters: Mapping[str, PluginCounter] = MappingProxyType({}),
    ) -> None:
        self._tally = tally
        self._queues = tuple(queues)
        self._stalled = stalled
        self._repaired = repaired
        self._counters = counters
        self._lag_seconds = lag_seconds
        providers = {plugin.provider for plugin in plugins.loaded}
        self._plugins = sorted((each.distribution, each.version, each.origin) for each in providers)

    def collect(self) -> Iterator[Metric]:
        """Return what was counted until now."""
        duration = HistogramMetricFamily(
            "corral_job_duration_seconds",
            "How long processors ran, in this process.",
            labels=["queue"],
        )
        wait = HistogramMetricFamily(
            "corral_job_wait_seconds",
            "How long jobs had been due before their first start.",
            labels=["queue"],
        )
        ended = CounterMetricFamily(
            "corral_job_runs_total",
            "Runs that ended in this process, by outcome.",
            labels=["queue", "outcome"],
        )
        lost = CounterMetricFamily(
            "corral_leases_lost_total", "Runs whose lock went to another worker.", labels=["queue"]
        )
        stalled = _stalled(self._stalled, self._queues)
        repaired = CounterMetricFamily(
            "corral_schedules_repaired_total",
            "Times that a declared schedule was gone from the store and was made again.",
            labels=["queue"],
        )
        for queue in self._queues:
            counts = self._tally.queues.get(queue) or QueueTally()
            _add_histogram(duration, queue, counts.duration)
            _add_histogram(wait, queue, counts.wait)
            for outcome, label in OUTCOMES.items():
                ended.add_metric([queue, label], counts.outcomes[outcome])
            lost.add_metric([queue], counts.outcomes[LeaseLost])
            repaired.add_metric([queue], self._repaired.get(queue, 0))
        yield from (duration, wait, ended, lost, stalled, repaired)
        yield GaugeMetricFamily(
            "corral_event_loop_lag_seconds",
            "How late the event loop was at its worst within the last minute.",
            value=self._lag_seconds(),
        )
        plugins = InfoMetricFamily("corral_plugin", "A distribution whose plugins are loaded.")
        for distribution, version, origin in self._plugins:
            plugins.add_metric(
                [], {"distribution": distribution, "version": version, "origin": origin}
            )
        yield plugins
        for counter in tuple(self._counters.values()):  # the worker adds some while it starts
            family = CounterMetricFamily(counter.name, counter.text, labels=[counter.label])
            for value, count in counter.counts.items():
                family.add_metric([value], count)
            yield family


class ParentMetrics(Collector):
    """The metrics of the parent of worker processes.

    Args:
        queues: The names of the queues that they serve.
        stalled: How many jobs of dead processes it has put back, by queue.
    """

    def __init__(self, queues: Iterable[str], stalled: Mapping[str, int]) -> None:
        self._queues = tuple(queues)
        self._stalled = stalled

    def collect(self) -> Iterator[Metric]:
        """Return what was counted until now."""
        yield _stalled(self._stalled, self._queues)


def render(*collectors: Collector) -> bytes:
    """Render the body of `/metrics`, of the type `CONTENT_TYPE`.

    Args:
        collectors: The metrics. `StoreMetrics` blocks, so an event loop must call this on a thread.
    """
    registry = CollectorRegistry(auto_describe=False)
    for each in collectors:
        registry.register(each)
    return generate_latest(registry)


@contextmanager
def _skip_damaged_queue() -> Iterator[None]:
    """Skip a queue with a damaged key, or one that the store's user may not read.

    The figures of the other queues are served all the same.
    """
    try:
        yield
    except ResponseError:
        pass
    except StoreUnavailable as error:
        if not is_missing_right(error):
            raise


async def render_metrics(
    link: Link, prefix: str, queues: Iterable[str], *, search: OrphanSearch | None = None
) -> bytes:
    """Render `/metrics` of a process that is no worker, on its event loop: the store's figures.

    Args:
        link: The connection.
        prefix: The first part of the keys.
        queues: The names of the catalog's queues.
        search: Finds the orphaned queues, the same object for every scrape; None: they are missing.
    """
    orphans = OrphanedQueues({})
    found: dict[str, QueueFigures] = {}
    try:
        for name in queues:
            with _skip_damaged_queue():
                found[name] = await read_queue_figures(link, prefix, name)
        if search is not None:
            orphans = await search.read(link)
    except StoreUnavailable:
        found = {}
    return render(_KnownMetrics(_store_families(found or None, orphans)))


class _KnownMetrics(Collector):
    """Metrics that were read before they are rendered."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = tuple(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def _store_families(
    found: Mapping[str, QueueFigures] | None, orphans: OrphanedQueues
) -> Iterator[Metric]:
    """The metrics of the store.

    Args:
        found: The figures by queue; None if the store is away.
        orphans: The queues in the store that nobody declares.
    """
    yield GaugeMetricFamily(
        "corral_store_up", "Whether the store answered this scrape.", value=found is not None
    )
    if found is None:
        return
    for metric, (container, text) in SIZES.items():
        yield _gauge(
            metric, text, {name: each.sizes.get(container) for name, each in found.items()}
        )
    for metric, text, values in (
        (
            "bullmq_completed_jobs_total",
            "Jobs that were ever completed.",
            {n: f.completed for n, f in found.items()},
        ),
        (
            "bullmq_failed_jobs_total",
            "Jobs that ever failed for good.",
            {n: f.failed for n, f in found.items()},
        ),
        (
            "corral_failed_attempts_total",
            "Attempts that failed, of jobs that are tried again and of those that are not.",
            {n: f.failed_attempts for n, f in found.items()},
        ),
    ):
        family = CounterMetricFamily(
            metric, f"{text} Removing jobs does not lower it.", labels=["queue"]
        )
        for name, value in values.items():
            if value is not None:
                family.add_metric([name], value)
        yield family
    yield _gauge(
        "corral_retrying_jobs",
        "Delayed jobs that have failed attempts, of the 2,000 that are due first.",
        {name: each.retrying for name, each in found.items()},
    )
    yield _gauge(
        "corral_oldest_waiting_seconds",
        "For how long the job that runs next could have been running, 0 where none waits.",
        {name: each.oldest_seconds for name, each in found.items()},
    )
    yield _gauge(
        "corral_queue_paused",
        "1 where no job of the queue starts because it is paused.",
        {name: each.is_paused for name, each in found.items()},
    )
    yield _gauge(
        "corral_queue_quarantined_jobs",
        "Jobs that workers have put aside because they cannot be jobs as they stand:"
        " `corral quarantine list`.",
        {name: each.quarantined for name, each in found.items()},
    )
    workers = max((each.workers for each in found.values()), default=0)
    yield GaugeMetricFamily(
        "corral_workers", "Worker processes that are at work, of all queues.", value=workers
    )
    orphaned = GaugeMetricFamily(
        "corral_orphaned_jobs",
        "Jobs of queues in the store that nobody declares, by state; of 100 queues at most.",
        labels=["queue", "state"],
    )
    for name, sizes in orphans.sizes.items():
        for state, count in sizes.counts.items():
            if count is not None:
                orphaned.add_metric([name, state], count)
    yield orphaned


def _stalled(counted: Mapping[str, int], queues: Iterable[str]) -> Metric:
    family = CounterMetricFamily(
        "corral_job_stalled_total",
        "Jobs of dead workers that this process has put back.",
        labels=["queue"],
    )
    for queue in queues:
        family.add_metric([queue], counted.get(queue, 0))
    return family


def _gauge(name: str, text: str, values: Mapping[str, float | None]) -> Metric:
    """A gauge. A queue whose value is unknown, because its key is damaged, is left out."""
    family = GaugeMetricFamily(name, text, labels=["queue"])
    for queue, value in values.items():
        if value is not None:
            family.add_metric([queue], value)
    return family


def _add_histogram(family: HistogramMetricFamily, queue: str, measured: Distribution) -> None:
    buckets, total = list[tuple[str, float]](), 0
    for bound, count in zip(
        [*map(str, measured.bounds), "+Inf"], tuple(measured.counts), strict=True
    ):
        total += count
        buckets.append((bound, total))
    family.add_metric([queue], buckets=buckets, sum_value=measured.seconds)
