"""A worker of ours that must stop gives its jobs to a worker of Node's that has nothing to do."""

from __future__ import annotations

from typing import Any

import pytest

from chaos.scene import Scene
from interop.node import Node

pytestmark = [pytest.mark.asyncio, pytest.mark.timing]

PICK_UP_SECONDS = 1.0


@pytest.mark.parametrize("options", [{}, {"priority": 5}], ids=["plain", "prioritized"])
async def test_what_cannot_finish_is_picked_up_by_an_idle_node_worker(
    scene: Scene, node: Node, all_done: Any, figure: Any, options: dict[str, int]
) -> None:
    """Within a second of being handed back, with no attempt spent; what can finish in time does."""
    worker = await scene.hire(shutdown_timeout_seconds=1.5)
    (short,) = await scene.enqueue({"ms": 800}, **options)
    long = await scene.enqueue(*[{"ms": 3000}] * 3, **options)
    await scene.runs(worker, 4)
    await node.ask("work", queue="chaos", concurrency=5)
    await scene.idle(workers=2)
    worker.terminate()
    assert await worker.ended() == 5, "the exit code that says: jobs were handed back"

    await all_done(completed=4)
    assert {line.id for line in scene.journal.starts(by=node.pid)} == set(long)
    stories = {job: await story(scene, job) for job in (short, *long)}
    assert [name for name, _ in stories[short]] == ["waiting", "active", "completed"]
    waited = []
    for job in long:
        names = [name for name, _ in stories[job]]
        assert names == ["waiting", "active", "waiting", "active", "completed"]
        waited.append((stories[job][3][1] - stories[job][2][1]) / 1000)
        seen = await node.job(job)
        assert (seen["attempts"], seen["starts"]) == (1, 2), "being handed back is no attempt"
    figure(
        f"handed back, {options or 'plain'}: "
        f"started by Node after {max(waited) * 1000:.0f} ms at most"
    )
    assert max(waited) <= PICK_UP_SECONDS


async def story(scene: Scene, job_id: str) -> list[tuple[str, int]]:
    """The events of a job, each with the store's time in milliseconds."""
    entries = await scene.store.client.xrange("bull:chaos:events")
    stamps = [
        (entry["event"], int(at.split("-")[0]))
        for at, entry in entries
        if entry.get("jobId") == job_id
    ]
    return [(event, at) for event, at in stamps if event != "added"]
