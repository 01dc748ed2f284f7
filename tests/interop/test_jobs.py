"""Jobs of BullMQ for Node are processed by us, ours by it, and both kinds of worker share one queue."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from chaos.scene import Scene
from corral import Fixed
from interop.node import Node

pytestmark = pytest.mark.asyncio

DELAY_MS = 5000
"""Longer than a worker takes to start: a delayed job that was due before would be nothing special."""
KINDS: dict[str, dict[str, int | bool]] = {
    "second of priority 1": {"priority": 1},
    "priority 2": {"priority": 2},
    "first of priority 1": {"priority": 1},
    "plain": {},
    "delayed": {"delay": DELAY_MS},
    "lifo": {"lifo": True},
}
ADDED = ["priority 2", "first of priority 1", "second of priority 1", "delayed", "plain", "lifo"]
PROCESSED = ["lifo", "plain", "first of priority 1", "second of priority 1", "priority 2", "delayed"]


class NodeProducer:
    """BullMQ's `Queue`."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def add(self, work: dict[str, Any], **options: Any) -> str:
        """One job; delays in milliseconds."""
        if "backoff" in options:
            options["backoff"] = {"type": "fixed", "delay": options["backoff"]}
        (job_id,) = await self._node.add({"data": work, "opts": options})
        return job_id


class OurProducer:
    """Our `JobScheduler`."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    async def add(self, work: dict[str, Any], **options: Any) -> str:
        """One job; delays in milliseconds."""
        if "delay" in options:
            options["delay"] = timedelta(milliseconds=options["delay"])
        if "backoff" in options:
            options["backoff"] = Fixed(timedelta(milliseconds=options["backoff"]))
        (job_id,) = await self._scene.enqueue(work, **options)
        return job_id


@pytest.fixture(params=["jobs of Node, a worker of ours", "jobs of ours, a worker of Node"])
def crossed(request: Any, node: Node, scene: Scene) -> tuple[Any, Any]:
    """A producer of one kind, and what starts a worker of the other."""
    if request.param.startswith("jobs of Node"):
        return NodeProducer(node), lambda concurrency: scene.hire(concurrency=concurrency)
    return OurProducer(scene), lambda concurrency: node.ask("work", queue="chaos", concurrency=concurrency)


async def test_every_kind_of_job_is_processed_in_order(crossed: Any, node: Node, scene: Scene, all_done: Any) -> None:
    """Plain, delayed, prioritized, lifo: what BullMQ promises about their order (wire 6.4) holds across."""
    producer, start_worker = crossed
    ids = {kind: await producer.add({"value": {"of": kind}}, **KINDS[kind]) for kind in ADDED}
    await start_worker(1)
    await all_done(completed=len(KINDS))

    kinds = {job: kind for kind, job in ids.items()}
    starts = scene.starts()
    assert [kinds[line.id] for line in starts] == PROCESSED
    for kind, job_id in ids.items():
        seen = await node.job(job_id)
        assert (seen["state"], seen["returnvalue"]) == ("completed", {"of": kind})
        assert (seen["attempts"], seen["starts"]) == (1, 1)
    delayed = await node.job(ids["delayed"])
    assert starts[-1].at * 1000 >= delayed["timestamp"] + DELAY_MS


async def test_a_job_that_fails_is_retried(crossed: Any, node: Node, scene: Scene, all_done: Any) -> None:
    """It succeeds on its last attempt; another has no attempt left; a third has none to begin with."""
    producer, start_worker = crossed
    policy = {"attempts": 3, "backoff": 50}
    mended = await producer.add({"fails": 2, "value": "at last"}, **policy)
    hopeless = await producer.add({"fails": 9}, **policy)
    single = await producer.add({"fails": 1})
    await start_worker(5)
    await all_done(completed=1, failed=2)

    seen = await node.job(mended)
    assert (seen["state"], seen["returnvalue"], seen["attempts"], seen["starts"]) == ("completed", "at last", 3, 3)
    assert len(seen["stacktrace"]) == 2
    seen = await node.job(hopeless)
    assert (seen["state"], seen["attempts"], len(seen["stacktrace"])) == ("failed", 3, 3)
    assert "attempt 3 fails" in seen["failedReason"]
    seen = await node.job(single)
    assert (seen["state"], seen["attempts"]) == ("failed", 1)
    attempts = {job: [line.attempt for line in scene.journal.starts(of=job)] for job in (mended, hopeless, single)}
    assert attempts == {mended: [1, 2, 3], hopeless: [1, 2, 3], single: [1]}


async def test_both_kinds_of_worker_share_300_jobs_of_both_kinds(
    scene: Scene, node: Node, all_done: Any, figure: Any
) -> None:
    """Each runs once, whoever made it and whoever took it."""
    ours = await scene.hire(concurrency=5)
    await node.ask("work", queue="chaos", concurrency=5)
    works = [{"ms": 5 + number % 10} for number in range(150)]
    ids = set(await node.add(*({"data": work, "opts": {}} for work in works)))
    ids |= set(await scene.enqueue(*works))
    await all_done(completed=300)

    assert scene.each_started_once(ids)
    assert {await scene.store.client.hget(f"bull:chaos:{job}", "ats") for job in ids} == {"1"}
    shares = Counter(line.pid for line in scene.starts())
    figure(f"300 jobs, each once: {shares[ours.pid]} by us, {shares[node.pid]} by BullMQ for Node")
    assert shares.keys() == {ours.pid, node.pid}
