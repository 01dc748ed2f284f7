"""Job schedulers: we run BullMQ's, BullMQ runs ours, and both kinds of worker share one."""

from __future__ import annotations

import itertools
import time
from datetime import timedelta
from typing import Any

import pytest

from chaos.acme_chaos import EVERY_MS as PERIOD
from chaos.acme_chaos import Work, chaos, chaos_ticks
from chaos.scene import Scene
from corral import Cron, Every
from interop.node import Node
from interop.peers import Peer
from interop.sides import Crossing

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.corral_untidy(
        "a schedule goes on until its workers are killed, which may be in the middle of a tick"
    ),
]

EVERY_MS = 400


async def ticks(scene: Scene, count: int) -> list[int]:
    """Wait for so many iterations; returns all ticks that have run, in order.

    None may have run twice.
    """
    await scene.until(lambda: len(scene.journal.ended()) >= count, f"{count} iterations have run")
    started = [line.id for line in scene.starts()]
    assert len(started) == len(set(started)), "an iteration has run twice"
    return sorted(int(job_id.rpartition(":")[2]) for job_id in started)


def gaps(of: list[int]) -> set[int]:
    return {later - earlier for earlier, later in itertools.pairwise(of)}


def without_gap(run: list[int], every_ms: int, peer: Peer) -> bool:
    """Whether no tick is missing, but for the first: it was late, because the worker came after it.

    BullMQ for Python wakes at whole seconds only (measured), and so leaves ticks out.
    """
    if peer.kind == "python":
        return {gap % every_ms for gap in gaps(run)} == {0}
    return gaps(run[1:]) == {every_ms}


@pytest.mark.trap(5)
@pytest.mark.parametrize(
    ("rule", "gap"),
    [({"every": EVERY_MS}, EVERY_MS), ({"pattern": "* * * * * *", "tz": "Europe/Berlin"}, 1000)],
    ids=["every", "cron"],
)
@pytest.mark.matrix(20)
async def test_a_scheduler_of_node_is_advanced_by_us(
    rule: Any, gap: int, peer: Peer, scene: Scene
) -> None:
    template = {"name": "tick", "data": {"value": "from the template"}, "opts": {"attempts": 2}}
    await peer.ask("schedule", queue="chaos", id="theirs", repeat=rule, template=template)
    await scene.hire()
    run = await ticks(scene, 4)
    assert gaps(run[1:]) == {gap}  # the first was late: the worker came after it
    seen = await peer.job(f"repeat:theirs:{run[-1]}")
    assert (seen["name"], seen["data"]) == ("tick", {"value": "from the template"})
    assert (seen["opts"]["attempts"], seen["opts"]["repeat"]["count"]) == (2, len(run))
    client = scene.store.client
    assert int(await client.hget("bull:chaos:repeat:theirs", "ic")) >= len(run)
    assert await client.zscore("bull:chaos:repeat", "theirs") > run[-1]


@pytest.mark.parametrize(
    ("when", "gap"),
    [(Every(timedelta(milliseconds=EVERY_MS)), EVERY_MS), (Cron("* * * * * *"), 1000)],
    ids=["every", "cron"],
)
@pytest.mark.matrix(20)
async def test_a_schedule_of_ours_is_advanced_by_node(
    when: Any, gap: int, peer: Peer, scene: Scene
) -> None:
    await scene.jobs.schedule(chaos, Work(value="ours"), when, id="ours")
    await peer.ask("work", queue="chaos", concurrency=1)
    run = await ticks(scene, 4)
    assert without_gap(run, gap, peer)
    seen = await peer.job(f"repeat:ours:{run[-1]}")
    assert (seen["data"]["value"], seen["opts"]["attempts"]) == ("ours", 1)
    assert await scene.jobs.unschedule(chaos, "ours") is True
    assert await scene.store.client.exists("bull:chaos:repeat", "bull:chaos:repeat:ours") == 0


@pytest.mark.matrix(20)
async def test_both_kinds_of_worker_share_a_schedule(peer: Peer, scene: Scene) -> None:
    """The first worker gets a tick, and only once: the iterations stay on the grid and none is
    missing.
    """
    ms = 1500 if peer.kind == "python" else EVERY_MS  # until both have woken
    await scene.jobs.schedule(
        chaos, {"ms": ms}, Every(timedelta(milliseconds=EVERY_MS)), id="shared"
    )
    ours = await scene.hire(concurrency=1)
    await peer.ask("work", queue="chaos", concurrency=1)
    await scene.until(
        lambda: {line.pid for line in scene.starts()} == {ours.pid, peer.pid},
        "both have run an iteration",
    )
    assert without_gap(await ticks(scene, 8), EVERY_MS, peer)


