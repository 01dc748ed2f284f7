"""A store whose memory is full takes no new jobs, and those that are there are worked off: that is
how it gets room.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from corral import Job, JobOptions, Payload, Queue, Retention
from corral.store.connection import Link
from corral.store.queue_store import QueueStore
from corral.worker.consumer import LANES

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.corral_untidy("damaged jobs stay in the quarantine, or where their keys are"),
]

WAITING = 3000
BASE = "bull:notes:"


class Note(Payload):
    text: str = ""


notes = Queue(
    "notes",
    Note,
    options=JobOptions(attempts=1, keep_completed=Retention(), keep_failed=Retention()),
)


@pytest_asyncio.fixture
async def fill(binary: Any) -> AsyncIterator[Callable[[], Any]]:
    """`await fill()`: from now on the store refuses every command that may need memory."""

    async def fill() -> None:
        await binary.config_set("maxmemory", 1)

    yield fill
    await binary.config_set("maxmemory", 0)


async def process(_job: Job[Note]) -> None:
    return None


async def add(binary: Any, *ids: str) -> None:
    async with binary.pipeline(transaction=False) as writing:
        for job in ids:
            writing.hset(
                BASE + job, mapping={"name": "x", "data": "{}", "opts": "{}", "timestamp": 1}
            )
        await writing.execute()


async def test_three_thousand_waiting_jobs_are_worked_off(
    workshop: Any, binary: Any, fill: Any, wait_until: Any, figure: Callable[[str], None]
) -> None:
    """Damaged ones among them: each hurts only itself."""
    ids = [f"j{number}" for number in range(WAITING)]
    await add(binary, *ids, "child")
    await binary.set(f"{BASE}string", "x")
    await binary.set(f"{BASE}child:dependencies", "x")
    damaged = ["string", "ghost", "child", "limiter"]
    for number, odd in enumerate(damaged):
        ids.insert(700 * (number + 1), odd)
    await binary.lpush(f"{BASE}wait", *ids)
    await binary.zadd(f"{BASE}delayed", {"ghost-that-is-due": 4096})
    await binary.zadd(f"{BASE}marker", {"0": 0})
    await fill()
    began = time.monotonic()

    async def drained() -> bool:
        return await binary.zcard(f"{BASE}completed") >= WAITING

    async with workshop.working(notes.processed_by(process), concurrency={"notes": 50}):
        await wait_until(drained, "all jobs are completed")
        figure(
            f"{WAITING} waiting jobs of a full store worked off in {time.monotonic() - began:.1f} s"
        )
        await wait_until(lambda: _ended(binary), "the damaged ones have ended, too")
    assert await binary.zcard(f"{BASE}completed") == WAITING
    assert await binary.exists(f"{BASE}ghost", f"{BASE}ghost-that-is-due") == 0


async def _ended(binary: Any) -> bool:
    return not await binary.exists(
        f"{BASE}wait", f"{BASE}active", f"{BASE}prioritized", f"{BASE}delayed"
    )


@pytest.mark.parametrize("released", [True, False], ids=["released", "stalled"])
async def test_what_a_dead_worker_held_is_taken_back(
    workshop: Any, binary: Any, fill: Any, wait_until: Any, released: bool
) -> None:
    ids = [f"j{number}" for number in range(100)]
    await add(binary, *ids)
    await binary.lpush(f"{BASE}active", *ids)
    await binary.sadd(f"{BASE}stalled", *ids)
    if released:
        for job in ids:
            await binary.set(f"{BASE}{job}:lock", "dead:1", px=60_000)
    await fill()
    if released:
        store = QueueStore(Link(workshop.url), "bull", "notes")
        assert len(await store.release("dead", 1, lanes=LANES)) == len(ids)
        await store.close()

    async def drained() -> bool:
        return await binary.zcard(f"{BASE}completed") == len(ids)

    async with workshop.working(notes.processed_by(process), stalled_interval_seconds=0.5):
        await wait_until(drained, "all jobs are completed")
