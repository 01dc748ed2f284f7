"""`/metrics`: what it serves, what it costs the store, and what never becomes a label."""

from __future__ import annotations

import asyncio
import random
import string
import time
from collections.abc import Iterator
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from corral import Fail, Fixed, Job, Queue, Retry
from corral.catalog import Catalog, CatalogEntry
from corral.fleet.processes import ProcessRecord, ProcessRecords
from corral.inspector import JobInspector
from corral.observe.metrics import StoreMetrics, WorkerMetrics, render, render_metrics
from corral.observe.tally import Tally
from corral.plugins import Plugins, Provider
from corral.store.clock import Clock
from corral.store.connection import Link
from machine import slowness

pytestmark = pytest.mark.asyncio

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def series(body: bytes) -> Series:
    """Every sample: by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def of(found: Series, name: str, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]


async def scraped(store: StoreMetrics) -> Series:
    """As Prometheus does: on a thread."""
    return series(await asyncio.to_thread(render, store))


@pytest.fixture
def store(store_url: str) -> Iterator[StoreMetrics]:
    made = StoreMetrics(["letters"], url=store_url, prefix="bull")
    yield made
    made.close()


@pytest.fixture
def inspector(letters: Queue[Any], store_url: str) -> JobInspector:
    catalog = Catalog(
        MappingProxyType(
            {letters.name: CatalogEntry(letters, Provider("acme", "1.0", "wheel"), "")}
        )
    )
    return JobInspector(catalog, Link(store_url), prefix="bull")


async def test_the_sizes_of_a_queue(
    workshop: Any, letters: Queue[Any], store: StoreMetrics
) -> None:
    jobs = workshop.producer(letters)
    for text in ("done", "fail", "done"):
        await jobs.enqueue(letters, letters.payload(text=text))

    async def work(job: Job[Any]) -> None:
        if job.payload.text == "fail":
            raise Fail("no")

    await workshop.burst(letters.processed_by(work))
    await jobs.enqueue(letters, letters.payload())
    for priority in (1, 2):
        await jobs.enqueue(letters, letters.payload(), priority=priority)
    for _ in range(3):
        await jobs.enqueue(letters, letters.payload(), delay=timedelta(hours=1))
    found = await scraped(store)
    sizes = {
        name: of(found, f"bullmq_{name}_jobs", queue="letters")
        for name in ("waiting", "active", "delayed")
    }
    assert sizes == {"waiting": 1, "active": 0, "delayed": 3}
    sizes = {
        name: of(found, f"bullmq_{name}_jobs", queue="letters")
        for name in ("prioritized", "completed", "failed")
    }
    assert sizes == {"prioritized": 2, "completed": 2, "failed": 1}
    assert of(found, "bullmq_completed_jobs_total", queue="letters") == 2
    assert of(found, "bullmq_failed_jobs_total", queue="letters") == 1
    assert (of(found, "corral_store_up"), of(found, "corral_workers")) == (1, 0)


async def test_counters_do_not_fall_when_jobs_are_removed_cleaned_or_retried(
    workshop: Any, letters: Queue[Any], store: StoreMetrics, inspector: JobInspector
) -> None:
    made = await workshop.producer(letters).enqueue_many(
        letters, [letters.payload(text=str(n)) for n in range(6)]
    )

    async def work(job: Job[Any]) -> None:
        if int(job.payload.text) % 2:
            raise Fail("no")

    await workshop.burst(letters.processed_by(work))
    before = await scraped(store)
    await inspector.remove(letters, made[0].id)
    await inspector.remove(letters, made[1].id)
    await inspector.retry(letters, made[3].id)
    for state in ("completed", "failed"):
        assert await inspector.clean(letters, state, timedelta(0)) > 0
    await inspector.drain(letters)
    after = await scraped(store)
    await inspector.close()
    assert (
        of(after, "bullmq_completed_jobs", queue="letters")
        == of(after, "bullmq_failed_jobs", queue="letters")
        == 0
    )
    for name in ("bullmq_completed_jobs_total", "bullmq_failed_jobs_total"):
        assert of(after, name, queue="letters") == of(before, name, queue="letters") == 3


async def test_for_how_long_the_next_job_has_waited(
    workshop: Any, letters: Queue[Any], store_url: str
) -> None:
    """In moved time: each step enqueues, and looks an hour later."""
    link, clock, jobs = Link(store_url), Clock(), workshop.producer(letters)

    async def waited() -> float:
        from corral.observe.queue_figures import read_queue_figures

        hours = (
            await read_queue_figures(link, "bull", "letters", clock=clock)
        ).oldest_seconds / 3600
        return round(hours, 2)

    assert await waited() == 0
    await jobs.enqueue(letters, letters.payload(), delay=timedelta(hours=3))
    clock.offset_ms = 2 * 3_600_000
    assert await waited() == 0, "it is not due"
    clock.offset_ms = 4 * 3_600_000
    assert await waited() == 1, "it is, and nobody has promoted it"
    ready = await jobs.enqueue(
        letters, letters.payload(), delay=timedelta(hours=1), backoff=Fixed(timedelta(hours=2))
    )
    await workshop.raw.zrem("bull:letters:delayed", ready.id)
    await workshop.raw.rpush("bull:letters:wait", ready.id)
    assert await waited() == 3, "promoted: it waits since it was due, whatever its backoff"
    await workshop.raw.lpop("bull:letters:wait")
    assert await waited() == 1
    await jobs.enqueue(letters, letters.payload(), priority=7)
    assert await waited() == 4
    await workshop.raw.flushall()

    made = await jobs.enqueue(letters, letters.payload())
    await workshop.raw.hset(
        f"bull:letters:{made.id}", mapping={"ats": 1, "processedOn": await _ms(workshop)}
    )
    assert await waited() == 4, "where all were started before, since the last start"
    await workshop.raw.hincrby(f"bull:letters:{made.id}", "timestamp", -9 * 3_600_000)
    assert await waited() == 4
    await jobs.enqueue(letters, letters.payload())
    await workshop.raw.hincrby(f"bull:letters:{made.id}", "processedOn", -9 * 3_600_000)
    assert await waited() == 4, (
        "a job that is tried again says less than the one behind it that is new"
    )
    await link.close()


async def _ms(workshop: Any) -> int:
    seconds, _ = await workshop.raw.time()
    return int(seconds) * 1000


async def test_pause_and_workers_at_work(
    store: StoreMetrics, inspector: JobInspector, store_url: str, letters: Queue[Any]
) -> None:
    link = Link(store_url)
    heartbeats = ProcessRecords(link, "bull")
    for name, heartbeat in {
        "a": ProcessRecord(1),
        "b": ProcessRecord(2, draining=True),
        "c": ProcessRecord(16),
        "p": ProcessRecord(0, processes=2),
    }.items():
        await heartbeats.write(name, heartbeat)
    await inspector.pause(letters)
    found = await scraped(store)
    assert of(found, "corral_queue_paused", queue="letters") == 1
    assert of(found, "corral_workers") == 2, "neither a silent one nor a parent is a worker at work"
    await inspector.resume(letters)
    assert of(await scraped(store), "corral_queue_paused", queue="letters") == 0
    await inspector.close()
    await link.close()


async def test_a_scrape_is_one_round_trip_per_queue(store_url: str, raw: Any) -> None:
    names = [f"queue-{n}" for n in range(6)]
    metrics, link = StoreMetrics(names, url=store_url, prefix="bull"), Link(store_url)
    found = await scraped(metrics)
    assert len(found) <= 14 * len(names) + 40
    await link.call("PING")
    async with raw.monitor() as monitor:
        await scraped(metrics)
        await link.call("PING")
        heard = []
        async for command in monitor.listen():
            if command["command"] == "PING":
                break
            if command["client_type"] != "lua":
                heard.append(command["command"].split()[0])
    metrics.close()
    await link.close()
    assert heard == ["EVALSHA"] * len(names)


async def test_without_a_store_it_says_so_and_recovers(store_url: str) -> None:
    away = StoreMetrics(["letters"], url="unix:///nowhere/store.sock", prefix="bull")
    assert await scraped(away) == {("corral_store_up", ()): 0}
    away._url = store_url
    found = await scraped(away)
    away.close()
    assert of(found, "corral_store_up") == 1
    assert of(found, "bullmq_waiting_jobs", queue="letters") == 0


async def test_a_damaged_queue_hides_no_other(store_url: str, raw: Any) -> None:
    """Its keys are of the wrong type, or hold what no client of BullMQ writes."""
    names = ["damaged", "odd", "letters"]
    await raw.set("bull:damaged:wait", "no list")
    await raw.hset("bull:odd:metrics:completed", "count", "many")
    await raw.rpush("bull:odd:wait", "ghost", "1")
    await raw.hset("bull:odd:1", mapping={"timestamp": "yesterday", "opts": "[", "data": "{}"})
    both, link = StoreMetrics(names, url=store_url, prefix="bull"), Link(store_url)
    for found in (await scraped(both), series(await render_metrics(link, "bull", names))):
        waiting = {
            labels[0][1]: n for (name, labels), n in found.items() if name == "bullmq_waiting_jobs"
        }
        assert waiting == {"odd": 2, "letters": 0}
        assert of(found, "corral_store_up") == 1
        assert of(found, "bullmq_completed_jobs_total", queue="odd") == 0
        assert of(found, "corral_oldest_waiting_seconds", queue="odd") == 0
    both.close()
    await link.close()
    await raw.flushall()


async def test_the_event_loop_s_own_way_tells_the_same(store: StoreMetrics, store_url: str) -> None:
    link = Link(store_url)
    assert series(await render_metrics(link, "bull", ["letters"])) == await scraped(store)
    await link.close()
    nowhere = Link("unix:///nowhere/store.sock")
    assert series(await render_metrics(nowhere, "bull", ["letters"])) == {
        ("corral_store_up", ()): 0
    }


async def test_a_registry_of_the_application_takes_it(store: StoreMetrics) -> None:
    registry = CollectorRegistry(auto_describe=True)
    registry.register(store)
    assert (
        await asyncio.to_thread(
            registry.get_sample_value, "bullmq_waiting_jobs", {"queue": "letters"}
        )
        == 0
    )
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(store)


async def test_what_a_worker_counts(workshop: Any, letters: Queue[Any]) -> None:
    tally = Tally()
    workshop.plugins = workshop.plugins.with_own(tally)

    async def work(job: Job[Any]) -> None:
        if job.payload.text == "slow":
            await asyncio.sleep(0.03)
        elif job.payload.text == "fail":
            raise Fail("no")
        elif job.payload.text == "again" and job.attempt == 1:
            raise Retry(after=timedelta(milliseconds=1))

    def ended() -> int:
        return sum(worked.outcomes.total() for worked in tally.queues.values())

    jobs = workshop.producer(letters)
    for text in ("slow", "fail", "again"):
        await jobs.enqueue(letters, letters.payload(text=text))
    async with workshop.working(letters.processed_by(work)):
        await workshop.wait_until(lambda: ended() == 4, "all have ended")
    metrics = WorkerMetrics(
        tally,
        ["letters", "others"],
        stalled={"letters": 2},
        lag_seconds=lambda: 0.25,
        plugins=workshop.plugins,
        repaired={"letters": 3},
    )
    found = series(render(metrics))
    runs = {
        labels: value
        for (name, labels), value in found.items()
        if name == "corral_job_runs_total" and value
    }
    assert runs == {
        (("outcome", outcome), ("queue", "letters")): value
        for outcome, value in {"completed": 2, "failed": 1, "retried": 1}.items()
    }
    assert of(found, "corral_job_duration_seconds_count", queue="letters") == 4
    assert of(found, "corral_job_duration_seconds_bucket", queue="letters", le="0.025") == 3
    assert of(found, "corral_job_duration_seconds_sum", queue="letters") >= 0.03
    assert of(found, "corral_job_wait_seconds_count", queue="letters") == 3
    assert of(found, "corral_job_stalled_total", queue="letters") == 2
    assert of(found, "corral_schedules_repaired_total", queue="letters") == 3
    assert of(found, "corral_event_loop_lag_seconds") == 0.25
    assert of(found, "corral_leases_lost_total", queue="others") == 0, "there from the start"


@pytest.mark.timing
async def test_no_job_and_no_worker_makes_a_series(
    workshop: Any, letters: Queue[Any], store_url: str
) -> None:
    """S-14: 10,000 job names, ids and errors, 1,000 workers that came and went; and a scrape takes
    at most 100 ms.
    """
    tally, link = Tally(), Link(store_url)
    workshop.plugins = workshop.plugins.with_own(tally)
    names = ["letters", *(f"other-{n}" for n in range(5))]
    store = StoreMetrics(names, url=store_url, prefix="bull")
    worker = WorkerMetrics(
        tally, names, stalled={}, lag_seconds=lambda: 0.0, plugins=Plugins.load([])
    )
    before = set(await scraped(store)), set(series(render(worker)))

    chance = random.Random(14)
    words = ["".join(chance.choices(string.ascii_letters + '"\\\n{}', k=12)) for _ in range(10_000)]

    async def work(job: Job[Any]) -> None:
        raise Fail(job.payload.text)

    made = await workshop.producer(letters).enqueue_many(
        letters, [letters.payload(text=word) for word in words]
    )
    async with workshop.raw.pipeline(transaction=False) as naming:
        for each, word in zip(made, words, strict=True):
            naming.hset(f"bull:letters:{each.id}", "name", word)
        await naming.execute()
    async with workshop.working(letters.processed_by(work), burst=True) as working:
        await asyncio.wait_for(asyncio.shield(working.running), 60)
    heartbeats = ProcessRecords(link, "bull")
    for n in range(1000):
        await heartbeats.write(f"host-{n}-{n:06x}", ProcessRecord(0.0))
    await link.close()

    took = []
    for _ in range(10):
        began = time.perf_counter()
        found = await scraped(store)
        took.append(time.perf_counter() - began)
    counted = series(render(worker))
    assert (set(found), set(counted)) == before
    assert of(found, "bullmq_failed_jobs_total", queue="letters") == 10_000
    assert len(found) <= 14 * len(names) + 40
    assert {label for _, labels in found | counted for label, _ in labels} == {
        "queue",
        "outcome",
        "le",
    }
    print(
        f"{len(found)} series of the store for 6 queues, {len(counted)} of the worker; slowest scrape of ten:",
        end=" ",
    )
    print(f"{max(took) * 1000:.1f} ms, median {sorted(took)[5] * 1000:.1f} ms")
    assert max(took) <= 0.1 * slowness()
    store.close()
