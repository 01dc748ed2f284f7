"""What BullMQ keeps beside a job goes on when the job was done by us: deduplication, parents,
children.
"""

from __future__ import annotations

from typing import Any

import pytest

from chaos.acme_chaos import chaos
from chaos.scene import Scene
from corral.inspector import JobInspector
from interop.peers import Peer

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("ending", [{"completed": 1}, {"failed": 1}], ids=["completed", "failed"])
@pytest.mark.matrix(19)
async def test_a_deduplication_id_is_free_again_when_its_job_has_ended(
    peer: Peer, scene: Scene, all_done: Any, ending: dict[str, int]
) -> None:
    job = {
        "data": {"fails": ending.get("failed", 0)},
        "opts": {"deduplication": {"id": "one-at-a-time"}},
    }
    (first,) = await peer.add(job)
    assert await peer.add(job) == [first], "while it waits, there is no second one"
    await scene.hire()
    await all_done(**ending)

    (second,) = await peer.add(job)
    assert second != first
    await all_done(**{how: count + 1 for how, count in ending.items()})


@pytest.mark.matrix(19)
async def test_the_last_job_that_was_kept_back_runs_when_the_active_one_has_ended(
    peer: Peer, scene: Scene, all_done: Any
) -> None:
    """`keepLastIfActive`: of those that came while we ran one, the last is made when we finish."""
    opts = {"deduplication": {"id": "the-last-one", "keepLastIfActive": True}}
    await scene.hire()
    (first,) = await peer.add({"data": {"ms": 500, "value": "first"}, "opts": opts})
    await scene.started(first)
    for value in ("skipped", "last"):
        assert await peer.add({"data": {"value": value}, "opts": opts}) == [first]
    await all_done(completed=2)

    (second,) = [line.id for line in scene.journal.starts() if line.id != first]
    assert (await peer.job(second))["returnvalue"] == "last"


@pytest.mark.matrix(19)
async def test_an_id_with_a_time_to_live_outlives_its_job(
    peer: Peer, scene: Scene, all_done: Any
) -> None:
    job = {"data": {}, "opts": {"deduplication": {"id": "for-a-while", "ttl": 60_000}}}
    await scene.hire()
    (first,) = await peer.add(job)
    await all_done(completed=1)
    assert await peer.add(job) == [first], "we have left it its time"
    assert 0 < await scene.store.client.pttl("bull:chaos:de:for-a-while") <= 60_000


@pytest.mark.matrix(19)
async def test_the_last_of_those_that_replace_each_other_is_run_by_us(
    peer: Peer, scene: Scene, all_done: Any
) -> None:
    """`replace` with `extend`: each puts the delayed one before it away; their events name both."""
    await scene.hire()
    policy = {"id": "debounced", "ttl": 600, "extend": True, "replace": True}
    ids = []
    for value in ("first", "second", "last"):
        ids += await peer.add(
            {"data": {"value": value}, "opts": {"delay": 500, "deduplication": policy}}
        )
    await all_done(completed=1)
    assert [line.id for line in scene.starts()] == [ids[-1]]
    assert (await peer.job(ids[-1]))["returnvalue"] == "last"
    entries = [entry for _, entry in await scene.store.client.xrange("bull:chaos:events")]
    put_away = [
        (each["deduplicatedJobId"], each["jobId"])
        for each in entries
        if each["event"] == "deduplicated"
    ]
    assert put_away == [(ids[0], ids[1]), (ids[1], ids[2])]


@pytest.mark.matrix(22)
async def test_a_parent_in_their_queue_goes_on_when_we_have_done_its_children(
    peer: Peer, scene: Scene, all_done: Any
) -> None:
    await scene.hire()
    await peer.ask("work", queue="parents", concurrency=1)
    children = [
        {"name": "child", "queueName": "chaos", "data": {"value": value}}
        for value in ("one", 2, None)
    ]
    flow = await peer.ask(
        "flow", tree={"name": "parent", "queueName": "parents", "data": {}, "children": children}
    )
    await all_done("parents", completed=1)

    seen = await peer.job(flow["id"], "parents")
    assert sorted(map(str, seen["returnvalue"])) == ["2", "None", "one"], (
        "the values that we returned"
    )


@pytest.mark.matrix(22)
async def test_a_parent_in_their_queue_fails_when_we_have_failed_its_child(
    peer: Peer, scene: Scene, all_done: Any
) -> None:
    await scene.hire()
    await peer.ask("work", queue="parents", concurrency=1)
    child = {
        "name": "child",
        "queueName": "chaos",
        "data": {"fails": 1},
        "opts": {"failParentOnFailure": True},
    }
    flow = await peer.ask(
        "flow", tree={"name": "parent", "queueName": "parents", "data": {}, "children": [child]}
    )
    await all_done("parents", failed=1)

    seen = await peer.job(flow["id"], "parents")
    assert seen["failedReason"] == f"child bull:chaos:{flow['children'][0]} failed"


