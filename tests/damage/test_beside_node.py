"""BullMQ for Node beside us: the same stories with its worker, and the ids that its producer lets through."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from damage.judge import KEY_WORDS
from damage.layout import Layout
from damage.matrix import CONCURRENCIES, LAID_OUT, Case, Intruder, all_cases, all_runs, sampled
from damage.theirs import Theirs, node_worker

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.corral_untidy("each case damages its queue; it is judged, and cleared, by itself"),
]

PATIENCE_SECONDS = 5.0
"""How long BullMQ may take: it recovers what stalled within two of these trials' locks, which are 1.5 s."""


@pytest.fixture
def bound_seconds() -> float:
    """How long BullMQ's stories may take in all; so many of them are run."""
    return 120.0 if os.environ.get("CI") == "true" else 6.0


async def test_the_same_stories_with_bullmq_as_the_worker(
    node_modules: Path, stage: Any, bound_seconds: float, figure: Callable[[str], None]
) -> None:
    """A figure beside ours; BullMQ is not judged by it, and no more is asserted than that it ran."""
    runs = sampled(all_runs(all_cases()), 100_000)
    async with node_worker(node_modules, stage.url) as node:
        layouts = [(Layout(stage.client, case, f"n{number}"), slots) for number, (case, slots) in enumerate(runs)]
        theirs = await stage.run(layouts, lambda: Theirs(node), seconds=PATIENCE_SECONDS, bound_seconds=bound_seconds)
    assert theirs
    assert any(trial.completed for trial in theirs)
    ours = await stage.run(
        [(Layout(stage.client, trial.case, trial.layout.queue), trial.slots) for trial in theirs], stage.ours
    )
    for told, trials in (("ours", ours), ("BullMQ for Node", theirs)):
        lost, unfinished = sum(trial.lost for trial in trials), sum(trial.unfinished for trial in trials)
        figure(
            f"{len(trials)} cases with {told}: innocents lost (in no place, or in two): {lost}; "
            f"not completed within {PATIENCE_SECONDS if trials is theirs else 30} s: {unfinished}"
        )
    assert sum(trial.lost + trial.unfinished for trial in ours) == 0


@pytest.mark.parametrize("slots", CONCURRENCIES)
async def test_ids_that_its_producer_lets_through(node_modules: Path, stage: Any, slots: int) -> None:
    """Trap T9: `queue.add(name, data, {jobId: "completed"})` on an empty queue, and then twenty jobs."""
    async with node_worker(node_modules, stage.url) as node:

        def adding(queue: str, word: str) -> Callable[[], Any]:
            async def add() -> None:
                try:
                    await node.ask("add", queue=queue, id=word)
                except RuntimeError:
                    assert word in {"marker", "events", "wait"}, "BullMQ refuses no id; what it writes then may fail"

            return add

        layouts = []
        for number, word in enumerate(sorted(KEY_WORDS - set(LAID_OUT))):
            case = Case(f"producer/{word}", "producer", intruder=Intruder(word.encode(), "wait", "job"), near=None)
            layouts.append((Layout(stage.client, case, f"p{number}", adding(f"p{number}", word)), slots))
        trials = await stage.run(layouts, stage.ours)
    faults = [f"{trial.name}: {fault.text}" for trial in trials for fault in trial.faults.values()]
    assert not faults, "\n".join([f"{len(faults)} faults:", *faults])


async def test_a_schedule_of_less_than_a_millisecond(node_modules: Path, stage: Any) -> None:
    """`upsertJobScheduler("tiny", {every: 0.4})` is taken by BullMQ; twenty jobs beside it complete all the same."""
    async with node_worker(node_modules, stage.url) as node:
        runs = []
        for slots in CONCURRENCIES:
            queue = f"t{slots}"

            async def schedule(queue: str = queue) -> None:
                await node.ask("schedule", queue=queue, id="tiny", every=0.4)

            case = Case("producer/every-0.4", "producer")
            runs.append((Layout(stage.client, case, queue, schedule), slots))
        trials = await stage.run(runs, stage.ours)
    faults = [f"{trial.name}: {fault.text}" for trial in trials for fault in trial.faults.values()]
    assert not faults, "\n".join([f"{len(faults)} faults:", *faults])
