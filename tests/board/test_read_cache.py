"""A fresh answer is reused; a failure goes to all who wait, and is not kept."""

from __future__ import annotations

import asyncio

import pytest

from corral.board.read_cache import ReadCache


class Source:
    def __init__(self, fails: int = 0) -> None:
        self.reads = 0
        self.fails = fails
        self.asked = asyncio.Event()
        self.open = asyncio.Event()

    async def read(self) -> int:
        self.reads += 1
        number = self.reads
        self.asked.set()
        await self.open.wait()
        if number <= self.fails:
            raise ConnectionError("away")
        return number


@pytest.mark.asyncio
async def test_concurrent_callers_share_one_read() -> None:
    cache, source = ReadCache(60), Source()
    asking = [asyncio.create_task(cache.get("a", source.read)) for _ in range(20)]
    source.open.set()
    assert await asyncio.gather(*asking) == [1] * 20
    assert await cache.get("a", source.read) == 1
    assert await cache.get("b", source.read) == 2


@pytest.mark.asyncio
async def test_an_answer_is_read_again_when_it_is_old_or_the_cache_is_cleared() -> None:
    source = Source()
    source.open.set()
    old = ReadCache(0)
    assert [await old.get("a", source.read) for _ in range(2)] == [1, 2]
    changed = ReadCache(60)
    assert await changed.get("a", source.read) == 3
    changed.clear()
    assert await changed.get("a", source.read) == 4


@pytest.mark.asyncio
async def test_a_failed_read_raises_for_all_who_wait_and_the_next_call_reads_again() -> None:
    cache, source = ReadCache(60), Source(fails=1)
    asking = [asyncio.create_task(cache.get("a", source.read)) for _ in range(3)]
    source.open.set()
    errors = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(each) for each in errors] == [ConnectionError] * 3
    assert await cache.get("a", source.read) == 2


@pytest.mark.asyncio
async def test_a_cancelled_caller_does_not_cancel_the_read_of_others() -> None:
    cache, source = ReadCache(60), Source()
    gone = asyncio.create_task(cache.get("a", source.read))
    stays = asyncio.create_task(cache.get("a", source.read))
    await source.asked.wait()
    gone.cancel()
    source.open.set()
    assert await stays == 1
    assert source.reads == 1
