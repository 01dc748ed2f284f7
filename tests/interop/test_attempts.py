"""Attempts that fail, jobs that fail for good, and jobs that ask to come later, across."""

from __future__ import annotations

from typing import Any

import pytest

from chaos.scene import Scene
from interop.peers import Peer
from interop.sides import Crossing
from interop.test_jobs import events

pytestmark = pytest.mark.asyncio


@pytest.mark.matrix(8)
async def test_a_job_that_fails_is_retried(
    crossing: Crossing, peer: Peer, scene: Scene, all_done: Any
) -> None:
    """One succeeds on its last attempt, one runs out of attempts, one has a single attempt."""
    add = crossing.producer.add
    policy = {"attempts": 3, "backoff": 50}
    mended = await add({"fails": 2, "value": "at last"}, **policy)
    hopeless = await add({"fails": 9}, **policy)
    single = await add({"fails": 1})
    await crossing.work(5)
    await all_done(completed=1, failed=2)

    seen = await peer.job(mended)
    assert (seen["state"], seen["returnvalue"], seen["attempts"], seen["starts"]) == (
        "completed",
        "at last",
        3,
        3,
    )
    assert len(seen["stacktrace"]) == 2
    seen = await peer.job(hopeless)
    assert (seen["state"], seen["attempts"], len(seen["stacktrace"])) == ("failed", 3, 3)
    assert "attempt 3 fails" in seen["failedReason"]
    seen = await peer.job(single)
    assert (seen["state"], seen["attempts"]) == ("failed", 1)
    attempts = {
        job: [line.attempt for line in scene.journal.starts(of=job)]
        for job in (mended, hopeless, single)
    }
    assert attempts == {mended: [1, 2, 3], hopeless: [1, 2, 3], single: [1]}
    ends = [
        event
        for event, _ in await events(scene, hopeless)
        if event in {"failed", "retries-exhausted"}
    ]
    assert ends == ["failed", "retries-exhausted"]


@pytest.mark.matrix(8)
async def test_attempts_are_counted_on_by_the_other_side(
    peer: Peer, scene: Scene, all_done: Any
) -> None:
    """Attempt 1 is ours, 2 theirs, 3 ours again: each waits by the policy, and none is lost."""
    backoff = {"type": "exponential", "delay": 800}
    (job_id,) = await peer.add(
        {"data": {"fails": 2, "value": "mended"}, "opts": {"attempts": 3, "backoff": backoff}}
    )
    key = f"bull:chaos:{job_id}"

    async def waits(delay_ms: int) -> None:
        async def delayed() -> bool:
            return bool(await scene.store.client.hget(key, "delay") == str(delay_ms))

        await scene.until(delayed, f"the job waits for {delay_ms} ms")

    first = await scene.hire(concurrency=1)
    await waits(800)
    first.kill()
    await peer.work()
    await waits(1600)
    await peer.ask("stop_workers")
    third = await scene.hire(concurrency=1)
    await all_done(completed=1)
    seen = await peer.job(job_id)
    assert (seen["attempts"], seen["starts"], len(seen["stacktrace"])) == (3, 3, 2)
    starts = [(line.pid, line.attempt) for line in scene.starts()]
    assert starts == [(first.pid, 1), (peer.pid, 2), (third.pid, 3)]


@pytest.mark.matrix(8)
async def test_a_random_share_of_the_wait_is_within_its_bounds(peer: Peer, scene: Scene) -> None:
    backoff = {"type": "fixed", "delay": 60_000, "jitter": 0.5}
    ids = await peer.add(
        *[{"data": {"fails": 1}, "opts": {"attempts": 2, "backoff": backoff}}] * 20
    )
    await scene.hire()
    client = scene.store.client

    async def all_wait() -> bool:
        return bool(await client.zcard("bull:chaos:delayed") == len(ids))

    await scene.until(all_wait, "all have failed once")
    delays = [int(await client.hget(f"bull:chaos:{job}", "delay")) for job in ids]
    assert min(delays) >= 30_000
    assert max(delays) <= 60_000
    assert len(set(delays)) > 1


@pytest.mark.matrix(9)
async def test_without_backoff_a_failed_job_goes_behind_those_that_wait(
    crossing: Crossing, scene: Scene, all_done: Any
) -> None:
    fails = await crossing.producer.add({"fails": 1}, attempts=2, backoff=0)
    waits = await crossing.producer.add({})
    await crossing.work()
    await all_done(completed=2)
    assert [line.id for line in scene.starts()] == [fails, waits, fails]
    assert ("waiting", "active") in await events(scene, fails)


@pytest.mark.matrix(10)
async def test_what_no_attempt_can_help_fails_at_once(
    crossing: Crossing, peer: Peer, scene: Scene, all_done: Any
) -> None:
    job_id = await crossing.producer.add({"fatal": True}, attempts=3, backoff=0)
    await crossing.work()
    await all_done(failed=1)
    seen = await peer.job(job_id)
    assert (seen["state"], seen["attempts"], seen["starts"]) == ("failed", 1, 1)
    assert "fatal, as the" in seen["failedReason"]
    ends = [
        event
        for event, _ in await events(scene, job_id)
        if event in {"failed", "retries-exhausted"}
    ]
    assert ends == ["failed"]


@pytest.mark.matrix(11)
async def test_a_job_that_asks_to_come_later_spends_no_attempt(
    crossing: Crossing, peer: Peer, all_done: Any
) -> None:
    job_id = await crossing.producer.add({"snoozeMs": 200, "value": "later"})
    await crossing.work()
    await all_done(completed=1)
    seen = await peer.job(job_id)
    assert (seen["returnvalue"], seen["attempts"], seen["starts"]) == ("later", 1, 2)
