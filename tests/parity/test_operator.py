"""What an operator does leaves the same keys, whether BullMQ for Node does it or our
`JobInspector`.

BullMQ makes the same jobs below two prefixes. Then it does a thing below one, and we do it below
the other.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import pytest_asyncio

from corral import Payload, Queue
from corral.catalog import Catalog, CatalogEntry
from corral.inspector import CurrentIteration, JobInspector, JobLocked, WrongState
from corral.plugins import Provider
from corral.store.clock import Clock
from corral.store.connection import Link
from parity.keyspace import read
from parity.lane import Lane, open_lane
from parity.operating import (
    CASES,
    FAILS,
    LONG,
    MIXED,
    NOTHING,
    OTHER,
    OURS,
    PLAIN,
    QUEUE,
    STEP_MS,
    THEIRS,
    Sides,
    child,
    parent,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Mail(Payload):
    """Whatever."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lane(node_modules: Path) -> AsyncIterator[Lane]:
    with tempfile.TemporaryDirectory(prefix="corral-operator-") as folder:
        async with open_lane(Path(folder), node_modules) as opened:
            yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def sides(lane: Lane, assert_no_leaks: Any) -> AsyncIterator[Sides]:
    await lane.client.flushall()
    real = time.time_ns() // 1_000_000
    now = real // STEP_MS * STEP_MS + 100
    provider = Provider("acme", "1.0", "wheel")
    queues = {name: CatalogEntry(Queue(name, Mail), provider, "") for name in (QUEUE, OTHER)}
    link = Link(lane.url)
    inspector = JobInspector(
        Catalog(MappingProxyType(queues)), link, prefix=OURS, clock=Clock(now - real)
    )
    yield Sides(lane, inspector, now)
    await inspector.close()
    if not await lane.client.keys("*:lock"):  # else a test has left jobs active
        await assert_no_leaks(lane.client, OURS)


@pytest.mark.parametrize("name", CASES)
async def test_the_same_keys_are_left(sides: Sides, name: str) -> None:
    case = CASES[name]
    if case.tree:
        await sides.flow(case.tree)
    else:
        await sides.made(*case.jobs)
    for how in case.ends:
        await sides.worked(1, how)
    if case.active:
        await sides.worked(case.active)
    before = await read(sides.lane.client, OURS)
    await case.theirs(sides)
    await case.ours(sides)
    found, ours = await sides.compared()
    found = [entry for entry in found if not re.match(case.apart, entry)]
    assert not found, "\n".join(["", *found])
    assert ("none" in name or "nothing" in name or "is locked" in name) == (ours == before)


@pytest.mark.trap(16)
async def test_promote_all_and_retry_all_honour_priority(sides: Sides) -> None:
    """Where BullMQ's bulk operations put everything into `wait`, ours do what each single one does
    (trap T16).
    """
    jobs = [{"jobId": f"p{n}", "priority": n} for n in (3, 1, 2)]
    await sides.made(*jobs)
    for _ in jobs:
        await sides.worked(1, FAILS)
    for job in jobs:
        assert await sides.node("retry", THEIRS, id=job["jobId"], state="failed") == 0
    assert await sides.inspector.retry_all_failed(QUEUE) == 3
    found, ours = await sides.compared()
    # BullMQ's were retried in the order they were added, ours in the order they failed
    assert {entry.partition(" · ")[0] for entry in found} <= {
        f"{QUEUE}:events",
        f"{QUEUE}:prioritized",
    }
    assert [ours[f"{QUEUE}:prioritized", f"[{place}]"] for place in range(3)] == ["p1", "p2", "p3"]

    await sides.lane.client.flushall()
    delayed = [{"jobId": f"p{n}", "priority": n, "delay": LONG} for n in (3, 1, 2)]
    await sides.made(*delayed)
    for job in delayed:
        assert await sides.node("promote", THEIRS, id=job["jobId"]) == 0
    assert await sides.inspector.promote_all(QUEUE) == 3
    found, ours = await sides.compared()
    assert found == []


async def test_resume_and_what_comes_while_the_queue_is_paused(sides: Sides) -> None:
    await sides.node("pause", THEIRS)
    await sides.inspector.pause(QUEUE)
    await sides.made(*MIXED)
    assert (await sides.compared())[0] == []
    assert await sides.inspector.is_paused(QUEUE)
    await sides.node("resume", THEIRS)
    assert await sides.inspector.resume(QUEUE)
    assert (await sides.compared())[0] == []
    assert not await sides.inspector.is_paused(QUEUE)


