"""A schedule under kills, and across a time in which nobody works."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from chaos.acme_chaos import EVERY_MS, TICK_SECONDS, chaos_ticks
from chaos.processes import Store, Worker
from chaos.scene import Scene

pytestmark = pytest.mark.asyncio

PERIOD_MS = 2000
TICKS = 15
QUEUE = f"bull:{chaos_ticks.name}"
TICKING: dict[str, Any] = {
    "lock_seconds": 1.0,
    "stalled_interval_seconds": 1.0,
    "serves": (chaos_ticks.name,),
    "environment": {EVERY_MS: str(PERIOD_MS)},
}


def tick(job_id: str) -> int:
    """The tick that an iteration stands for, Unix milliseconds."""
    return int(job_id.rpartition(":")[2])


def ticks_begun(scene: Scene) -> list[int]:
    """Every tick whose job has started, in order; of a job that has started twice, once."""
    return sorted({tick(line.id) for line in scene.starts()})


async def killed_in_a_tick(scene: Scene, workers: list[Worker]) -> None:
    """`kill -9` the worker that runs the next tick, and hire another."""
    begun = len(scene.starts())
    await scene.until(lambda: len(scene.starts()) > begun, "the next tick runs")
    line = scene.starts()[begun]
    (doomed,) = (worker for worker in workers if worker.pid == line.pid)
    doomed.kill()
    assert line.id not in scene.journal.ended(), "the kill came too late: it shows nothing"
    workers.remove(doomed)
    workers.append(await scene.hire(**TICKING))


async def test_killed_workers_neither_double_nor_end_a_schedule(
    scene: Scene, figure: Callable[[str], None]
) -> None:
    """The worker that runs a tick is killed, five times in fifteen ticks; two others are there to
    fetch the next.
    """
    workers = list(await asyncio.gather(*(scene.hire(**TICKING) for _ in range(3))))
    for _ in range(5):
        await killed_in_a_tick(scene, workers)
        begun = len(ticks_begun(scene))
        await scene.until(lambda: len(ticks_begun(scene)) >= begun + 2, "two more ticks")
    await scene.until(
        lambda: len(ticks_begun(scene)) >= TICKS,
        f"{TICKS} ticks",
        seconds=TICKS * PERIOD_MS / 1000 + 10,
    )
    client = scene.store.client
    waiting = await client.zrange(f"{QUEUE}:repeat", 0, -1, withscores=True)
    for worker in workers:
        worker.terminate()
    assert [await worker.ended() for worker in workers] == [0, 0, 0]

    begun = ticks_begun(scene)
    gaps = {later - earlier for earlier, later in itertools.pairwise(begun)}
    assert gaps == {PERIOD_MS}, (
        "a tick is missing although a worker could fetch it, or is off the grid"
    )
    assert {tick(line.id) for line in scene.starts()} == {
        tick(job) for job in scene.journal.ended()
    }
    assert waiting == [(chaos_ticks.name, begun[-1] + PERIOD_MS)] or waiting[0][1] > begun[-1], (
        "the chain has ended"
    )
    assert (
        await client.zscore(f"{QUEUE}:delayed", f"repeat:{chaos_ticks.name}:{waiting[0][1]:.0f}")
        is not None
    )
    completed = [tick(job) for job in await client.zrange(f"{QUEUE}:completed", 0, -1)]
    assert len(completed) == len(set(completed)) == len(begun), "a tick has two jobs"
    again = len(scene.starts()) - len(begun)
    figure(
        f"{len(begun)} ticks, 5 workers killed in one: {again} started again, none missing, none twice; chain alive"
    )
    assert again >= 5


async def test_a_tick_that_came_while_nobody_worked_runs_once(scene: Scene) -> None:
    """All workers are stopped across a tick, and a new version with the same schedule is deployed."""
    old = await scene.hire(**TICKING)
    await scene.until(scene.journal.ended, "the first tick has run")
    old.terminate()
    assert await old.ended() == 0
    ((_, score),) = await scene.store.client.zrange(f"{QUEUE}:repeat", 0, -1, withscores=True)
    missed = f"repeat:{chaos_ticks.name}:{score:.0f}"
    assert not scene.journal.starts(of=missed)
    await scene.passed(score / 1000 + TICK_SECONDS)

    new = await scene.hire(**TICKING)
    await scene.started(missed)
    begun = len(ticks_begun(scene))
    await scene.until(lambda: len(ticks_begun(scene)) > begun, "the schedule goes on")
    assert len(scene.journal.starts(of=missed)) == 1
    assert not any("schedule" in line["event"] for line in new.log), "it was not left untouched"
    new.terminate()
    assert await new.ended() == 0


async def restarted_empty(scene: Scene) -> None:
    """The store has no persistence, or its disk is gone."""
    await scene.store.stop()
    scene.store.forget()
    await scene.store.start()


async def flushed(scene: Scene) -> None:
    """By another team. No connection ends, so no client notices.

    Between two iterations: one that was fetched and has not begun makes the next one itself, and
    nothing is gone then.
    """
    between = (
        f"redis.call('ZCARD', '{QUEUE}:delayed') == 1 and redis.call('LLEN', '{QUEUE}:active') == 0"
    )
    flush = f"if {between} then redis.call('FLUSHALL') return 1 end return 0"
    await scene.until(lambda: scene.store.client.eval(flush, 0), "no iteration is on its way")


async def failed_over(scene: Scene) -> None:
    """An empty replica has taken over: first nobody may write, then all is gone."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    folder = scene.folder / "other"
    folder.mkdir()
    other = Store(folder, port=port)
    await other.start()
    client = scene.store.client
    try:
        await client.replicaof("127.0.0.1", port)

        async def is_copy() -> bool:
            return bool((await client.info("replication")).get("master_link_status") == "up")

        await scene.until(is_copy, "the store is a copy of the empty one")
        assert await client.dbsize() == 0
        await client.replicaof("NO", "ONE")
    finally:
        await other.stop()


