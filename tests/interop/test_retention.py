"""Our default retention beside BullMQ for Node: nothing of Node's is removed, whoever ends the last
job.
"""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chaos.scene import Scene
from corral import Every, Fail, Job, Payload, Queue
from corral.jobs import new_job_id
from corral.testing import Kit
from interop.node import Node, node_process

pytestmark = pytest.mark.asyncio

DAY = timedelta(days=1)
COMPLETED, FAILED = 150, 20


class Letter(Payload):
    """A job of either client; `fails` is what the driver's worker reads too."""

    fails: int = 0


letters = Queue("letters", Letter)
"""It declares no retention."""


async def process(job: Job[Letter]) -> None:
    if job.payload.fails:
        raise Fail("as the payload says")


async def build_history(scene: Scene, node: Node, all_done: Any) -> dict[str, set[str]]:
    """Jobs that a Node worker has ended, a month ago; their ids by state."""
    client = scene.store.client
    await node.add(
        *[{"data": {}, "opts": {}}] * COMPLETED,
        *[{"data": {"fails": 9}, "opts": {}}] * FAILED,
        queue="letters",
    )
    await node.ask("work", queue="letters", concurrency=20)
    await all_done("letters", completed=COMPLETED, failed=FAILED)
    history = {}
    for state in ("completed", "failed"):
        scored = await client.zrange(f"bull:letters:{state}", 0, -1, withscores=True)
        month_ms = 30 * DAY // timedelta(milliseconds=1)
        await client.zadd(
            f"bull:letters:{state}", {job_id: score - month_ms for job_id, score in scored}
        )
        history[state] = {job_id for job_id, _ in scored}
    return history


async def finished(scene: Scene, state: str) -> set[str]:
    """The ids in a set; each has its job."""
    client = scene.store.client
    ids = set(await client.zrange(f"bull:letters:{state}", 0, -1))
    assert await client.exists(*(f"bull:letters:{job_id}" for job_id in ids)) == len(ids)
    return ids


async def test_a_worker_of_ours_in_a_queue_of_nodes(
    scene: Scene, node: Node, node_modules: Path, all_done: Any, figure: Any
) -> None:
    async with node_process(node_modules, scene.store.socket, scene.journal.path) as earlier:
        history = await build_history(scene, earlier, all_done)
    kit = Kit(scene.store.url)
    named = [{"jobId": new_job_id()}, {"jobId": "a-name"}]
    theirs = await node.add(
        {"data": {}, "opts": {}},
        {"data": {"fails": 9}, "opts": {}},
        {"data": {}, "opts": named[0]},
        {"data": {"fails": 9}, "opts": named[1]},
        queue="letters",
    )
    ours = [(await kit.enqueue(letters, Letter(fails=fails))).id for fails in (0, 1)]
    await kit.drain(letters.processed_by(process))
    for place, state in enumerate(("completed", "failed")):
        assert await finished(scene, state) == {*history[state], *theirs[place::2], ours[place]}
    kit.travel(8 * DAY)
    later = [(await kit.enqueue(letters, Letter(fails=fails))).id for fails in (0, 1)]
    await kit.drain(letters.processed_by(process))
    for place, state in enumerate(("completed", "failed")):
        assert await finished(scene, state) == {*history[state], *theirs[place::2], later[place]}, (
            "what is due"
        )
    figure(
        f"{COMPLETED} completed and {FAILED} failed jobs of Node, and 8 of both by our worker: "
        "none of Node's gone"
    )


async def test_a_producer_of_ours_in_a_queue_that_node_works_off(
    scene: Scene, node: Node, all_done: Any
) -> None:
    history = await build_history(scene, node, all_done)
    kit = Kit(scene.store.url)
    ours = [
        (await kit.enqueue(letters, Letter(fails=9 * fails), attempts=1)).id for fails in (0, 1)
    ]
    await all_done("letters", completed=COMPLETED + 1, failed=FAILED + 1)
    for place, state in enumerate(("completed", "failed")):
        assert await finished(scene, state) == {*history[state], ours[place]}


async def test_an_iteration_that_node_made_of_our_schedule_is_still_marked_as_ours(
    scene: Scene, node: Node
) -> None:
    """BullMQ copies what it does not know from one iteration to the next."""
    client = scene.store.client
    kit = Kit(scene.store.url)
    async with kit.connect(letters) as jobs:
        await jobs.schedule(letters, Letter(), Every(timedelta(seconds=1)), id="hourly")
    await node.ask("work", queue="letters", concurrency=1)

    async def next_one() -> bool:
        return bool(
            await client.zcard("bull:letters:completed")
            and await client.zcard("bull:letters:delayed")
        )

    await scene.until(next_one, "Node has run an iteration and made the next one")
    (job_id,) = await client.zrange("bull:letters:delayed", 0, -1)
    opts = json.loads(await client.hget(f"bull:letters:{job_id}", "opts"))
    assert opts["repeat"]["count"] > 1
    assert opts["corral"] == {"scheduled": True}
    assert "removeOnComplete" not in opts
    await node.ask("unschedule", queue="letters", id="hourly")
