"""What holds a queue back is set by either side and kept by both: pauses, the number of active
jobs, the rate.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest

from chaos.acme_chaos import chaos
from chaos.scene import Scene
from corral.inspector import JobInspector
from interop.peers import Peer
from interop.sides import Crossing

pytestmark = pytest.mark.asyncio

BY = pytest.mark.parametrize("by", ["them", "us"])
PER_WINDOW, WINDOW_MS = 5, 1000
SLACK_MS = 150
"""A start's time is taken by the worker, before the store counts it: the two are not the same
moment.
"""


@pytest.mark.matrix(16)
async def test_a_pause_is_kept_by_the_other_side(
    crossing: Crossing, peer: Peer, scene: Scene, inspector: JobInspector, all_done: Any
) -> None:
    """Whose workers are not those that are paused by; jobs that both sides add meanwhile run
    afterwards.
    """
    client = scene.store.client
    await crossing.work()
    await scene.idle()
    await (peer.ask("pause", queue="chaos") if crossing.ours_work else inspector.pause(chaos))
    assert await peer.ask("paused", queue="chaos") is True
    assert await inspector.is_paused(chaos) is True
    if crossing.ours_work and peer.kind == "node5":
        ids = await peer.add(
            {"data": {}, "opts": {}}
        )  # version 5 has a rule of its own for what others add meanwhile
    else:
        ids = [*await peer.add({"data": {}, "opts": {}}), *await scene.enqueue({})]
    assert await client.exists("bull:chaos:marker") == 0
    await scene.passed(time.time() + 0.5)
    assert scene.starts() == []
    await (peer.ask("resume", queue="chaos") if crossing.ours_work else inspector.resume(chaos))
    await all_done(completed=len(ids))
    assert scene.each_started_once(ids)


@BY
@pytest.mark.matrix(17)
async def test_one_active_job_in_all(
    by: str, peer: Peer, scene: Scene, inspector: JobInspector, all_done: Any
) -> None:
    if by == "them":
        await peer.ask("limit_concurrency", queue="chaos", count=1)
    else:
        await inspector.set_concurrency(chaos, 1)
    assert (await peer.ask("limits", queue="chaos"))["concurrency"] == 1
    assert (await inspector.limits(chaos)).concurrency == 1
    ours = await scene.hire(concurrency=5)
    await peer.work(concurrency=5)
    await peer.add(*[{"data": {"ms": 20}, "opts": {}}] * 15)
    await scene.enqueue(*[{"ms": 20}] * 15)
    await all_done(completed=30)
    lines = sorted(scene.journal.lines(), key=lambda line: line.at)
    assert [line.event for line in lines] == ["start", "end"] * 30
    assert {line.pid for line in lines} <= {ours.pid, peer.pid}


@BY
@pytest.mark.matrix(18)
async def test_so_many_jobs_in_a_window_in_all(
    by: str, peer: Peer, scene: Scene, inspector: JobInspector, all_done: Any
) -> None:
    client = scene.store.client
    if by == "them":
        await peer.ask("limit_rate", queue="chaos", count=PER_WINDOW, ms=WINDOW_MS)
    else:
        await inspector.set_rate_limit(chaos, PER_WINDOW, timedelta(milliseconds=WINDOW_MS))
    await scene.hire(concurrency=5)
    await peer.work(concurrency=5)
    ids = [*await peer.add(*[{"data": {}, "opts": {}}] * 8), *await scene.enqueue(*[{}] * 7)]
    await scene.until(scene.starts, "the first job has started")
    assert -2 <= await client.pttl("bull:chaos:limiter") <= WINDOW_MS
    await all_done(completed=15)
    starts = sorted([int(await client.hget(f"bull:chaos:{job}", "processedOn")) for job in ids])
    assert starts[PER_WINDOW] - starts[0] >= WINDOW_MS - SLACK_MS
    assert starts[2 * PER_WINDOW] - starts[PER_WINDOW] >= WINDOW_MS - SLACK_MS