@pytest.mark.parametrize(
    ("lost", "interval"), [(restarted_empty, 3600.0), (failed_over, 3600.0), (flushed, 1.0)]
)
async def test_a_schedule_outlives_its_store(
    lost: Any, interval: float, scene: Scene, figure: Callable[[str], None]
) -> None:
    """After an outage at once; else within one interval."""
    workers = [
        await scene.hire(**{**TICKING, "stalled_interval_seconds": interval}) for _ in range(2)
    ]
    await scene.until(lambda: len(scene.journal.ended()) >= 2, "two ticks have run")
    await lost(scene)
    since = time.time()
    client = scene.store.client

    async def are_registered() -> bool:
        return bool(await client.hlen("corral:bull:alive") == len(workers))

    await scene.until(lambda: len(scene.starts(since=since)) >= 3, "three more ticks")
    await scene.until(are_registered, "both workers have written their records again")
    again = scene.starts(since=since)
    plain = "plain"
    await client.hset(
        f"{QUEUE}:{plain}", mapping={"name": "by-hand", "data": "{}", "opts": "{}", "timestamp": 0}
    )
    await client.lpush(f"{QUEUE}:wait", plain)
    await client.zadd(f"{QUEUE}:marker", {"0": 0})
    await scene.until(lambda: plain in scene.journal.ended(), "a plain job runs")
    await scene.until(lambda: scene.health() == 0, "the workers are well")
    for worker in workers:
        worker.terminate()
    assert [await worker.ended() for worker in workers] == [0, 0]

    ticks = sorted({tick(line.id) for line in again if line.id != plain})
    assert {later - earlier for earlier, later in itertools.pairwise(ticks)} == {PERIOD_MS}, (
        "one chain, on its grid"
    )
    assert await client.zcard(f"{QUEUE}:delayed") == 1
    made = [
        line
        for worker in workers
        for line in worker.log
        if line["event"].startswith("schedule was gone")
    ]
    assert len(made) == 1, "by one of them"
    figure(f"{lost.__name__}: the next tick started after {again[0].at - since:.2f} s")
