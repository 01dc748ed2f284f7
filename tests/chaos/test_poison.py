"""A job that kills its process fails, and the jobs that ran beside it do not: the worker is started
again each time.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import product
from typing import Any

import pytest

from chaos.fixtures import is_at_length
from chaos.scene import Scene

pytestmark = pytest.mark.asyncio

FAST = {"lock_seconds": 1.0, "stalled_interval_seconds": 1.0}
STALLED = "job stalled more than allowable limit"
CONCURRENCY = 10
SOME = [
    (0, 0, "first", "exit", 5),
    (0, 1, "middle", "segv", 200),
    (0, 2, "last", "exit", 200),
    (1, 0, "middle", "exit", 200),
    (1, 1, "last", "exit", 5),
    (1, 2, "first", "segv", 5),
    (4, 1, "first", "exit", 200),
]
"""Processes, max_stalled, place; how it dies; the others' ms."""
ALL = [
    (*three, "exit" if number % 2 else "segv", 200 if number % 3 else 5)
    for number, three in enumerate(product((0, 1, 4), (0, 1, 2), ("first", "middle", "last")))
]
SEEDS = range(9 if is_at_length() else 2)
"""Where the three stand, and how they die; the worker is plain, a parent of four or a parent of one
in turn.
"""


@asynccontextmanager
async def workers(scene: Scene, processes: int, **how: Any) -> AsyncIterator[None]:
    """One worker process that somebody starts again whenever it dies, or a parent of so many that
    does so itself.
    """
    how = {"concurrency": CONCURRENCY, **FAST, **how}
    if not processes:
        async with scene.restarted(**how):
            yield
        return
    parent = scene.launch(processes=processes, **how)
    yield
    parent.terminate()
    assert await parent.ended() == 0


@pytest.mark.parametrize(
    ("processes", "max_stalled", "place", "dies", "ms"), ALL if is_at_length() else SOME
)
async def test_one_poison_job_among_29_fails_and_takes_none_of_them_along(
    scene: Scene,
    figure: Callable[[str], None],
    processes: int,
    max_stalled: int,
    place: str,
    dies: str,
    ms: int,
) -> None:
    """Where no stall is allowed, those that ran in its process at its only start cannot be
    distinguished from it.

    Nor can those that had run to their end there, as long as the store has not heard of that.
    """
    works: list[dict[str, Any]] = [{"ms": ms}] * 29
    works.insert({"first": 0, "middle": 15, "last": 29}[place], {"dies": dies})
    enqueued = await scene.enqueue(*works)
    poison = enqueued[works.index({"dies": dies})]
    async with workers(scene, processes, max_stalled=max_stalled):
        await scene.settled(len(enqueued))

    starts = scene.journal.starts(of=poison)
    beside = {line.id for line in scene.journal.starts(by=starts[0].pid)} - {poison}
    failed = await scene.failed() - {poison}
    charged = await scene.stalls(enqueued)
    lost = {job: len(scene.journal.starts(of=job)) - (job not in failed) for job in charged}
    unstarted = {job for job, stalls in charged.items() if job != poison and stalls > lost[job]}
    figure(
        f"{processes} processes, max_stalled {max_stalled}, {dies}, the {place} of 30: {len(starts)} starts, "
        f"{len(failed)} of 29 innocents failed, {len(charged) - 1} charged, {len(unstarted)} of these unstarted"
    )
    reason = await scene.store.client.hget(f"bull:chaos:{poison}", "failedReason")
    assert (len(starts), reason) == (max_stalled + 1, STALLED)
    assert failed <= {line.id for line in scene.starts()}, "none has failed without having started"
    assert failed <= (beside if max_stalled == 0 else set())


@pytest.mark.parametrize("seed", SEEDS)
async def test_three_poison_jobs_among_300_take_at_most_two_along(
    scene: Scene, figure: Callable[[str], None], seed: int
) -> None:
    """An innocent job may run beside two of them: its second stall is one too many."""
    chance = random.Random(seed)
    places = chance.sample(range(303), 3)
    works: list[dict[str, Any]] = [{"ms": chance.randrange(1, 60)} for _ in range(303)]
    for place in places:
        works[place] = {"dies": chance.choice(("exit", "segv"))}
    enqueued = await scene.enqueue(*works)
    poisons = {enqueued[place] for place in places}
    async with workers(scene, (0, 4, 1)[seed % 3], max_stalled=1):
        await scene.settled(len(enqueued))

    failed = await scene.failed()
    starts = sorted(len(scene.journal.starts(of=poison)) for poison in poisons)
    figure(
        f"poisons at {sorted(places)} of 303: {len(failed - poisons)} of 300 failed, poisons started {starts} times"
    )
    assert poisons <= failed
    assert starts[-1] <= 2
    assert failed <= {line.id for line in scene.starts()}, "none has failed without having started"
    assert len(failed - poisons) <= 2
