"""A key of `record_usage` counts once: repeated, at the same time, and until it is forgotten."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from corral import testing
from corral.sql import ledger
from corral_usage_period_rollover import usage_period_rollover
from corral_usage_period_rollover.processor import roll_over
from corral_usage_period_rollover.rollover import PeriodsLeft
from corral_usage_period_rollover.settings import RolloverSettings
from corral_usage_period_rollover.tables import usage_counters
from corral_usage_period_rollover.usage import KEY_SCOPE, begin_subscription, record_usage

pytestmark = pytest.mark.asyncio

DAY = timedelta(days=1)


async def counted(book: Any) -> list[tuple[str, str, int]]:
    """All counters: subscription, metric, amount."""
    columns = usage_counters.c
    query = select(columns.subscription_id, columns.metric, columns.amount).order_by(columns.id)
    async with book.engine.connect() as connection:
        return [tuple(row) for row in await connection.execute(query)]


async def age_keys(book: Any, age: timedelta) -> None:
    """Make all keys that old."""
    older = ledger.c.claimed_ms - int(age / timedelta(milliseconds=1))
    async with book.engine.begin() as connection:
        await connection.execute(update(ledger).values(claimed_ms=older))


async def keys(book: Any) -> int:
    """How many keys are remembered."""
    query = select(func.count()).select_from(ledger).where(ledger.c.scope == KEY_SCOPE)
    async with book.engine.connect() as connection:
        return int(await connection.scalar(query))


async def test_a_key_counts_once_whatever_the_second_amount_is(books: Any) -> None:
    book = books()
    assert await book.run(record_usage, "ada", "requests", 5, key="req_1")
    assert not await book.run(record_usage, "ada", "requests", 5, key="req_1")
    assert not await book.run(record_usage, "ada", "requests", 7, key="req_1")
    assert await counted(book) == [("ada", "requests", 5)]


async def test_without_a_key_every_call_counts(books: Any) -> None:
    book = books()
    assert await book.run(record_usage, "ada", "requests", 5)
    assert await book.run(record_usage, "ada", "requests", 5)
    assert len(await counted(book)) == 2


async def test_a_key_is_one_of_its_subscription_and_metric(books: Any) -> None:
    """One request may use two metrics, and its id may be another customer's, too."""
    book = books()
    for who, metric in [("ada", "requests"), ("ada", "bytes"), ("bob", "requests")]:
        assert await book.run(record_usage, who, metric, 1, key="req_1")
    assert await book.run(record_usage, 'ada", "x', "requests", 1, key="req_1")
    assert len(await counted(book)) == 4


@pytest.mark.parametrize("key", ["", "k" * 5000, "a\x00b", "Größe", "\ud800"])
async def test_a_key_is_any_text(books: Any, key: str) -> None:
    book = books()
    assert await book.run(record_usage, "ada", "requests", 1, key=key)
    assert not await book.run(record_usage, "ada", "requests", 1, key=key)
    assert await book.run(record_usage, "ada", "requests", 1, key=f"{key}.")


async def test_what_is_rolled_back_was_not_counted(books: Any) -> None:
    book = books()
    async with book.engine.connect() as connection, connection.begin() as transaction:
        assert await record_usage(connection, "ada", "requests", 5, key="req_1")
        await transaction.rollback()
    assert await book.run(record_usage, "ada", "requests", 5, key="req_1")
    assert await counted(book) == [("ada", "requests", 5)]


async def test_two_transactions_with_one_key_count_once(books: Any) -> None:
    """The second waits for the first one, and counts where that one is rolled back."""
    book = books()
    for number, is_rolled_back in enumerate((False, True)):
        has_counted, may_end = asyncio.Event(), asyncio.Event()

        async def first(key: str, is_rolled_back: bool, begun: Any, may_end: Any) -> bool:
            async with book.engine.connect() as connection, connection.begin() as transaction:
                counted_it = await record_usage(connection, "ada", "requests", 1, key=key)
                begun.set()
                await may_end.wait()
                if is_rolled_back:
                    await transaction.rollback()
                return counted_it

        key = f"req_{number}"
        async with asyncio.timeout(30):
            one = asyncio.create_task(first(key, is_rolled_back, has_counted, may_end))
            await has_counted.wait()
            two = asyncio.create_task(book.run(record_usage, "ada", "requests", 2, key=key))
            may_end.set()
            assert await one
            assert await two is is_rolled_back
    assert await counted(book) == [("ada", "requests", 1), ("ada", "requests", 2)]


async def test_twenty_at_once_count_once(books: Any) -> None:
    book = books()
    calls = [book.run(record_usage, "ada", "requests", 1, key="req_1") for _ in range(20)]
    async with asyncio.timeout(60):
        assert sum(await asyncio.gather(*calls)) == 1
    assert len(await counted(book)) == 1


async def test_a_session_takes_a_key_too(books: Any) -> None:
    book = books()
    for expected in (True, False):
        async with AsyncSession(book.engine) as session, session.begin():
            assert await record_usage(session, "ada", "requests", 1, key="req_1") is expected


async def test_a_rollover_forgets_old_keys_and_no_others(books: Any) -> None:
    book = books()
    lifetime = RolloverSettings().key_lifetime
    await book.run(record_usage, "ada", "requests", 1, key="old")
    await age_keys(book, lifetime)
    await book.run(record_usage, "ada", "requests", 1, key="new")
    assert await keys(book) == 2
    await roll_over(testing.job(usage_period_rollover, {}), book.rollover)
    assert await keys(book) == 1
    assert not await book.run(record_usage, "ada", "requests", 1, key="new")


async def test_keys_are_forgotten_where_a_subscription_cannot_be_closed(books: Any) -> None:
    """Otherwise one bad subscription would have the ledger grow for ever."""

    def refuse() -> None:
        raise LookupError("no such customer")

    book = books(usage_period_rollover_closed=refuse)
    begun = datetime.now(UTC) - DAY
    await book.run(begin_subscription, "ada", "hour", started_at=begun)
    await book.run(record_usage, "ada", "requests", 1, key="old")
    await age_keys(book, 31 * DAY)
    with pytest.raises(PeriodsLeft):
        await roll_over(testing.job(usage_period_rollover, {}), book.rollover)
    assert await keys(book) == 0
