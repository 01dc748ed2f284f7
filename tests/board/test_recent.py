"""What was read a moment ago is not read again; a failure is told to all who waited, and kept for
nobody.
"""

from __future__ import annotations

import asyncio

import pytest

from corral.board.recent import Recent


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
async def test_those_who_ask_at_once_share_one_answer() -> None:
    recent, source = Recent(60), Source()
    asking = [asyncio.create_task(recent.get("a", source.read)) for _ in range(20)]
    source.open.set()
    assert await asyncio.gather(*asking) == [1] * 20
    assert await recent.get("a", source.read) == 1
    assert await recent.get("b", source.read) == 2


@pytest.mark.asyncio
async def test_an_answer_is_forgotten_when_it_is_old_or_something_was_changed() -> None:
    source = Source()
    source.open.set()
    old = Recent(0)
    assert [await old.get("a", source.read) for _ in range(2)] == [1, 2]
    changed = Recent(60)
    assert await changed.get("a", source.read) == 3
    changed.forget()
    assert await changed.get("a", source.read) == 4


@pytest.mark.asyncio
async def test_a_failure_is_told_to_all_who_wait_and_the_next_one_asks_again() -> None:
    recent, source = Recent(60), Source(fails=1)
    asking = [asyncio.create_task(recent.get("a", source.read)) for _ in range(3)]
    source.open.set()
    told = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(each) for each in told] == [ConnectionError] * 3
    assert await recent.get("a", source.read) == 2


@pytest.mark.asyncio
async def test_who_goes_away_takes_the_answer_from_nobody() -> None:
    recent, source = Recent(60), Source()
    gone = asyncio.create_task(recent.get("a", source.read))
    stays = asyncio.create_task(recent.get("a", source.read))
    await source.asked.wait()
    gone.cancel()
    source.open.set()
    assert await stays == 1
    assert source.reads == 1
