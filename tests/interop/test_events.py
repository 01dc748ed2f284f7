"""Who listens in Node hears of our jobs what it would hear of its own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chaos.acme_chaos import ODD, chaos
from chaos.scene import Scene
from corral.inspector import JobInspector
from interop.node import Node
from interop.peers import Peer

pytestmark = pytest.mark.asyncio

VALUES = [
    0,
    1.5,
    True,
    "",
    "text",
    "ünïcode \N{GRINNING FACE}",
    '"quoted"\n',
    [],
    {},
    [1, [2, {"three": None}]],
]


@pytest.mark.trap(28)
@pytest.mark.matrix(15)
async def test_waiting_for_our_worker_returns_the_value_or_throws_the_failure(
    peer: Peer, scene: Scene, all_done: Any
) -> None:
    """`job.waitUntilFinished(queueEvents)`, begun before the job ends and after."""
    await peer.needs("finished")
    await peer.ask("listen", queue="chaos")
    succeeds = {"data": {"ms": 300, "value": {"sum": 42}}, "opts": {}}
    fails = {"data": {"ms": 300, "fails": 1}, "opts": {}}
    good, bad = await peer.add(succeeds, fails)
    await scene.hire()
    assert await peer.ask("finished", queue="chaos", id=good) == {"value": {"sum": 42}}
    entry = await peer.ask("finished", queue="chaos", id=bad)
    assert "attempt 1 fails, as the payload says" in entry["failure"]
    await all_done(completed=1, failed=1)
    assert await peer.ask("finished", queue="chaos", id=good) == {"value": {"sum": 42}}


async def test_a_result_of_60_kb_arrives_whole_where_the_stream_is_bounded_by_bytes(
    node: Node, scene: Scene, all_done: Any
) -> None:
    await node.ask("listen", queue="chaos")
    large = "x" * 60_000
    jobs = await node.add(*[{"data": {"ms": 100, "value": large}, "opts": {}}] * 30)
    await scene.hire()
    for job in jobs:
        assert await node.ask("finished", queue="chaos", id=job) == {"value": large}
    await all_done(completed=30)


@pytest.mark.matrix(14)
async def test_what_their_job_says_while_we_run_it(peer: Peer, scene: Scene, all_done: Any) -> None:
    """Progress is heard by who listens, and the log keeps as many lines as the job asks for."""
    await peer.ask("listen", queue="chaos")
    data = {"says": ["one", "two", "three"], "value": {"done": 7}}
    (job_id,) = await peer.add({"data": data, "opts": {"keepLogs": 2}})
    await scene.hire()
    await all_done(completed=1)
    assert await peer.ask("logs", queue="chaos", id=job_id) == {
        "logs": ["two", "three"],
        "count": 2,
    }
    assert (await peer.job(job_id))["progress"] == {"done": 7}

    async def heard() -> list[Any]:
        return [entry["data"] for entry in await peer.ask("heard") if entry["event"] == "progress"]

    await scene.until(heard, "the progress is heard", every=0.05)
    assert await heard() == [{"done": 7}]


@pytest.mark.matrix(14)
async def test_what_our_job_says_while_they_run_it(
    peer: Peer, scene: Scene, all_done: Any, inspector: JobInspector
) -> None:
    (job_id,) = await scene.enqueue({"says": ["one", "two", "three"]})
    await peer.work()
    await all_done(completed=1)
    assert await inspector.logs(chaos, job_id) == ["one", "two", "three"]
    assert (await inspector.get(chaos, job_id)).progress == {"said": 3}


@pytest.mark.trap(2)
@pytest.mark.matrix(33)
async def test_no_event_stops_a_listener(scene: Scene, peer: Peer) -> None:
    """One entry that is no JSON would end its loop for good: not with anything that a processor
    returns or reports.
    """
    await peer.ask("listen", queue="chaos")
    await scene.hire(concurrency=1)
    await scene.enqueue(*({"odd": odd} for odd in ODD))
    values = dict(
        zip(await scene.enqueue(*({"value": value} for value in VALUES)), VALUES, strict=True)
    )
    (last,) = await scene.enqueue({"value": "last"})

    async def heard_the_last() -> bool:
        return any(
            entry["jobId"] == last and entry["event"] == "completed"
            for entry in await peer.ask("heard")
        )

    await scene.until(heard_the_last, "the listener has heard of the last job", every=0.05)
    heard = [entry for entry in await peer.ask("heard") if entry["jobId"] in values]
    assert {
        entry["jobId"]: entry["returnvalue"] for entry in heard if entry["event"] == "completed"
    } == values
    progress = [entry for entry in heard if entry["event"] == "progress"]
    assert {entry["jobId"]: entry["data"] for entry in progress} == values

    entries = [entry for _, entry in await scene.store.client.xrange("bull:chaos:events")]
    texts = [
        entry[field] for entry in entries for field in ("returnvalue", "data") if field in entry
    ]
    assert len(texts) >= 2 * len(VALUES)
    for text in texts:
        json.loads(text, parse_constant=pytest.fail)
