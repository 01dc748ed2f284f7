"""The figures of docs/promises.md that no other test shows: how often a job starts, and when it is
handed back.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import pytest

from chaos.scene import Scene
from corral import Fixed

pytestmark = pytest.mark.asyncio

FAST = {"lock_seconds": 1.0, "stalled_interval_seconds": 1.0}
WORKERS = 3
ATTEMPTS, MAX_STALLED = 3, 1
GRACE_SECONDS = 1.0
VISIBLE_SECONDS = 1.0


async def test_without_a_fault_no_job_starts_twice(
    scene: Scene, at_length: bool, figure: Callable[[str], None]
) -> None:
    count = 20_000 if at_length else 2_000
    await asyncio.gather(*(scene.hire(concurrency=20) for _ in range(WORKERS)))
    enqueued = await scene.enqueue(*[{}] * count)
    await scene.completed(enqueued, seconds=90, every=0.1)
    assert scene.each_started_once(enqueued)
    figure(f"{count} jobs, {WORKERS} workers: each started once")


async def test_a_job_starts_at_most_attempts_and_max_stalled_times(scene: Scene) -> None:
    """The worker is killed in its first start and in its fourth; the two between fail.

    There is no fifth.
    """
    doomed = await scene.hire(**FAST, max_stalled=MAX_STALLED)
    work = {"ms": 300, "fails": ATTEMPTS - 1}
    (job,) = await scene.enqueue(work, attempts=ATTEMPTS, backoff=Fixed(timedelta(milliseconds=10)))
    for start in (1, ATTEMPTS + MAX_STALLED):
        await scene.until(
            lambda start=start: len(scene.journal.starts(of=job)) == start, f"start {start}"
        )
        doomed.kill()
        doomed = await scene.hire(**FAST, max_stalled=MAX_STALLED)
    await scene.settled(1)
    assert await scene.failed() == {job}
    assert [line.attempt for line in scene.journal.starts(of=job)] == [1, 1, 2, 3]


@pytest.mark.timing
async def test_what_does_not_finish_in_its_grace_runs_elsewhere_within_a_second(
    scene: Scene, figure: Callable[[str], None]
) -> None:
    stopped = await scene.hire(concurrency=10, shutdown_timeout_seconds=GRACE_SECONDS)
    go = scene.folder / "go"
    enqueued = await scene.enqueue(*[{"waits_for": str(go)}] * 10)
    await scene.runs(stopped, len(enqueued))
    other = await scene.hire(concurrency=10)
    stopped.terminate()
    asked = asyncio.get_running_loop().time()
    await scene.runs(other, len(enqueued))
    visible = asyncio.get_running_loop().time() - asked - GRACE_SECONDS
    go.touch()
    await scene.settled(len(enqueued))
    figure(
        f"{len(enqueued)} jobs run elsewhere {visible:.2f} s after the grace of {GRACE_SECONDS:g} s"
    )
    assert visible <= VISIBLE_SECONDS
    assert Counter((line.id, line.attempt) for line in scene.starts()) == {
        (job, 1): 2 for job in enqueued
    }
    assert await scene.failed() == set()
    assert await scene.stalls(enqueued) == {}
