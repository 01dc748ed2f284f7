"""A schedule under kills, and across a time in which nobody works."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from chaos.acme_chaos import EVERY_MS, TICK_SECONDS, chaos_ticks
from chaos.processes import Worker
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


async def test_killed_workers_neither_double_nor_end_a_schedule(scene: Scene, figure: Callable[[str], None]) -> None:
    """The worker that runs a tick is killed, five times in fifteen ticks; two others are there to fetch the next."""
    workers = list(await asyncio.gather(*(scene.hire(**TICKING) for _ in range(3))))
    for _ in range(5):
        await killed_in_a_tick(scene, workers)
        begun = len(ticks_begun(scene))
        await scene.until(lambda: len(ticks_begun(scene)) >= begun + 2, "two more ticks")
    await scene.until(lambda: len(ticks_begun(scene)) >= TICKS, f"{TICKS} ticks", seconds=TICKS * PERIOD_MS / 1000 + 10)
    client = scene.store.client
    waiting = await client.zrange(f"{QUEUE}:repeat", 0, -1, withscores=True)
    for worker in workers:
        worker.terminate()
    assert [await worker.ended() for worker in workers] == [0, 0, 0]

    begun = ticks_begun(scene)
    gaps = {later - earlier for earlier, later in itertools.pairwise(begun)}
    assert gaps == {PERIOD_MS}, "a tick is missing although a worker could fetch it, or is off the grid"
    assert {tick(line.id) for line in scene.starts()} == {tick(job) for job in scene.journal.ended()}
    assert waiting == [(chaos_ticks.name, begun[-1] + PERIOD_MS)] or waiting[0][1] > begun[-1], "the chain has ended"
    assert await client.zscore(f"{QUEUE}:delayed", f"repeat:{chaos_ticks.name}:{waiting[0][1]:.0f}") is not None
    completed = [tick(job) for job in await client.zrange(f"{QUEUE}:completed", 0, -1)]
    assert len(completed) == len(set(completed)) == len(begun), "a tick has two jobs"
    again = len(scene.starts()) - len(begun)
    figure(f"{len(begun)} ticks, 5 workers killed in one: {again} started again, none missing, none twice; chain alive")
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
