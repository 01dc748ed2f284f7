"""A fetch brings at most as many bytes as it asks for, but always one job.

The other jobs keep waiting.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio

from corral import Payload, Queue
from corral.outcome import Completed, HandedBack
from corral.store.codec import Advanced, Ending
from corral.store.connection import Link
from corral.store.queue_store import QueueStore

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("path")]

KIB = 1024


class Letter(Payload):
    text: str = ""


letters = Queue("letters", Letter)


class Hand:
    """Fetches jobs, and completes them all in the end."""

    def __init__(self, store: QueueStore) -> None:
        self.store = store
        self.seq = 0
        self.held: list[Any] = []

    async def fetch(self, want: int, max_bytes: int, *, again: bool = False) -> Advanced:
        self.seq += not again
        reply = await self.store.advance("hand", self.seq, [], want, max_bytes=max_bytes)
        if not again:
            self.held += reply.jobs
        return reply


@pytest_asyncio.fixture
async def hand(store_url: str, workshop: Any) -> AsyncIterator[Hand]:
    """Complete the jobs that are left: every job still exists, once."""
    store = QueueStore(Link(store_url), "bull", letters.name)
    hand = Hand(store)
    yield hand
    while hand.held:
        endings = [Ending(job, Completed()) for job in hand.held]
        hand.seq += 1
        reply = await store.advance("hand", hand.seq, endings, 500)
        assert set(reply.codes) <= {0}
        hand.held = list(reply.jobs)
    counts = await store.counts()
    assert sum(counts.values()) == counts["completed"] == await _jobs(workshop)
    await store.close()


async def _jobs(workshop: Any) -> int:
    keys = [key async for key in workshop.raw.scan_iter(match="bull:letters:job-*")]
    return len(keys)


async def enqueue(workshop: Any, *kib: int, **options: Any) -> list[str]:
    jobs = workshop.producer(letters)
    return [
        (
            await jobs.enqueue(
                letters, Letter(text="x" * size * KIB), job_id=f"job-{place}", **options
            )
        ).id
        for place, size in enumerate(kib)
    ]


def ids(jobs: Sequence[Any]) -> list[str]:
    return [job.id for job in jobs]


@pytest.mark.parametrize("options", [{}, {"priority": 3}, {"lifo": True}])
async def test_jobs_that_do_not_fit_stay_in_their_place(
    workshop: Any, hand: Hand, options: dict[str, Any]
) -> None:
    enqueued = await enqueue(workshop, *[10] * 8, **options)
    order = enqueued[::-1] if "lifo" in options else enqueued
    first = await hand.fetch(8, 35 * KIB)
    assert (ids(first.jobs), first.cut) == (order[:3], True)
    second = await hand.fetch(8, 25 * KIB)
    assert (ids(second.jobs), second.cut) == (order[3:5], True)
    assert await workshop.raw.exists("bull:letters:marker"), "others may fetch the rest"
    rest = await hand.fetch(8, 1000 * KIB)
    assert (ids(rest.jobs), rest.cut) == (order[5:], False)


async def test_one_job_is_always_fetched_however_large(workshop: Any, hand: Hand) -> None:
    enqueued = await enqueue(workshop, 200, 1, 300)
    assert ids((await hand.fetch(3, 100 * KIB)).jobs) == enqueued[:1]
    assert ids((await hand.fetch(3, 100 * KIB)).jobs) == enqueued[1:2]
    last = await hand.fetch(3, 0)
    assert (ids(last.jobs), last.cut) == (enqueued[2:], False)


async def test_waiting_and_prioritized_together(workshop: Any, hand: Hand) -> None:
    jobs = workshop.producer(letters)
    for place in range(3):
        await jobs.enqueue(letters, Letter(text="x" * 10 * KIB), job_id=f"job-wait-{place}")
        await jobs.enqueue(
            letters, Letter(text="x" * 10 * KIB), job_id=f"job-soon-{place}", priority=place + 1
        )
    first = await hand.fetch(6, 45 * KIB)
    assert ids(first.jobs) == ["job-wait-0", "job-wait-1", "job-wait-2", "job-soon-0"]
    assert await workshop.raw.zrange("bull:letters:prioritized", 0, -1) == [
        "job-soon-1",
        "job-soon-2",
    ]


async def test_a_repeated_call_brings_no_more_than_it_asks_for(workshop: Any, hand: Hand) -> None:
    """The reply was lost, perhaps because of its size.

    Jobs that do not fit into the next one are handed back, and nothing is charged to them.
    """
    enqueued = await enqueue(workshop, *[10] * 6)
    assert ids((await hand.fetch(5, 1000 * KIB)).jobs) == enqueued[:5]
    again = await hand.fetch(5, 25 * KIB, again=True)
    assert (ids(again.jobs), ids(again.unread), again.repeated) == (
        enqueued[:2],
        enqueued[2:5],
        True,
    )
    least = await hand.fetch(5, 0, again=True)
    assert (ids(least.jobs), ids(least.unread)) == (enqueued[:1], enqueued[1:5])
    hand.held = list(again.jobs)
    hand.seq += 1
    codes = (
        await hand.store.advance(
            "hand", hand.seq, [Ending(job, HandedBack()) for job in again.unread], 0
        )
    ).codes
    assert codes == [0, 0, 0]
    assert await workshop.raw.lrange("bull:letters:wait", 0, -1) == [enqueued[5], *enqueued[2:5]]
    assert await workshop.raw.hget(f"bull:letters:{enqueued[2]}", "stc") is None
    assert await workshop.raw.hget(f"bull:letters:{enqueued[2]}", "atm") is None
