"""`kill -9` of a worker in mid-job."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from chaos.acme_chaos import chaos, chaos_threads
from chaos.scene import Scene

pytestmark = pytest.mark.asyncio

LOCK_SECONDS, STALLED_SECONDS = 1.0, 1.0
FAST = {"lock_seconds": LOCK_SECONDS, "stalled_interval_seconds": STALLED_SECONDS}
BOUND_SECONDS = max(2 * STALLED_SECONDS, LOCK_SECONDS + STALLED_SECONDS) + 1.0
"""Two checks, or one after the lock has run out; and a second for two busy cores."""
APART_SECONDS = 1.0
"""A worker starts the next job that has stalled before when the one before it has lived for this
long.
"""
JOBS = 200


def halves(scenes: tuple[Scene, Scene], kills: int) -> list[tuple[Scene, int]]:
    """How many of the kills happen on each scene."""
    return [(scenes[0], kills // 2), (scenes[1], kills - kills // 2)]


@pytest.mark.timing
async def test_another_worker_starts_the_job_of_a_killed_one_in_time(
    scenes: tuple[Scene, Scene], kills: int, figure: Callable[[str], None]
) -> None:
    """The first within max(2 S, L + S) + 1 s, whenever between renewals and checks the kill comes;
    the next ones a second apart, since each of them may be what killed the worker.
    """
    chance = random.Random(2)
    waited = [
        each
        for half in await asyncio.gather(*(_waits(*half, chance) for half in halves(scenes, kills)))
        for each in half
    ]
    first, late = (
        [each[0] for each in waited],
        [lateness for each in waited for lateness in _late(each)],
    )
    figure(
        f"{kills} kills: the first of {sum(map(len, waited))} jobs started again after {min(first):.2f} to "
        f"{max(first):.2f} s, the next ones at most {max(late):.2f} s beyond {APART_SECONDS} s for each before them"
    )
    assert max(late) <= BOUND_SECONDS


def _late(waited: list[float]) -> list[float]:
    """How long after the kill each of its jobs started, without the second for each that was before
    it.
    """
    return [seconds - place * APART_SECONDS for place, seconds in enumerate(waited)]


async def _waits(scene: Scene, kills: int, chance: random.Random) -> list[list[float]]:
    """Kill so many workers one after the other; for each, the seconds until another started its
    jobs, in order.
    """
    await scene.hire(**FAST)
    waited: list[list[float]] = []
    enqueued: list[str] = []
    for _ in range(kills):
        doomed = await scene.hire(**FAST)
        enqueued += await scene.enqueue(
            *[{"ms": 1200}] * 10
        )  # more than one worker alone can start
        await scene.runs(doomed)
        await scene.passed(scene.journal.starts(by=doomed.pid)[0].at + chance.random())
        killed = doomed.kill()
        held = scene.journal.running(doomed.pid)
        waited.append(sorted([await scene.started(job, since=killed) - killed for job in held]))
        await scene.completed(enqueued)
    return waited


async def test_kills_lose_nothing_and_leave_no_trace(
    scenes: tuple[Scene, Scene], kills: int, figure: Callable[[str], None]
) -> None:
    """Every acknowledged job ends, once, in one place, and none is started again but those found
    without a worker.
    """
    chance = random.Random(20)
    again = sum(
        await asyncio.gather(*(_run_again(*half, chance) for half in halves(scenes, kills)))
    )
    figure(
        f"{kills} kills at {JOBS} jobs each: {again} jobs ran again, none lost, none in two places, no lock left"
    )
    assert again > 0, "no kill hit a job: nothing was shown"


async def _run_again(scene: Scene, kills: int, chance: random.Random) -> int:
    """Kill so many of three workers, one after the other; how many jobs were started again."""
    workers = await asyncio.gather(*(scene.hire(**FAST) for _ in range(3)))
    enqueued: list[str] = []
    for _ in range(kills):
        enqueued += await scene.enqueue(*({"ms": chance.randrange(10, 100)} for _ in range(JOBS)))
        doomed = workers.pop(0)
        await scene.runs(doomed)
        await scene.passed(scene.starts()[-1].at + chance.random() / 2)
        await scene.runs(doomed)
        doomed.kill()
        workers.append(await scene.hire(**FAST))
        await scene.completed(enqueued)
    for worker in workers:
        worker.terminate()
    assert [await worker.ended() for worker in workers] == [0, 0, 0]

    await scene.completed(enqueued)
    return len(scene.starts()) - len(enqueued)


async def test_a_processor_that_sleeps_through_three_locks_starts_once(scene: Scene) -> None:
    """On the event loop and on a thread: neither holds up the renewal of locks.

    Another worker is there to take it.
    """
    await asyncio.gather(
        *(scene.hire(serves=(chaos.name, chaos_threads.name), **FAST) for _ in range(2))
    )
    sleepy = {"ms": 3 * LOCK_SECONDS * 1000, "blocks": True}
    on_thread = await scene.enqueue(sleepy, queue=chaos_threads)
    await scene.started(*on_thread)
    enqueued = [*on_thread, *await scene.enqueue(sleepy)]
    await scene.completed(enqueued)
    assert scene.each_started_once(enqueued)
