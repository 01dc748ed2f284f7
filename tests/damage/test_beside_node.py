"""BullMQ for Node beside us: the same stories with its worker, and the ids that its producer lets
through.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corral import Job, Payload, Queue
from damage.judge import KEY_WORDS
from damage.layout import Layout
from damage.matrix import CONCURRENCIES, LAID_OUT, Case, Intruder, all_cases, all_runs, sampled
from damage.theirs import Theirs, node_worker

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.corral_untidy("each case damages its queue; it is judged, and cleared, by itself"),
]

TAKEN = {word for word in KEY_WORDS if word.count(":") != 1}
"""BullMQ refuses an id with one colon, and takes one with two."""


class Note(Payload):
    text: str = ""


notes = Queue("notes", Note)
IN_CI = os.environ.get("CI") == "true"
PATIENCE_SECONDS = 10.0 if IN_CI else 5.0
"""How long BullMQ may take: it recovers what stalled within two of these trials' locks, which are
1.5 s.
"""
AT_HOME = 14
"""Cases that it runs without CI: one of each group."""
BOUND_SECONDS = 90.0


async def test_the_same_stories_with_bullmq_as_the_worker(
    node_modules: Path, stage: Any, figure: Callable[[str], None]
) -> None:
    """A figure beside ours. BullMQ is not judged by it: the test only asserts that it ran."""
    runs = sampled(all_runs(all_cases()), 100_000 if IN_CI else AT_HOME)
    async with node_worker(node_modules, stage.url) as node:
        layouts = [
            (Layout(stage.client, case, f"n{number}"), slots)
            for number, (case, slots) in enumerate(runs)
        ]
        theirs = await stage.run(
            layouts, lambda: Theirs(node), seconds=PATIENCE_SECONDS, bound_seconds=BOUND_SECONDS
        )
    assert theirs
    assert any(trial.completed for trial in theirs)
    ours = await stage.run(
        [(Layout(stage.client, trial.case, trial.layout.queue), trial.slots) for trial in theirs],
        stage.ours,
    )
    for text, trials in (("ours", ours), ("BullMQ for Node", theirs)):
        lost, unfinished = (
            sum(trial.lost for trial in trials),
            sum(trial.unfinished for trial in trials),
        )
        figure(
            f"{len(trials)} cases with {text}: innocents lost (in no place, or in two): {lost}; "
            f"not completed in time: {unfinished}"
        )
    stage.judge(ours)


@pytest.mark.trap(11)
async def test_what_is_in_the_quarantine_survives_the_removal_of_orphans(
    node_modules: Path, workshop: Any, binary: Any
) -> None:
    """`queue.removeOrphanedJobs()` deletes what looks like a job of the queue and is in no
    container.
    """

    async def process(_job: Job[Note]) -> None:
        return None

    await binary.rpush("bull:notes:list", "somebody's data")
    await binary.hset("bull:notes:completed", mapping={"name": "x", "data": "{}", "opts": "{}"})
    await binary.lpush("bull:notes:wait", "list", "completed")
    await workshop.burst(notes.processed_by(process))
    before = await binary.hgetall("corral:bull:notes:quarantine")
    async with node_worker(node_modules, workshop.url) as node:
        await node.ask("remove_orphans", queue="notes")
    assert before.keys() == {b"list", b"completed"}
    assert await binary.hgetall("corral:bull:notes:quarantine") == before
    kept = {job: json.loads(text)["key"] for job, text in before.items()}
    assert await binary.lrange(kept[b"list"], 0, -1) == [b"somebody's data"]
    assert await binary.hget(kept[b"completed"], "name") == b"x"


@pytest.mark.trap(9)
@pytest.mark.parametrize("slots", CONCURRENCIES)
async def test_ids_that_its_producer_lets_through(
    node_modules: Path, stage: Any, slots: int
) -> None:
    """Trap T9: `queue.add(name, data, {jobId: "completed"})` on an empty queue, and then twenty
    jobs.
    """
    async with node_worker(node_modules, stage.url) as node:

        def adding(queue: str, word: str) -> Callable[[], Any]:
            async def add() -> None:
                try:
                    await node.ask("add", queue=queue, id=word)
                except RuntimeError:
                    assert word in {"marker", "events"}, (
                        "what it writes next is of a wrong type then"
                    )

            return add

        layouts = []
        for number, word in enumerate(sorted(TAKEN - set(LAID_OUT))):
            case = Case(
                f"producer/{word}",
                "producer",
                intruder=Intruder(word.encode(), "wait", "job"),
                near=None,
            )
            layouts.append(
                (Layout(stage.client, case, f"p{number}", adding(f"p{number}", word)), slots)
            )
        trials = await stage.run(layouts, stage.ours)
    stage.judge(trials)


async def test_a_schedule_of_less_than_a_millisecond(node_modules: Path, stage: Any) -> None:
    """`upsertJobScheduler("tiny", {every: 0.4})` is taken by BullMQ; twenty jobs beside it complete
    all the same.
    """
    async with node_worker(node_modules, stage.url) as node:
        runs = []
        for slots in CONCURRENCIES:
            queue = f"t{slots}"

            async def schedule(queue: str = queue) -> None:
                await node.ask("schedule", queue=queue, id="tiny", every=0.4)

            case = Case(
                "producer/every-0.4", "producer", in_line=True
            )  # its iterations are always before a priority
            runs.append((Layout(stage.client, case, queue, schedule), slots))
        trials = await stage.run(runs, stage.ours)
    stage.judge(trials)