@pytest.mark.matrix(22)
@pytest.mark.parametrize(
    "policy", ["continueParentOnFailure", "ignoreDependencyOnFailure", "removeDependencyOnFailure"]
)
async def test_a_parent_in_their_queue_goes_on_without_the_child_that_we_have_failed(
    peer: Peer, scene: Scene, all_done: Any, policy: str
) -> None:
    await scene.hire()
    await peer.work("parents")
    children = [
        {"name": "child", "queueName": "chaos", "data": {"fails": 1}, "opts": {policy: True}}
    ]
    if policy != "continueParentOnFailure":  # that one does not wait for its other children
        children.append(
            {"name": "child", "queueName": "chaos", "data": {"value": "done", "ms": 300}}
        )
    tree = {"name": "parent", "queueName": "parents", "data": {}, "children": children}
    flow = await peer.ask("flow", tree=tree)
    await all_done("parents", completed=1)
    await all_done(completed=len(children) - 1, failed=1)
    values = ["done"] if len(children) > 1 else None
    assert (await peer.job(flow["id"], "parents"))["returnvalue"] == values
    failures = await scene.store.client.hgetall(f"bull:parents:{flow['id']}:failed")
    if policy == "removeDependencyOnFailure":
        assert failures == {}
    else:
        assert list(failures) == [f"bull:chaos:{flow['children'][0]}"]


@pytest.mark.trap(7)
@pytest.mark.matrix(22)
async def test_a_parent_waits_for_a_child_that_is_retried(
    peer: Peer, scene: Scene, all_done: Any, inspector: JobInspector
) -> None:
    """A child without a policy holds its parent back, until our operator has it tried again and it
    succeeds.
    """
    await scene.hire()
    await peer.work("parents")
    child = {"name": "child", "queueName": "chaos", "data": {"fails": 1, "value": "at last"}}
    flow = await peer.ask(
        "flow", tree={"name": "parent", "queueName": "parents", "data": {}, "children": [child]}
    )
    await all_done(failed=1)
    assert (await peer.job(flow["id"], "parents"))["state"] == "waiting-children"
    await inspector.retry(chaos, flow["children"][0])
    await all_done("parents", completed=1)
    assert (await peer.job(flow["id"], "parents"))["returnvalue"] == ["at last"]


@pytest.mark.matrix(22)
async def test_a_parent_in_our_queue_fails_when_they_have_failed_its_child(
    peer: Peer, scene: Scene, all_done: Any
) -> None:
    await scene.hire()
    opts = {"failParentOnFailure": True}
    child = {"name": "child", "queueName": "children", "data": {"fails": 1}, "opts": opts}
    flow = await peer.ask(
        "flow", tree={"name": "parent", "queueName": "chaos", "data": {}, "children": [child]}
    )
    await peer.work("children")
    await all_done(failed=1)
    seen = await peer.job(flow["id"])
    assert seen["failedReason"] == f"child bull:children:{flow['children'][0]} failed"
    assert scene.journal.starts(of=flow["id"]) == []


@pytest.mark.matrix(22)
@pytest.mark.parametrize(
    ("opts", "state"), [({"delay": 700}, "delayed"), ({"priority": 3}, "prioritized")]
)
async def test_a_parent_has_its_own_options_when_its_children_are_done(
    peer: Peer, scene: Scene, all_done: Any, opts: dict[str, int], state: str
) -> None:
    await scene.hire()
    child = {"name": "child", "queueName": "chaos", "data": {}}
    tree = {"name": "parent", "queueName": "parents", "data": {}, "opts": opts, "children": [child]}
    flow = await peer.ask("flow", tree=tree)
    await all_done(completed=1)
    assert (await peer.job(flow["id"], "parents"))["state"] == state
    await peer.work("parents")
    await all_done("parents", completed=1)


@pytest.mark.matrix(22)
async def test_a_parent_in_our_queue_runs_when_they_have_done_its_child(
    peer: Peer, scene: Scene, all_done: Any
) -> None:
    await scene.hire()
    child = {"name": "child", "queueName": "children", "data": {"value": 1}}
    tree = {"name": "parent", "queueName": "chaos", "data": {"value": "done"}, "children": [child]}
    flow = await peer.ask("flow", tree=tree)
    assert (await peer.job(flow["id"]))["state"] == "waiting-children"
    await peer.ask("work", queue="children", concurrency=1)
    await all_done(completed=1)

    assert [line.id for line in scene.journal.lines() if line.event == "end"] == [
        flow["children"][0],
        flow["id"],
    ]
    assert (await peer.job(flow["id"]))["returnvalue"] == "done"


@pytest.mark.trap(24)
@pytest.mark.matrix(27)
async def test_our_worker_is_counted_once(peer: Peer, scene: Scene) -> None:
    """Whatever other connections it has: only the one that waits for work carries the name."""
    await peer.needs("workers")
    await scene.hire(lock_seconds=1)
    await scene.completed(
        await scene.enqueue({"ms": 700})
    )  # every connection that it ever makes is made
    await scene.idle()
    seen = await peer.ask("workers", queue="chaos")
    assert seen["count"] == 1
    assert len(seen["names"]) == 1
    assert (await peer.ask("workers", queue="chaos-threads"))["count"] == 0, (
        "it serves one queue only"
    )
