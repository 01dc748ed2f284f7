"""Replies are lost after the store has done what it was asked: asking again does it once."""

from __future__ import annotations

import asyncio

import pytest

from chaos.acme_chaos import chaos
from chaos.processes import producer
from chaos.proxy import every_first_try
from chaos.scene import Scene

pytestmark = pytest.mark.asyncio

ENQUEUED, PRODUCERS = 300, 10
ADVANCED, JOBS = 200, 2000


async def test_300_enqueue_calls_whose_replies_are_cut_make_300_jobs(scene: Scene) -> None:
    """Ten producers beside each other: calls of one would be written together."""
    known = await scene.enqueue(
        {}
    )  # the store knows the script, so that what is lost is the reply of an add

    async def enqueue() -> tuple[list[str], int]:
        async with scene.proxy() as proxy, producer(proxy.url) as own:
            proxy.cut = every_first_try("add")
            made = [await own.enqueue(chaos, {}) for _ in range(ENQUEUED // PRODUCERS)]
            assert all(each.created for each in made)
            return [each.id for each in made], proxy.cuts

    message = await asyncio.gather(*(enqueue() for _ in range(PRODUCERS)))
    ids = {*known, *(job for made, _ in message for job in made)}
    assert sum(cuts for _, cuts in message) == ENQUEUED
    assert len(ids) == ENQUEUED + 1
    assert sorted(await scene.store.client.lrange("bull:chaos:wait", 0, -1)) == sorted(ids)


async def test_200_advance_calls_whose_replies_are_cut_start_each_job_once(scene: Scene) -> None:
    """Whether the reply said that endings are written or which jobs were fetched; and no stall is
    counted.

    One worker makes one call at a time, the other, with more to do, two.
    """
    async with scene.proxy() as proxy:
        proxy.cut = every_first_try("advance")
        for concurrency in (3, 20):
            await scene.hire(
                url=proxy.url, concurrency=concurrency, lock_seconds=2, stalled_interval_seconds=1
            )
        enqueued = await scene.enqueue(*[{"ms": 1}] * JOBS)
        await scene.completed(enqueued, seconds=60)
        assert proxy.cuts >= ADVANCED, proxy.cuts

    assert scene.each_started_once(enqueued)
    fields = [await scene.store.client.hmget(f"bull:chaos:{job}", "ats", "stc") for job in enqueued]
    assert [each for each in fields if each != ["1", None]] == []


async def test_a_reply_that_the_link_breaks_under_is_asked_for_in_smaller_pieces(
    scene: Scene,
) -> None:
    """A link that breaks after 300 kB: nothing that large ever arrives, and every job runs, once,
    without a stall.
    """
    async with scene.proxy() as proxy:
        proxy.longest_reply = 300_000
        await scene.hire(url=proxy.url, concurrency=60, lock_seconds=2, stalled_interval_seconds=1)
        enqueued = await scene.enqueue(*[{"filler": "x" * 60_000}] * 120)
        await scene.completed(enqueued, seconds=60)
        assert proxy.cuts > 0

    assert scene.each_started_once(enqueued)
    assert await scene.stalls(enqueued) == {}
