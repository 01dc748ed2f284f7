"""What the inspector tells of jobs that BullMQ for Node has made and run."""

from __future__ import annotations

from typing import Any

import pytest

from chaos.acme_chaos import chaos
from chaos.scene import Scene
from corral.inspector import JobInspector, TimelineEntry
from interop.node import Node

pytestmark = pytest.mark.asyncio

THRICE: dict[str, Any] = {"attempts": 3, "backoff": {"type": "fixed", "delay": 30}}


async def story(inspector: JobInspector, job_id: str) -> list[TimelineEntry]:
    return [*await inspector.timeline(chaos, await inspector.get(chaos, job_id))]


@pytest.mark.parametrize("worker", ["node", "corral"])
async def test_three_failed_attempts_of_a_job_of_node_are_shown(
    node: Node, scene: Scene, all_done: Any, inspector: JobInspector, worker: str
) -> None:
    (job_id,) = await node.add({"data": {"fails": 3}, "opts": THRICE})
    await (node.ask("work", queue="chaos", concurrency=1) if worker == "node" else scene.hire())
    await all_done(failed=1)
    occurrences = await story(inspector, job_id)
    again = ["waiting", "active", "attempt-failed"]
    assert [each.what for each in occurrences] == [
        "added",
        *again,
        "delayed",
        *again,
        "delayed",
        *again,
        "failed",
    ]
    times = [each.at for each in occurrences if each.at]
    assert len(times) == len(occurrences)
    assert times == sorted(times)
    failed = [each for each in occurrences if each.what == "attempt-failed"]
    for number, each in enumerate(failed, 1):
        assert f"attempt {number} of 3: " in each.detail
        assert f"{number} fails, as the" in each.detail
        assert f"{number} fails, as the" in (each.trace or "")
    summary = await inspector.summary(chaos)
    assert summary.last_failure is not None
    assert (summary.last_failure.job_id, summary.counts["failed"]) == (job_id, 1)
    (group,) = await inspector.failures(chaos)
    assert (group.count, group.last_job_id) == (1, job_id)


async def test_what_succeeds_at_last_is_shown_with_what_failed(
    node: Node, scene: Scene, all_done: Any, inspector: JobInspector
) -> None:
    ids = await node.add(
        {"data": {"fails": 1}, "opts": {"attempts": 2}}, {"data": {}, "opts": {"delay": 50}}
    )
    await node.ask("work", queue="chaos", concurrency=1)
    await all_done(completed=2)
    first, second = [[each.what for each in await story(inspector, job_id)] for job_id in ids]
    assert first == [
        "added",
        "waiting",
        "active",
        "attempt-failed",
        "waiting",
        "active",
        "completed",
    ]
    assert second == ["added", "delayed", "waiting", "active", "completed"]


async def test_jobs_of_node_are_found_by_what_is_in_them(
    node: Node, all_done: Any, inspector: JobInspector
) -> None:
    """Node writes text as it is, and numbers as JavaScript does."""
    data = {"value": {"name": "Zoë 💌", "n": 1.5, "big": 13345678, "none": None}}
    ids = await node.add({"data": data}, {"data": {"value": {"name": "Zoe"}}})
    for field in (
        ("value.name", "Zoë 💌"),
        ("value.n", "1.5"),
        ("value.big", "13345678"),
        ("value.none", "null"),
    ):
        assert [job.id for job in (await inspector.search(chaos, field=field)).jobs] == [ids[0]]
    assert [job.id for job in (await inspector.search(chaos, "Zoë 💌")).jobs] == [ids[0]]
    assert [job.id for job in (await inspector.search(chaos, ids[1])).jobs] == [ids[1]]
    await node.ask("work", queue="chaos", concurrency=1)
    await all_done(completed=2)


async def test_a_worker_of_node_is_seen_with_what_it_runs(
    node: Node, scene: Scene, all_done: Any, inspector: JobInspector
) -> None:
    await node.ask("work", queue="chaos", concurrency=1)
    (job_id,) = await node.add({"data": {"ms": 700}})
    await scene.until(scene.starts, "the job has started")
    (worker,) = await inspector.workers()
    assert (worker.kind, worker.state, worker.queues) == ("other", "connected", ["chaos"])
    assert worker.version.startswith("ioredis") or not worker.version  # Redis 7.0 does not know
    (job,) = worker.jobs
    assert (job.job_id, job.queue, job.name) == (job_id, "chaos", "work")
    assert job.lock_for is not None
    assert job.since is not None
    await all_done(completed=1)
