"""Workers that die, are late, or lose their connection: the other kind takes over, and nothing runs
too often.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from chaos.scene import Scene
from interop.peers import Peer
from interop.sides import FAST_MS, FAST_SECONDS, Crossing, OurProducer, TheirProducer

pytestmark = pytest.mark.asyncio

STALLED_TOO_OFTEN = "job stalled more than allowable limit"
"""BullMQ's own text (wire § 15)."""


@pytest.mark.matrix(12)
async def test_what_our_killed_worker_ran_is_run_by_them(
    peer: Peer, scene: Scene, all_done: Any
) -> None:
    ours = await scene.hire(concurrency=1, **FAST_SECONDS)
    (job_id,) = await scene.enqueue({"ms": 700, "value": "again"})
    await scene.runs(ours)
    ours.kill()
    await peer.work(more=FAST_MS)
    await all_done(completed=1)
    seen = await peer.job(job_id)
    assert (seen["returnvalue"], seen["attempts"], seen["starts"]) == ("again", 1, 2)
    assert await scene.stalls([job_id]) == {job_id: 1}
    assert [line.pid for line in scene.starts()] == [ours.pid, peer.pid]


@pytest.mark.matrix(12)
async def test_what_their_killed_worker_ran_is_run_by_us(
    peer: Peer, scene: Scene, all_done: Any
) -> None:
    await peer.work(more=FAST_MS)
    (job_id,) = await peer.add({"data": {"ms": 700, "value": "again"}, "opts": {}})
    await scene.started(job_id)
    peer.kill()
    ours = await scene.hire(concurrency=1, **FAST_SECONDS)
    await all_done(completed=1)
    held = await scene.store.client.hgetall(f"bull:chaos:{job_id}")
    assert (held["returnvalue"], held["atm"], held["ats"], held["stc"]) == (
        '"again"',
        "1",
        "2",
        "1",
    )
    assert [line.pid for line in scene.starts()] == [peer.pid, ours.pid]


@pytest.mark.matrix(12)
async def test_what_both_have_died_of_fails_with_bullmqs_text(
    peer: Peer, scene: Scene, all_done: Any
) -> None:
    await peer.work(more=FAST_MS)
    (job_id,) = await peer.add({"data": {"ms": 5000}, "opts": {"attempts": 5}})
    await scene.started(job_id)
    peer.kill()
    second = await scene.hire(concurrency=1, **FAST_SECONDS)
    await scene.runs(second)
    second.kill()
    await scene.hire(concurrency=1, **FAST_SECONDS)
    await all_done(failed=1)
    held = await scene.store.client.hgetall(f"bull:chaos:{job_id}")
    assert (held["failedReason"], held["stc"]) == (STALLED_TOO_OFTEN, "2")
    assert len(scene.starts()) == 2, "it is failed without being run"


@pytest.mark.matrix(12)
async def test_an_ending_that_comes_too_late_is_refused(
    peer: Peer, scene: Scene, all_done: Any
) -> None:
    """Their worker does not renew its lock; ours takes the job over, and theirs ends it in the
    middle.
    """
    await peer.needs("locks")
    await peer.work(more={"lockDuration": 500, "skipLockRenewal": True, "skipStalledCheck": True})
    (job_id,) = await peer.add({"data": {"ms": 4000}, "opts": {}})
    await scene.started(job_id)
    ours = await scene.hire(concurrency=1, **FAST_SECONDS)
    await scene.runs(ours)
    await all_done(completed=1)
    complaints = await peer.ask("take_errors")
    assert any("lock" in complaint.lower() for complaint in complaints), complaints
    held = await scene.store.client.hgetall(f"bull:chaos:{job_id}")
    assert (held["atm"], held["ats"]) == ("1", "2")
    entries = [entry["event"] for _, entry in await scene.store.client.xrange("bull:chaos:events")]
    assert entries.count("completed") == 1


@pytest.mark.matrix(13)
async def test_a_job_of_three_locks_is_not_taken_from_its_worker(
    crossing: Crossing, peer: Peer, scene: Scene, all_done: Any
) -> None:
    """While a worker of the other kind looks for stalled jobs."""
    await crossing.work(fast=True)
    job_id = await crossing.producer.add({"ms": 3200})
    await scene.started(job_id)
    await Crossing(scene, peer, ours_work=not crossing.ours_work).work(fast=True)
    await all_done(completed=1)
    assert await scene.store.client.hget(f"bull:chaos:{job_id}", "ats") == "1"
    assert await scene.stalls([job_id]) == {}
    assert not await scene.store.client.sismember("bull:chaos:stalled", job_id)


@pytest.mark.matrix(34)
async def test_both_go_on_when_every_connection_is_cut(
    peer: Peer, scene: Scene, all_done: Any
) -> None:
    client = scene.store.client
    ours = await scene.hire(concurrency=2)
    await peer.work(concurrency=2)
    theirs_add, ours_add = TheirProducer(peer).add, OurProducer(scene).add
    ids = [await theirs_add({}), await ours_add({})]  # every connection there is has been made
    await all_done(completed=2)
    cut = time.time()
    await client.client_kill_filter(_type="normal", skipme=True)

    async def both_work() -> bool:
        ids.extend([await theirs_add({"ms": 100}), await ours_add({"ms": 100})])
        return {line.pid for line in scene.starts(since=cut)} == {ours.pid, peer.pid}

    await scene.until(both_work, "both have started jobs again", every=0.1)
    await all_done(completed=len(ids))
    assert scene.each_started_once(ids)
    await peer.ask("take_errors")  # they may say that they were cut


@pytest.mark.matrix(34)
async def test_a_job_whose_marker_is_lost_is_found_all_the_same(
    crossing: Crossing, scene: Scene, all_done: Any
) -> None:
    """As by a worker that took the marker and died: an idle worker looks after at most ten seconds
    (wire 7.2).
    """
    client = scene.store.client
    await crossing.work()
    await scene.idle()
    async with client.pipeline(transaction=True) as lost:
        lost.hset(
            "bull:chaos:unmarked",
            mapping={"name": "work", "data": "{}", "opts": "{}", "timestamp": 1, "delay": 0},
        )
        lost.lpush("bull:chaos:wait", "unmarked")
        await lost.execute()
    await all_done(completed=1)
