"""Jobs that have stalled before start one after the other, beside fresh ones: each of them may be a
poison job.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from typing import Any

import pytest

from chaos.acme_chaos import chaos, chaos_threads
from chaos.journal import Line
from chaos.scene import Scene
from corral import Queue

pytestmark = pytest.mark.asyncio

FAST = {"lock_seconds": 1.0, "stalled_interval_seconds": 1.0}
TEN_MINUTES = 600_000
APART_SECONDS = 1.0
"""How long a job that has stalled before must have lived before the next one starts beside it."""
CLOCK_SECONDS = 0.05
"""By how much the journal's moments may differ from the worker's own."""
LOOKED_PAST = 200
SAMPLE = """
local clock = redis.call('TIME')
return {clock[1], clock[2], redis.call('LRANGE', KEYS[1] .. 'wait', 0, -1),
  redis.call('LRANGE', KEYS[1] .. 'active', 0, -1)}"""


async def enqueue_stalled(
    scene: Scene, *works: dict[str, Any], queue: Queue[Any] = chaos, **options: Any
) -> list[str]:
    """Write jobs that were started once, and whose worker died; returns their ids."""
    ids = await scene.enqueue(*works, queue=queue, **options)
    for job in ids:
        await scene.store.client.hset(f"bull:{queue.name}:{job}", mapping={"stc": 1, "ats": 1})
    return ids


def starts(scene: Scene, jobs: Collection[str]) -> list[Line]:
    """The starts of these jobs, in order."""
    return [line for line in scene.starts() if line.id in jobs]


def apart(lines: Sequence[Line]) -> list[float]:
    """The seconds between starts."""
    return [later.at - earlier.at for earlier, later in pairwise(lines)]


def most_at_once(scene: Scene, jobs: Collection[str], *, until: float) -> int:
    """How many of these jobs ran at the same time, at most, up to a moment."""
    running, most = 0, 0
    for line in scene.journal.lines():
        if line.id in jobs and line.at < until:
            running += {"start": 1, "end": -1}.get(line.event, 0)
            most = max(most, running)
    return most


@pytest.mark.timing
@pytest.mark.corral_untidy("its worker ends in the middle of its jobs")
async def test_a_long_one_holds_up_no_fresh_job_and_the_next_one_for_a_second(
    scene: Scene, figure: Callable[[str], None]
) -> None:
    stalled = await enqueue_stalled(scene, *[{"ms": TEN_MINUTES}] * 3)
    fresh = await scene.enqueue(*[{"ms": 50}] * 100)
    await scene.hire(concurrency=5, **FAST)
    await scene.until(lambda: scene.journal.ended() == set(fresh), "all fresh jobs have run")
    await scene.until(lambda: len(starts(scene, stalled)) == 3, "the others run beside each other")

    lines = starts(scene, stalled)
    most = most_at_once(scene, fresh, until=lines[1].at)
    figure(
        f"those that stalled started {[f'{each:.2f} s' for each in apart(lines)]} apart, {most} fresh jobs beside"
    )
    assert [line.id for line in lines] == stalled
    assert most == 4, "all slots but one are for fresh jobs"
    assert min(apart(lines)) >= APART_SECONDS - CLOCK_SECONDS
    assert max(apart(lines)) <= 2 * APART_SECONDS


@pytest.mark.corral_untidy("its worker ends in the middle of its jobs")
async def test_one_process_starts_them_one_after_the_other_whatever_their_queue(
    scene: Scene,
) -> None:
    """A poison job of one queue kills what the process runs of every other."""
    queues = (chaos, chaos_threads)
    stalled = [
        job
        for each in queues
        for job in await enqueue_stalled(scene, *[{"ms": 60_000}] * 2, queue=each)
    ]
    await scene.hire(serves=tuple(each.name for each in queues), **FAST)
    await scene.until(lambda: len(scene.starts()) == len(stalled), "all have started")
    assert min(apart(scene.starts())) >= APART_SECONDS - CLOCK_SECONDS


@pytest.mark.parametrize("priority", [0, 5], ids=["waiting", "prioritized"])
async def test_the_next_one_starts_when_the_one_before_has_ended(
    scene: Scene, priority: int
) -> None:
    stalled = await enqueue_stalled(scene, *[{"ms": 30}] * 20, priority=priority)
    fresh = await scene.enqueue(*[{"ms": 30}] * 20, priority=priority)
    await scene.hire(concurrency=8, **FAST)
    await scene.completed([*stalled, *fresh])
    last = starts(scene, stalled)[-1].at + 1
    assert most_at_once(scene, stalled, until=last) == 1
    assert [line.id for line in starts(scene, stalled)] == stalled
    assert scene.each_started_once([*stalled, *fresh])


@pytest.mark.corral_untidy("its worker ends in the middle of its jobs")
async def test_those_that_are_not_started_wait_in_their_order_and_150_of_them_hold_up_no_fresh_job(
    scene: Scene, figure: Callable[[str], None]
) -> None:
    stalled = await enqueue_stalled(scene, *[{"ms": TEN_MINUTES}] * 150)
    fresh = await scene.enqueue(*[{"ms": 20}] * 20)
    samples: list[tuple[float, list[str], list[str]]] = []
    by_script = scene.store.client.register_script(SAMPLE)

    async def sample_until_done() -> bool:
        seconds, micros, wait, active = await by_script(keys=["bull:chaos:"])
        samples.append((int(seconds) + int(micros) / 1e6, wait[::-1], active))
        return scene.journal.ended() >= set(fresh) and len(starts(scene, stalled)) >= 2

    scene.launch(concurrency=8, **FAST)
    await scene.until(
        sample_until_done,
        "all fresh jobs have run, and two of the others do",
        seconds=20,
        every=0.01,
    )

    first, second = (line.at for line in starts(scene, stalled)[:2])
    figure(
        f"{len(samples)} samples; first fresh job {starts(scene, fresh)[0].at - first:.3f} s after the first of 150 "
        f"that stalled, the second of these {second - first:.2f} s after it"
    )
    assert starts(scene, fresh)[0].at < second
    assert second - first >= APART_SECONDS - CLOCK_SECONDS
    for at, wait, active in samples:
        taken = [job for job in stalled if job in active]
        assert len(taken) <= 1 + max(0, int(at - first + CLOCK_SECONDS))
        assert [job for job in wait if job in stalled] == stalled[len(taken) :], (
            "each is in one place, in order"
        )
        assert taken == stalled[: len(taken)]


async def test_a_fetch_looks_past_200_of_them(scene: Scene, figure: Callable[[str], None]) -> None:
    """Fresh jobs behind more than that wait until they have become fewer."""
    stalled = await enqueue_stalled(scene, *[{"ms": 1}] * (LOOKED_PAST + 50))
    fresh = await scene.enqueue(*[{"ms": 1}] * 20)
    await scene.hire(concurrency=8, **FAST)
    await scene.completed([*stalled, *fresh], seconds=30)

    order = [line.id for line in scene.starts()]
    before = order.index(fresh[0])
    figure(
        f"{before} of {len(stalled)} jobs that stalled had started before the first fresh one behind them"
    )
    assert 49 <= before < len(stalled)
    assert [job for job in order if job in stalled] == stalled


@pytest.mark.timing
@pytest.mark.corral_untidy("its workers end in the middle of their jobs")
async def test_long_jobs_run_side_by_side_again_within_a_minute_of_an_out_of_memory_kill(
    scenes: tuple[Scene, Scene], at_length: bool, figure: Callable[[str], None]
) -> None:
    """A plain worker's, found by the stalled check, and those of a parent's process, handed back by
    it.
    """
    count = 50 if at_length else 8
    plain, below = await asyncio.gather(
        _again_after_a_kill(scenes[0], count, processes=0),
        _again_after_a_kill(scenes[1], count, processes=1),
    )
    figure(
        f"{count} jobs run again {plain:.1f} s after the kill of a plain worker, {below:.1f} s after a parent's"
    )
    assert max(plain, below) <= count * APART_SECONDS + 10


async def _again_after_a_kill(scene: Scene, count: int, *, processes: int) -> float:
    """Kill the process that runs so many long jobs; seconds until all of them run again."""
    how = {"concurrency": count, "processes": processes, **FAST}
    worker = await scene.hire(**how)
    enqueued = await scene.enqueue(*[{"ms": TEN_MINUTES}] * count)
    await scene.until(lambda: len(scene.starts()) == count, "all run")
    pid = scene.starts()[0].pid
    killed = time.time()
    os.kill(pid, signal.SIGKILL)
    if not processes:
        await worker.ended()
        await scene.hire(**how)
    await scene.until(
        lambda: {line.id for line in scene.starts() if line.pid != pid} == set(enqueued),
        "all run again",
        seconds=90,
    )
    again = [line for line in scene.starts() if line.pid != pid]
    assert len(again) == count, "once, and side by side"
    assert scene.journal.running(again[0].pid) == set(enqueued)
    return again[-1].at - killed