async def test_resume_brings_back_what_bullmq_5_has_put_aside(sides: Sides) -> None:
    """Such ids are older than what waits, and so run before it."""
    await sides.made(*PLAIN)
    for prefix in (THEIRS, OURS):
        await sides.lane.client.rename(f"{prefix}:{QUEUE}:wait", f"{prefix}:{QUEUE}:paused")
        await sides.lane.client.hset(f"{prefix}:{QUEUE}:meta", "paused", 1)
    await sides.made({"jobId": "later"})
    await sides.node("resume", THEIRS)
    await sides.inspector.resume(QUEUE)
    found, ours = await sides.compared()
    assert found == []
    assert [ours[f"{QUEUE}:wait", f"[{place}]"] for place in range(4)] == ["later", "c", "b", "a"]


async def test_limits_are_taken_away(sides: Sides) -> None:
    await sides.inspector.set_concurrency(QUEUE, 3)
    await sides.inspector.set_rate_limit(QUEUE, 5, timedelta(seconds=2))
    await sides.node("concurrency", THEIRS, value=3)
    await sides.node("rate_limit", THEIRS, max=5, duration_ms=2000)
    assert (await sides.compared())[0] == []
    limits = await sides.inspector.limits(QUEUE)
    assert (limits.concurrency, limits.rate, limits.per) == (3, 5, timedelta(seconds=2))
    await sides.inspector.set_concurrency(QUEUE, None)
    await sides.inspector.set_rate_limit(QUEUE, None)
    await sides.node("concurrency", THEIRS, value=None)
    await sides.node("rate_limit", THEIRS, max=None, duration_ms=0)
    assert (await sides.compared())[0] == []


async def test_the_run_a_schedule_waits_for_is_kept_and_cannot_be_removed(sides: Sides) -> None:
    """Without it the schedule would end: refused by name, and left by drain and clean."""
    for prefix in (THEIRS, OURS):
        await sides.node("schedule", prefix, id="hourly", every_ms=LONG)
    await sides.made(*PLAIN, {"jobId": "d", "delay": LONG})
    ours = await read(sides.lane.client, OURS)
    (tick,) = {key for key, _ in ours if key.startswith(f"{QUEUE}:repeat:hourly:")}
    tick = tick.removeprefix(f"{QUEUE}:")
    with pytest.raises(CurrentIteration):
        await sides.inspector.remove(QUEUE, tick)
    assert await read(sides.lane.client, OURS) == ours

    state = "delayed" if (f"{QUEUE}:delayed", f"{tick} at") in ours else "wait"
    await sides.node("clean", THEIRS, age_ms=0, limit=0, state=state)
    await sides.inspector.clean(QUEUE, "delayed" if state == "delayed" else "waiting", NOTHING)
    assert (await sides.compared())[0] == []
    await sides.inspector.drain(QUEUE, delayed=True)
    left = await read(sides.lane.client, OURS)
    assert (f"{QUEUE}:{tick}", "name") in left
    assert (f"{QUEUE}:{state}", "[0]") in left
    assert left[f"{QUEUE}:{state}", "[0]"] == tick


async def test_what_is_refused_changes_nothing(sides: Sides) -> None:
    await sides.made(*PLAIN)
    await sides.worked(1)
    before = await read(sides.lane.client, OURS)
    with pytest.raises(JobLocked):
        await sides.inspector.remove(QUEUE, "a")
    with pytest.raises(WrongState):
        await sides.inspector.retry(QUEUE, "a")
    with pytest.raises(WrongState):
        await sides.inspector.promote(QUEUE, "b")
    assert await read(sides.lane.client, OURS) == before


@pytest.mark.trap(10)
async def test_a_child_whose_id_holds_colons_goes_with_its_parent(sides: Sides) -> None:
    """BullMQ leaves its id in `wait`, without a job (trap T10)."""
    await sides.flow(parent(QUEUE, child("a"), child("b:c:d"), child("e:f:g", OTHER, delay=LONG)))
    await sides.inspector.remove(QUEUE, "parent")
    left = {key for key, _ in await read(sides.lane.client, OURS)}
    kept = {
        f"{queue}:{key}" for queue in (QUEUE, OTHER) for key in ("events", "id", "marker", "meta")
    }
    assert left <= kept
