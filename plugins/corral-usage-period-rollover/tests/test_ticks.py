"""The schedule on a real store, in time that the test moves: what each tick closes, and what a late
one catches up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import select

from corral import testing
from corral_usage_period_rollover import usage_period_rollover
from corral_usage_period_rollover.periods import ClosedPeriod
from corral_usage_period_rollover.processor import open_rollover, roll_over
from corral_usage_period_rollover.rollover import Rollover
from corral_usage_period_rollover.tables import usage_periods
from corral_usage_period_rollover.usage import begin_subscription, record_usage

pytestmark = pytest.mark.asyncio

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
PROCESSOR = usage_period_rollover.processed_by(roll_over, using=open_rollover)


@dataclass
class Day:
    """Some day of a subscription with hourly periods; it is ten past, and a worker has been there.

    Attributes:
        hour: When the first period began.
        kit: The store, and its time.
        book: The database.
    """

    hour: datetime
    kit: testing.Kit
    book: Any

    async def until(self, moment: datetime) -> list[tuple[datetime, bytes]]:
        """Let a worker work until a moment: the tick and the result of each job that it ran."""
        drained = await self.kit.drain(PROCESSOR, until=moment)
        for run in drained:
            assert run.job.scheduled_for <= run.job.processed_on <= self.kit.now
        return [(run.job.scheduled_for, run.outcome.returnvalue) for run in drained]

    async def ticks(self) -> list[datetime]:
        """The ticks that are written down, one for each closed period in turn."""
        query = select(usage_periods.c.tick).where(usage_periods.c.closed_at.is_not(None))
        return list(
            await self.book.run(lambda connection: connection.scalars(query.order_by("started_at")))
        )


def result(tick: datetime, periods: int) -> bytes:
    return b'{"tick":"%s","periods":%d,"subscriptions":%d}' % (
        tick.strftime("%Y-%m-%dT%H:%M:%SZ").encode(),
        periods,
        min(periods, 1),
    )


@pytest_asyncio.fixture
async def day(books: Callable[..., Any], corral_kit: testing.Kit) -> Day:
    hour = corral_kit.now.astimezone(UTC).replace(minute=0, second=0, microsecond=0) + HOUR
    corral_kit.travel_to(hour + 10 * MINUTE)
    book = books()
    await book.run(begin_subscription, "ada", "hour", started_at=hour)
    for number in range(5):
        await book.run(
            record_usage, "ada", "requests", number + 1, recorded_at=hour + number * HOUR
        )
    assert not await corral_kit.drain(PROCESSOR), "it installs the schedule, and nothing is due"
    return Day(hour, corral_kit, book)


async def test_every_hour_at_minute_5_the_hour_before_is_closed(day: Day) -> None:
    ran = await day.until(day.hour + 3 * HOUR + 10 * MINUTE)
    ticks = [day.hour + number * HOUR + 5 * MINUTE for number in (1, 2, 3)]
    assert ran == [(tick, result(tick, 1)) for tick in ticks]
    assert await day.ticks() == ticks
    assert await day.book.totals() == {
        (day.hour + number * HOUR, "requests"): number + 1 for number in range(3)
    }


async def test_three_missed_ticks_are_caught_up_by_the_next(day: Day) -> None:
    """Nobody works for three hours and a half: one job stands for all that was missed, and the
    chain goes on.
    """
    day.kit.travel(3 * HOUR + 30 * MINUTE)
    tick = day.hour + HOUR + 5 * MINUTE
    assert await day.until(day.hour + 3 * HOUR + 50 * MINUTE) == [(tick, result(tick, 3))]
    assert await day.ticks() == [tick] * 3
    assert await day.book.totals() == {
        (day.hour + number * HOUR, "requests"): number + 1 for number in range(3)
    }

    following = day.hour + 4 * HOUR + 5 * MINUTE
    assert await day.until(following + MINUTE) == [(following, result(following, 1))]


async def test_a_second_run_of_one_tick_changes_nothing(
    day: Day, books: Callable[..., Any]
) -> None:
    received: list[ClosedPeriod] = []

    def receive(period: ClosedPeriod) -> None:
        received.append(period)

    rollover: Rollover = books(usage_period_rollover_closed=receive).rollover
    (run,) = await day.kit.drain(PROCESSOR, until=day.hour + HOUR + 10 * MINUTE)
    before = await day.book.periods(), await day.book.totals()

    again = await roll_over(run.job, rollover)

    assert (again.tick, again.periods, again.subscriptions) == (run.job.scheduled_for, 0, 0)
    assert (await day.book.periods(), await day.book.totals()) == before
    assert received == []
