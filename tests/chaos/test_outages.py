"""The store goes away and returns, in every way it can: the worker goes on by itself, and says
little about it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from chaos.acme_chaos import chaos, chaos_threads
from chaos.processes import Store, Worker
from chaos.scene import Scene

pytestmark = pytest.mark.asyncio

Figure = Callable[[str], None]

RESUME_SECONDS = 2.0
SWALLOWED_RESUME_SECONDS = 8.0
"""Bytes that are swallowed look like a slow store: this is a block, its margin and a new
connection.
"""
OUTAGE_SECONDS = 5.0
MAX_LINES = 5
MAX_CPU = 0.05
PICK_UP_SECONDS = 0.05
BLOCK_PASSED_SECONDS, IDLE_SECONDS = 7.0, 60.0
"""Longer than the block of an idle worker; and longer than any timeout that a client might have."""


class Watched:
    """A worker over the time of an outage: what it used and what it said."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._began, self._used = time.time(), worker.cpu_seconds()
        self._said = len(worker.log)

    def waited(self) -> str:
        """Asked when the outage ends: it must have waited quietly."""
        share = (self._worker.cpu_seconds() - self._used) / (time.time() - self._began)
        assert share < MAX_CPU, f"{share:.1%} of a core"
        return f"{share:.1%} CPU"

    def check_log(self) -> str:
        """Check that few lines were logged since the outage began; returns their number."""
        lines = [line["event"] for line in self._worker.log[self._said :]]
        assert len(lines) <= MAX_LINES, lines
        return f"{len(lines)} log lines"


@pytest.mark.timing
async def test_a_store_that_was_stopped(scene: Scene, figure: Figure) -> None:
    """Jobs that ran meanwhile are completed, those that waited are worked off: each once."""
    worker = await scene.hire()
    enqueued = await scene.enqueue(*[{"ms": 250}] * 40)
    await scene.until(lambda: len(scene.journal.ended()) >= 5, "the worker is at work")

    watched = Watched(worker)
    await scene.store.stop()
    await scene.passed(time.time() + OUTAGE_SECONDS)
    waited = watched.waited()
    back = await scene.store.start()

    await scene.completed(enqueued)
    assert scene.each_started_once(enqueued)
    resumed = scene.starts(since=back)[0].at - back
    figure(
        f"store stopped for {OUTAGE_SECONDS:g} s: on after {resumed:.2f} s, {waited},"
        f" {watched.check_log()}"
    )
    assert resumed <= RESUME_SECONDS


@pytest.mark.timing
@pytest.mark.parametrize("fault", ["CLIENT KILL TYPE normal", "SCRIPT FLUSH"])
async def test_a_store_that_forgets(scene: Scene, figure: Figure, fault: str) -> None:
    """Its connections, or its scripts; a worker of two queues finds out one connection after the
    other.
    """
    worker = await scene.hire(
        serves=(chaos.name, chaos_threads.name), lock_seconds=1, stalled_interval_seconds=1
    )
    enqueued = await scene.enqueue(*[{"ms": 1000}] * 8)
    enqueued += await scene.enqueue(*[{"ms": 1400}] * 8, queue=chaos_threads)
    await scene.runs(worker, 10)  # every slot is taken

    watched = Watched(worker)
    await scene.store.client.execute_command(*fault.split())
    done = time.time()
    await scene.completed(enqueued)
    free = min(
        line.at for line in scene.journal.lines() if line.event == "end"
    )  # no job could start before
    resumed = scene.starts(since=done)[0].at - max(free, done)
    logged = watched.check_log()

    await scene.store.client.execute_command(*fault.split())
    done = time.time()
    late = await scene.enqueue({})
    rested = await scene.started(*late) - done
    await scene.completed([*enqueued, *late])
    assert scene.each_started_once([*enqueued, *late])
    figure(f"{fault}: on after {resumed:.2f} s at work, {rested:.2f} s at rest, {logged}")
    assert max(resumed, rested) <= RESUME_SECONDS


@pytest.mark.timing
async def test_a_network_that_swallows_bytes(scene: Scene, figure: Figure) -> None:
    """The connections that were open stay open and carry nothing; new ones work.

    Jobs run, and there are free slots.
    """
    async with scene.proxy() as proxy:
        worker = await scene.hire(url=proxy.url, concurrency=20, lock_seconds=4)
        enqueued = await scene.enqueue(
            *[{"ms": 1}] * 200
        )  # every connection that it may have is open
        await scene.completed(enqueued)
        enqueued += await scene.enqueue(*[{"ms": 7000}] * 3)
        await scene.runs(worker, 3)
        await scene.idle()

        watched = Watched(worker)
        proxy.swallow()
        swallowed = time.time()
        later = await scene.enqueue(*[{}] * 100)
        first = await scene.started(later[0]) - swallowed
        waited = watched.waited()
        resumed = max([await scene.started(job) for job in later]) - swallowed
        await scene.completed([*enqueued, *later])
        assert scene.each_started_once(
            [*enqueued, *later]
        )  # they ran for longer than their lock: it was renewed
        logged = watched.check_log()
    figure(
        f"bytes swallowed: on after {first:.2f} s, with everything after {resumed:.2f} s, {waited},"
        f" {logged}"
    )
    assert resumed <= SWALLOWED_RESUME_SECONDS


async def test_an_idle_worker_keeps_its_connections(
    scene: Scene, figure: Figure, at_length: bool
) -> None:
    await idle(
        await scene.hire(), scene, IDLE_SECONDS if at_length else BLOCK_PASSED_SECONDS, figure
    )


@pytest.mark.timing
async def test_and_wakes_at_once(scene: Scene, figure: Figure) -> None:
    assert await idle(await scene.hire(), scene, BLOCK_PASSED_SECONDS, figure) <= PICK_UP_SECONDS


async def idle(worker: Worker, scene: Scene, seconds: float, figure: Figure) -> float:
    """A worker waits for so long, and makes no connection meanwhile; seconds until it has started a
    job after that.
    """
    await scene.completed(await scene.enqueue({}))
    watched = Watched(worker)
    connections = await made(scene.store)
    await scene.passed(time.time() + seconds)
    assert await made(scene.store) == connections

    enqueued = time.time()
    late = await scene.enqueue({})
    picked_up = await scene.started(*late) - enqueued
    assert watched.check_log() == "0 log lines"
    figure(
        f"idle for {seconds:g} s: no reconnect, {watched.waited()}, picked up after {picked_up * 1000:.1f} ms"
    )
    return picked_up


async def made(store: Store) -> tuple[int, set[str]]:
    """How many connections were ever made, and which are open."""
    statistics = await store.client.info("stats")
    return statistics["total_connections_received"], {
        each["id"] for each in await store.client.client_list()
    }
