"""What BullMQ for Node keeps beside a job goes on when the job was done by us: deduplication, parents, children."""

from __future__ import annotations

from typing import Any

import pytest

from chaos.scene import Scene
from interop.node import Node

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("ending", [{"completed": 1}, {"failed": 1}], ids=["completed", "failed"])
async def test_a_deduplication_id_is_free_again_when_its_job_has_ended(
    node: Node, scene: Scene, all_done: Any, ending: dict[str, int]
) -> None:
    job = {"data": {"fails": ending.get("failed", 0)}, "opts": {"deduplication": {"id": "one-at-a-time"}}}
    (first,) = await node.add(job)
    assert await node.add(job) == [first], "while it waits, there is no second one"
    await scene.hire()
    await all_done(**ending)

    (second,) = await node.add(job)
    assert second != first
    await all_done(**{how: count + 1 for how, count in ending.items()})


async def test_the_last_job_that_was_kept_back_runs_when_the_active_one_has_ended(
    node: Node, scene: Scene, all_done: Any
) -> None:
    """`keepLastIfActive`: of those that came while we ran one, the last is made when we finish."""
    opts = {"deduplication": {"id": "the-last-one", "keepLastIfActive": True}}
    await scene.hire()
    (first,) = await node.add({"data": {"ms": 500, "value": "first"}, "opts": opts})
    await scene.started(first)
    for value in ("skipped", "last"):
        assert await node.add({"data": {"value": value}, "opts": opts}) == [first]
    await all_done(completed=2)

    (second,) = [line.id for line in scene.journal.starts() if line.id != first]
    assert (await node.job(second))["returnvalue"] == "last"


async def test_a_parent_in_nodes_queue_goes_on_when_we_have_done_its_children(
    node: Node, scene: Scene, all_done: Any
) -> None:
    await scene.hire()
    await node.ask("work", queue="parents", concurrency=1)
    children = [{"name": "child", "queueName": "chaos", "data": {"value": value}} for value in ("one", 2, None)]
    flow = await node.ask("flow", tree={"name": "parent", "queueName": "parents", "data": {}, "children": children})
    await all_done("parents", completed=1)

    seen = await node.job(flow["id"], "parents")
    assert sorted(map(str, seen["returnvalue"])) == ["2", "None", "one"], "the values that we returned"


async def test_a_parent_in_nodes_queue_fails_when_we_have_failed_its_child(
    node: Node, scene: Scene, all_done: Any
) -> None:
    await scene.hire()
    await node.ask("work", queue="parents", concurrency=1)
    child = {"name": "child", "queueName": "chaos", "data": {"fails": 1}, "opts": {"failParentOnFailure": True}}
    flow = await node.ask("flow", tree={"name": "parent", "queueName": "parents", "data": {}, "children": [child]})
    await all_done("parents", failed=1)

    seen = await node.job(flow["id"], "parents")
    assert seen["failedReason"] == f"child bull:chaos:{flow['children'][0]} failed"


async def test_a_parent_in_our_queue_runs_when_node_has_done_its_child(node: Node, scene: Scene, all_done: Any) -> None:
    await scene.hire()
    child = {"name": "child", "queueName": "children", "data": {"value": 1}}
    tree = {"name": "parent", "queueName": "chaos", "data": {"value": "done"}, "children": [child]}
    flow = await node.ask("flow", tree=tree)
    assert (await node.job(flow["id"]))["state"] == "waiting-children"
    await node.ask("work", queue="children", concurrency=1)
    await all_done(completed=1)

    assert [line.id for line in scene.journal.lines() if line.event == "end"] == [flow["children"][0], flow["id"]]
    assert (await node.job(flow["id"]))["returnvalue"] == "done"


@pytest.mark.trap(24)
async def test_our_worker_is_counted_once(node: Node, scene: Scene) -> None:
    """Whatever other connections it has: only the one that waits for work carries the name."""
    await scene.hire(lock_seconds=1)
    await scene.completed(await scene.enqueue({"ms": 700}))  # every connection that it ever makes is made
    await scene.idle()
    seen = await node.ask("workers", queue="chaos")
    assert seen["count"] == 1
    assert len(seen["names"]) == 1
    assert (await node.ask("workers", queue="chaos-threads"))["count"] == 0, "it serves one queue only"