@pytest.mark.matrix(21)
async def test_a_run_whose_worker_died_before_it_made_the_next_one(
    crossing: Crossing, scene: Scene
) -> None:
    """The run is active, without a lock, and no run is to come: who takes it over goes on with
    the schedule.
    """
    client = scene.store.client
    if crossing.ours_work:
        await crossing.peer.ask("schedule", queue="chaos", id="crashed", repeat={"every": EVERY_MS})
    else:
        await scene.jobs.schedule(
            chaos, Work(), Every(timedelta(milliseconds=EVERY_MS)), id="crashed"
        )

    async def first_run() -> Any:
        return await client.zrange("bull:chaos:delayed", 0, 0) or await client.lrange(
            "bull:chaos:wait", 0, 0
        )

    (run,) = await first_run()
    await client.zrem("bull:chaos:delayed", run)
    await client.lrem("bull:chaos:wait", 0, run)
    await client.lpush("bull:chaos:active", run)
    await crossing.work(fast=True)
    done = await ticks(scene, 4)
    assert f"repeat:crashed:{done[0]}" == run
    assert without_gap(done, EVERY_MS, crossing.peer)


async def at_rest(scene: Scene) -> bool:
    """Whether no iteration runs or is to come."""
    client = scene.store.client
    lists = [await client.llen(f"bull:chaos:{name}") for name in ("wait", "active")]
    return await client.zcard("bull:chaos:delayed") == 0 and lists == [0, 0]


@pytest.mark.matrix(20)
async def test_the_limit_of_a_scheduler_of_node_is_kept(peer: Peer, scene: Scene) -> None:
    await peer.ask("schedule", queue="chaos", id="three", repeat={"every": 100, "limit": 3})
    await scene.hire()
    assert len(await ticks(scene, 3)) == 3
    await scene.until(lambda: at_rest(scene), "the schedule has ended")
    assert len(scene.starts()) == 3


@pytest.mark.matrix(20)
async def test_the_end_of_a_scheduler_of_node_is_kept(peer: Peer, scene: Scene) -> None:
    """As with BullMQ, one iteration may lie behind it, by less than an interval (wire 6.21)."""
    await scene.hire()
    end_ms = int(time.time() * 1000) + 2500
    await peer.ask(
        "schedule", queue="chaos", id="ending", repeat={"every": EVERY_MS, "endDate": end_ms}
    )
    await scene.until(lambda: at_rest(scene), "the schedule has ended")
    run = await ticks(scene, 1)
    assert gaps(run) == {EVERY_MS}
    assert end_ms - EVERY_MS < run[-1] < end_ms + EVERY_MS


TICKS = chaos_ticks.name
TICKING: Any = {
    "serves": (TICKS,),
    "environment": {PERIOD: "1000"},
    "stalled_interval_seconds": 0.5,
}


async def more_ticks(scene: Scene, count: int = 2) -> None:
    begun = len(scene.starts())
    await scene.until(lambda: len(scene.starts()) >= begun + count, f"{count} more ticks")


async def test_a_declared_schedule_that_node_removes_comes_back(node: Node, scene: Scene) -> None:
    """It looks like one that was lost."""
    worker = await scene.hire(**TICKING)
    await more_ticks(scene)
    await node.ask("unschedule", queue=TICKS, id=TICKS)
    await more_ticks(scene)
    assert any("schedule was gone" in line["event"] for line in worker.log)
    assert (await node.ask("scheduler", queue=TICKS, id=TICKS))["every"] == 1000


async def test_a_declared_schedule_that_node_changes_is_left_so(node: Node, scene: Scene) -> None:
    worker = await scene.hire(**TICKING)
    await more_ticks(scene)
    await node.ask("schedule", queue=TICKS, id=TICKS, repeat={"every": 700})
    await scene.until(
        lambda: any("left as it is" in line["event"] for line in worker.log), "the worker warns"
    )
    await more_ticks(scene, 4)
    assert (await node.ask("scheduler", queue=TICKS, id=TICKS))["every"] == 700
    assert len([line for line in worker.log if "left as it is" in line["event"]]) == 1


@pytest.mark.trap(13)
async def test_a_queue_that_node_drains_goes_on(node: Node, scene: Scene) -> None:
    """Paused, so that a run waits: BullMQ's drain may take its place away and leave its job (trap
    T13).
    """
    client = scene.store.client
    await scene.hire(**TICKING)
    await more_ticks(scene)
    await client.hset(f"bull:{TICKS}:meta", "paused", "1")

    async def waits() -> bool:
        return bool(await client.llen(f"bull:{TICKS}:wait"))

    await scene.until(waits, "a run waits")
    for id_ in ("a", "b"):
        await client.hset(
            f"bull:{TICKS}:{id_}", mapping={"name": "x", "data": "{}", "opts": "{}", "timestamp": 0}
        )
        await client.rpush(f"bull:{TICKS}:wait", id_)
    await node.ask("drain", queue=TICKS)
    await client.hdel(f"bull:{TICKS}:meta", "paused")
    await more_ticks(scene, 3)
