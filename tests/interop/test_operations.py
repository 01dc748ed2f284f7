"""Operators of either side act on jobs of the other: what is kept, tried again, changed and
removed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from chaos.acme_chaos import chaos
from chaos.scene import Scene
from corral import Retention
from corral.inspector import JobInspector
from interop.peers import Peer
from interop.sides import Crossing

pytestmark = pytest.mark.asyncio

HOUR_MS = 3_600_000
LATER = timedelta(hours=1)


class TheirOperator:
    """BullMQ's `Queue` and `Job`."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def __getattr__(self, operation: str) -> Callable[..., Awaitable[Any]]:
        return lambda job_id=None: self._peer.ask(
            operation, queue="chaos", **({"id": job_id} if job_id else {})
        )

    async def drain(self) -> None:
        await self._peer.ask("drain", queue="chaos", delayed=True)

    async def clean(self, state: str) -> int:
        return int(await self._peer.ask("clean", queue="chaos", ending=state))


class OurOperator:
    """Our `JobInspector`."""

    def __init__(self, inspector: JobInspector) -> None:
        self._inspector = inspector

    def __getattr__(self, operation: str) -> Callable[..., Awaitable[Any]]:
        name = {"retry_all": "retry_all_failed"}.get(operation, operation)
        return lambda *job: getattr(self._inspector, name)(chaos, *job)

    async def drain(self) -> None:
        await self._inspector.drain(chaos, delayed=True)

    async def clean(self, state: Any) -> int:
        return await self._inspector.clean(chaos, state, timedelta(0))


@pytest.fixture(params=["them", "us"])
def operator(request: pytest.FixtureRequest, peer: Peer, inspector: JobInspector) -> Any:
    """Whoever operates; the jobs of these tests are made by the other side, and some are run by
    each.
    """
    return TheirOperator(peer) if request.param == "them" else OurOperator(inspector)


@pytest.fixture
def others(operator: Any, peer: Peer, scene: Scene) -> Crossing:
    """Jobs of the side that does not operate, run by the one that does."""
    return Crossing(scene, peer, ours_work=isinstance(operator, OurOperator))


@pytest.mark.matrix(23)
@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        (True, 0),
        (2, 2),
        ({"count": 3}, 3),
        ({"age": 3600}, 5),
        ({"age": 3600, "count": 4}, 4),
        (False, 5),
    ],
)
async def test_what_their_job_says_of_how_long_it_stays(
    peer: Peer, scene: Scene, policy: Any, kept: int
) -> None:
    client = scene.store.client
    opts = {"removeOnComplete": policy, "removeOnFail": policy}
    apart = {"ms": 3}  # no two of them end in one millisecond
    good = await peer.add(*[{"data": apart, "opts": opts}] * 5)
    bad = await peer.add(*[{"data": {**apart, "fails": 1}, "opts": opts}] * 5)
    await scene.hire(concurrency=1)

    async def ended() -> bool:
        last = [entry for _, entry in await client.xrevrange("bull:chaos:events", count=1)]
        return [entry["event"] for entry in last] == ["drained"]

    await scene.until(ended, "all jobs have ended")
    assert len(scene.starts()) == 10
    for ending, ids in (("completed", good), ("failed", bad)):
        left = await client.zrange(f"bull:chaos:{ending}", 0, -1)
        assert left == list(ids[5 - kept :]), "the newest"
        assert [job for job in ids if await client.exists(f"bull:chaos:{job}")] == left


@pytest.mark.matrix(23)
async def test_what_our_job_says_of_how_long_it_stays(
    peer: Peer, scene: Scene, all_done: Any
) -> None:
    """Against what their worker would do with jobs that say nothing."""
    kept = await scene.enqueue(*[{"ms": 3}] * 3)
    await peer.work(more={"removeOnComplete": {"count": 1}, "removeOnFail": {"count": 1}})
    await all_done(completed=3)
    bounded = await scene.enqueue(*[{"ms": 3}] * 3, keep_completed=Retention(count=4))
    await scene.until(lambda: len(scene.journal.ended()) == 6, "all have run")
    await all_done(completed=4)
    assert await scene.store.client.zrange("bull:chaos:completed", 0, -1) == [kept[-1], *bounded]


@pytest.mark.matrix(24)
async def test_jobs_of_the_other_side_are_promoted(
    operator: Any, others: Crossing, peer: Peer, scene: Scene, all_done: Any
) -> None:
    one, *rest = [await others.producer.add({}, delay=HOUR_MS) for _ in range(3)]
    await operator.promote(one)
    assert (await peer.job(one))["state"] == "waiting"
    assert {(await peer.job(job))["state"] for job in rest} == {"delayed"}
    await operator.promote_all()
    await others.work()
    await all_done(completed=3)
    assert scene.each_started_once([one, *rest])


