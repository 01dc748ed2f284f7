"""BullMQ 5 beside Corral on a paused queue (trap T1): whichever client pauses or resumes, no job
is lost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from chaos.processes import chaos
from chaos.scene import Scene
from corral.inspector import JobInspector
from interop.node import Node, node_process

pytestmark = pytest.mark.asyncio

BASE = "bull:chaos:"


@pytest_asyncio.fixture
async def five(node_modules: Path, scene: Scene) -> AsyncIterator[Node]:
    """BullMQ 5 in a process of its own, which has written its version."""
    async with node_process(
        node_modules, scene.store.socket, scene.journal.path, kind="node5"
    ) as five:
        await five.ask("resume", queue="chaos")
        yield five
        assert await five.ask("errors") == []


async def lists(scene: Scene) -> dict[str, list[str]]:
    return {
        name: await scene.store.client.lrange(f"{BASE}{name}", 0, -1) for name in ("wait", "paused")
    }


async def test_the_version_is_known(five: Node, scene: Scene) -> None:
    assert (await scene.store.client.hget(f"{BASE}meta", "version")).startswith("bullmq:5.")


async def test_5_pauses_we_add_5_resumes(five: Node, scene: Scene, all_done: Any) -> None:
    theirs = [*await five.add({"data": {}}, {"data": {}})]
    await five.ask("pause", queue="chaos")
    theirs += await five.add({"data": {}})
    ours = await scene.enqueue({}, {})
    assert await lists(scene) == {"wait": [], "paused": [*reversed(ours), *reversed(theirs)]}
    await five.ask("resume", queue="chaos")
    assert await lists(scene) == {"wait": [*reversed(ours), *reversed(theirs)], "paused": []}
    await scene.hire()
    await all_done(completed=5)


async def test_an_empty_queue_that_5_pauses(five: Node, scene: Scene, all_done: Any) -> None:
    await five.ask("pause", queue="chaos")
    ours = await scene.enqueue({})
    theirs = await five.add({"data": {}})
    assert await lists(scene) == {"wait": [], "paused": [*theirs, *ours]}
    await five.ask("resume", queue="chaos")
    await scene.hire()
    await all_done(completed=2)


async def test_we_pause_5_adds_and_resumes(
    five: Node, scene: Scene, inspector: JobInspector, all_done: Any
) -> None:
    ours = await scene.enqueue({}, {})
    assert await inspector.pause(chaos)
    theirs = await five.add({"data": {}})
    assert (await lists(scene))["paused"] == [*theirs, *reversed(ours)]
    await five.ask("resume", queue="chaos")
    await scene.hire()
    await all_done(completed=3)


async def test_both_pause_and_5_resumes(
    five: Node, scene: Scene, inspector: JobInspector, all_done: Any
) -> None:
    """A second pause of 5 renames `wait` over `paused`."""
    await scene.enqueue({})
    assert await inspector.pause(chaos)
    await scene.enqueue({})
    await five.ask("pause", queue="chaos")
    await five.add({"data": {}})
    assert not await inspector.pause(chaos)
    await scene.enqueue({})
    await five.ask("pause", queue="chaos")
    await five.ask("resume", queue="chaos")
    await scene.hire()
    await all_done(completed=4)


async def test_5_pauses_and_we_resume(
    five: Node, scene: Scene, inspector: JobInspector, all_done: Any
) -> None:
    await five.add({"data": {}})
    await five.ask("pause", queue="chaos")
    await five.add({"data": {}})
    await scene.enqueue({})
    assert await inspector.resume(chaos)
    assert (await lists(scene))["paused"] == []
    await scene.hire()
    await all_done(completed=3)


async def test_a_worker_that_goes_on_while_5_pauses(
    five: Node, scene: Scene, all_done: Any
) -> None:
    """What is promoted, tried again and released meanwhile waits with the rest."""
    await scene.hire(concurrency=2)
    (later,) = await five.add({"data": {}, "opts": {"delay": 400}})
    (again,) = await five.add({"data": {"ms": 300, "fails": 1}, "opts": {"attempts": 2}})
    parent = {
        "name": "parent",
        "queueName": "chaos",
        "data": {},
        "children": [{"name": "child", "queueName": "chaos", "data": {"ms": 300}}],
    }
    flow = await five.ask("flow", tree=parent)
    await scene.started(again)
    await scene.started(flow["children"][0])
    await five.ask("pause", queue="chaos")

    async def aside() -> bool:
        return set((await lists(scene))["paused"]) == {later, again, flow["id"]}

    await scene.until(aside, "all three wait")
    assert (await lists(scene))["wait"] == []
    await five.ask("resume", queue="chaos")
    await all_done(completed=4)


async def test_what_5_obliterates_leaves_nothing_of_ours(five: Node, scene: Scene) -> None:
    """It pauses first."""
    await scene.enqueue({}, {})
    await five.ask("pause", queue="chaos")
    await scene.enqueue({})
    await five.ask("obliterate", queue="chaos")
    assert await lists(scene) == {"wait": [], "paused": []}
    (added,) = await scene.enqueue({})
    assert (await lists(scene))["wait"] == [added]
    await scene.hire()
    await scene.completed([added])


@asynccontextmanager
async def watched(scene: Scene, words: str) -> AsyncIterator[Callable[[], list[dict[str, Any]]]]:
    worker = await scene.hire(stalled_interval_seconds=1)
    yield lambda: [line for line in worker.log if words in line["event"]]


async def test_a_worker_warns_where_5_and_6_share_a_queue(
    five: Node, node: Node, scene: Scene
) -> None:
    checks: set[str | None] = set()

    async def has_looked() -> bool:
        """Whether a second stalled check has begun: the worker looks after each of them."""
        checks.add(await scene.store.client.get(f"{BASE}stalled-check"))
        return len(checks - {None}) > 1

    async with watched(scene, "BullMQ 5 and BullMQ 6") as logged:
        await scene.until(has_looked, "the worker has seen version 5")
        await node.add({"data": {}})
        await scene.until(logged, "the worker has logged both versions")
        assert [line["level"] for line in logged()] == ["warning"]


async def test_a_worker_warns_of_a_limit_that_only_a_node_worker_knows(
    node: Node, scene: Scene, all_done: Any
) -> None:
    added = 0
    async with watched(scene, "limits the rate of a queue by itself") as logged:
        await scene.idle()
        await node.ask(
            "work", queue="chaos", concurrency=1, more={"limiter": {"max": 2, "duration": 500}}
        )

        async def seen() -> bool:
            nonlocal added
            added += len(await node.add(*[{"data": {}}] * 5))
            return bool(logged())

        await scene.until(seen, "the worker has logged the limit")
        await all_done(completed=added)
        assert len(logged()) == 1
