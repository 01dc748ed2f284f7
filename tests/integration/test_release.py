"""Releasing a dead worker's jobs: the keys are as after a stalled check.

Jobs of other workers are left alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from corral import Payload, Queue
from corral.outcome import Completed
from corral.store.codec import Ending
from corral.store.connection import Link
from corral.store.queue_store import QueueStore, StaleCall

pytestmark = pytest.mark.asyncio

DEAD, ALIVE = "host-7-aa.1", "host-7-aa.11"
"""One name begins with the other."""


class Letter(Payload):
    text: str = ""


checked, released = Queue("checked", Letter), Queue("released", Letter)


@pytest_asyncio.fixture
async def stores(store_url: str, workshop: Any) -> AsyncIterator[dict[Queue[Any], QueueStore]]:
    """Two queues with the same jobs.

    The dead worker has the locks of `one`, `two` and `urgent`, another worker that of `theirs`.
    """
    link = Link(store_url)
    stores = {queue: QueueStore(link, "bull", queue.name) for queue in (checked, released)}
    jobs = workshop.producer(*stores)
    for queue, store in stores.items():
        for job_id in ("one", "two"):
            await jobs.enqueue(queue, Letter(), job_id=job_id)
        await jobs.enqueue(queue, Letter(), job_id="urgent", priority=1)
        await store.advance(DEAD, 1, [], 3)
        await jobs.enqueue(queue, Letter(), job_id="theirs")
        await store.advance(ALIVE, 1, [], 1)
        await jobs.enqueue(queue, Letter(), job_id="later")
    yield stores
    for queue, store in stores.items():
        await workshop.raw.delete(
            *[f"bull:{queue.name}:{job}:lock" for job in ("one", "two", "urgent", "theirs")]
        )
        await store.close()


async def stall(raw: Any, store: QueueStore, max_stalled: int) -> set[str]:
    """Run a stalled check after the dead worker's locks have expired."""
    for job_id in ("one", "two", "urgent"):
        await raw.delete(f"bull:checked:{job_id}:lock")
    found: set[str] = set()
    for _ in range(2):
        await raw.delete("bull:checked:stalled-check")
        found.update((await store.check_stalled(60_000, max_stalled)).job_ids)
    return found


async def left(workshop: Any, queue: Queue[Any]) -> dict[str, Any]:
    """Return the queue's keys without times."""
    raw, base = workshop.raw, f"bull:{queue.name}:"
    hashes = {
        job: await raw.hgetall(base + job) for job in ("one", "two", "urgent", "theirs", "later")
    }
    for fields in hashes.values():
        for differing in (
            "name",
            "timestamp",
            "processedOn",
            "opts",
        ):  # each job has its own (a nonce in `opts`)
            fields.pop(differing, None)
    return {
        "jobs": hashes,
        "wait": sorted((await raw.lrange(f"{base}wait", 0, -1))[1:]),
        "last in line": (await raw.lrange(f"{base}wait", 0, 0)),
        "active": await raw.lrange(f"{base}active", 0, -1),
        "locks": sorted([key async for key in raw.scan_iter(match=f"{base}*:lock")])
        == [f"{base}theirs:lock"],
        "marker": await raw.zrange(f"{base}marker", 0, -1, withscores=True),
        "events": {
            job: [each["event"] for each in await workshop.events(queue, job)] for job in hashes
        },
    }


@pytest.mark.parametrize("max_stalled", [0, 1])
@pytest.mark.parametrize("meta", [{}, {"paused": "1"}, {"concurrency": "1"}, {"concurrency": "2"}])
async def test_the_same_is_left_as_by_a_stalled_check(
    workshop: Any, stores: dict[Queue[Any], QueueStore], max_stalled: int, meta: dict[str, str]
) -> None:
    for queue in stores:
        await workshop.raw.delete(f"bull:{queue.name}:marker")
        if meta:
            await workshop.raw.hset(f"bull:{queue.name}:meta", mapping=meta)
    found = await stall(workshop.raw, stores[checked], max_stalled)
    ids = await stores[released].release(DEAD, max_stalled)
    assert set(ids) == found == {"one", "two", "urgent"}
    after = await left(workshop, released)
    assert after == await left(workshop, checked)
    assert after["jobs"]["one"]["stc"] == "1"
    assert ("defa" in after["jobs"]["one"]) == (max_stalled == 0)
    assert after["active"] == ["theirs"]
    assert bool(after["marker"]) == (meta in ({}, {"concurrency": "2"}))


async def test_released_jobs_run_next_in_the_order_they_were_fetched(
    stores: dict[Queue[Any], QueueStore], workshop: Any
) -> None:
    assert await stores[released].release(DEAD, 1) == ["urgent", "two", "one"]
    assert await workshop.raw.lrange("bull:released:wait", 0, -1) == [
        "later",
        "urgent",
        "two",
        "one",
    ]
    assert await stores[released].release(DEAD, 1) == [], "there is nothing more to take"


async def test_a_mark_of_a_stalled_check_is_removed(
    stores: dict[Queue[Any], QueueStore], workshop: Any
) -> None:
    await stores[released].check_stalled(60_000, 1)
    assert await workshop.raw.smembers("bull:released:stalled") == {
        "one",
        "two",
        "urgent",
        "theirs",
    }
    await stores[released].release(DEAD, 1)
    assert await workshop.raw.smembers("bull:released:stalled") == {"theirs"}


async def test_an_iteration_of_a_living_schedule_is_not_failed(
    stores: dict[Queue[Any], QueueStore], workshop: Any
) -> None:
    await workshop.raw.hset("bull:released:one", "rjk", "nightly")
    await workshop.raw.hset("bull:released:two", "rjk", "removed")
    await workshop.raw.zadd("bull:released:repeat", {"nightly": 1})
    await stores[released].release(DEAD, 0)
    doomed = [
        job for job in ("one", "two", "urgent") if "defa" in await workshop.hash(released, job)
    ]
    await workshop.raw.delete("bull:released:repeat")
    assert doomed == ["two", "urgent"]


async def test_a_late_call_of_the_dead_worker_changes_nothing(
    stores: dict[Queue[Any], QueueStore], store_url: str, workshop: Any
) -> None:
    """Neither a fetch, in any lane, nor an ending: its jobs would have no worker."""
    fetched = (await stores[released].advance(DEAD, 1, [], 3)).jobs[0]
    await stores[released].release(DEAD, 1, lanes=2)
    before = await left(workshop, released)
    second = QueueStore(Link(store_url), "bull", released.name, lane=1)
    for lane, seq, endings in (
        (stores[released], 2, [Ending(fetched, Completed(b"1"))]),
        (second, 3, []),
    ):
        with pytest.raises(StaleCall):
            await lane.advance(DEAD, seq, endings, 5)
    await second.close()
    assert await left(workshop, released) == before