@pytest.mark.matrix(24)
async def test_failed_jobs_of_the_other_side_are_tried_again(
    operator: Any, others: Crossing, peer: Peer, scene: Scene, all_done: Any
) -> None:
    """One, then all that are left: they count their attempts on, and succeed."""
    one, *rest = [await others.producer.add({"fails": 1, "value": "at last"}) for _ in range(4)]
    await others.work()
    await all_done(failed=4)
    await operator.retry(one)
    await all_done(completed=1, failed=3)
    await operator.retry_all()
    await all_done(completed=4)
    for job_id in (one, *rest):
        held = await scene.store.client.hgetall(f"bull:chaos:{job_id}")
        assert (held["returnvalue"], held["atm"], held["ats"]) == ('"at last"', "2", "2")
        assert "failedReason" not in held


@pytest.mark.matrix(24)
async def test_they_change_when_our_job_is_due(peer: Peer, scene: Scene, all_done: Any) -> None:
    await peer.needs("change_delay")
    (job_id,) = await scene.enqueue({}, delay=LATER)
    await scene.hire()
    await peer.ask("change_delay", queue="chaos", id=job_id, ms=100)
    await all_done(completed=1)


@pytest.mark.matrix(24)
async def test_they_change_how_urgent_our_jobs_are_and_what_they_say(
    peer: Peer, scene: Scene, all_done: Any
) -> None:
    first, second, third = await scene.enqueue({"value": 1}, {"value": 2}, {"value": 3})
    await peer.ask("change_priority", queue="chaos", id=first, priority=7)
    await peer.ask("change_priority", queue="chaos", id=second, priority=5)
    await peer.ask("change_data", queue="chaos", id=first, data={"value": "changed"})
    assert (await peer.job(first))["state"] == "prioritized"
    await scene.hire(concurrency=1)
    await all_done(completed=3)
    assert [line.id for line in scene.starts()] == [third, second, first]
    assert (await peer.job(first))["returnvalue"] == "changed"


async def fill(others: Crossing, all_done: Any) -> dict[str, list[str]]:
    """Three jobs of the other side in each state, the finished ones with lines in their log."""
    add = others.producer.add
    jobs = {"completed": [await add({"says": ["a line"]}) for _ in range(3)]}
    jobs["failed"] = [await add({"says": ["a line"], "fails": 1}) for _ in range(3)]
    worker = await others.work()
    await all_done(completed=3, failed=3)
    if worker is others.peer:
        await others.peer.ask("stop_workers")
    else:
        worker.kill()
    jobs["wait"] = [await add({}) for _ in range(3)]
    jobs["delayed"] = [await add({}, delay=HOUR_MS) for _ in range(3)]
    jobs["prioritized"] = [await add({}, priority=4) for _ in range(3)]
    return jobs


async def left(scene: Scene, ids: list[str]) -> list[str]:
    """The keys of jobs."""
    keys = [str(key) async for key in scene.store.client.scan_iter("bull:chaos:*")]
    return [key for key in keys if key.split(":")[2] in ids]


@pytest.mark.matrix(25)
async def test_nothing_is_left_of_a_job_of_the_other_side(
    operator: Any, others: Crossing, scene: Scene, all_done: Any
) -> None:
    """One of each state is removed, the finished ones are cleaned away, and the rest is drained."""
    jobs = await fill(others, all_done)
    for ids in jobs.values():
        assert await left(scene, ids[:1]) != []
        await operator.remove(ids[0])
        assert await left(scene, ids[:1]) == []
    for state in ("completed", "failed"):
        assert await operator.clean(state) == 2
        assert await left(scene, jobs[state]) == []
    await operator.drain()
    assert await left(scene, [job for ids in jobs.values() for job in ids]) == []


@pytest.mark.matrix(25)
async def test_nothing_is_left_of_a_queue_that_they_obliterate(
    peer: Peer, scene: Scene, all_done: Any
) -> None:
    jobs = await fill(Crossing(scene, peer, ours_work=False), all_done)
    await peer.ask("obliterate", queue="chaos")
    assert await left(scene, [job for ids in jobs.values() for job in ids]) == []
    (job_id,) = await scene.enqueue({})
    await scene.hire()
    await all_done(completed=1)
    assert (await peer.job(job_id))["state"] == "completed"
