"""Closing periods, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from corral import testing
from corral_usage_period_rollover import UsagePeriodRollover, rollover, usage_period_rollover
from corral_usage_period_rollover.periods import ClosedPeriod
from corral_usage_period_rollover.processor import RolledOver, roll_over
from corral_usage_period_rollover.rollover import Closed, PeriodsLeft
from corral_usage_period_rollover.tables import usage_counters, usage_periods
from corral_usage_period_rollover.usage import begin_subscription, end_subscription, record_usage

pytestmark = pytest.mark.asyncio

MICROSECOND = timedelta(microseconds=1)


def at(hour: int, minute: int = 0, *, day: int = 1) -> datetime:
    return datetime(2027, 1, day, hour, minute, tzinfo=UTC)


def append_to(closed: list[ClosedPeriod]) -> Callable[[ClosedPeriod], None]:
    """Make a subscriber that appends each period; `list.append` has other argument names."""

    def append(period: ClosedPeriod) -> None:
        closed.append(period)

    return append


async def test_closes_what_is_over_totals_it_and_opens_the_next(books: Any) -> None:
    book = books()
    await book.run(begin_subscription, "ada", "hour", started_at=at(9))
    for metric, amount, minute in [("requests", 3, 10), ("requests", 4, 20), ("megabytes", 50, 30)]:
        await book.run(record_usage, "ada", metric, amount, recorded_at=at(9, minute))

    assert await book.close(at(10, 5)) == Closed(periods=1, subscriptions=1)

    assert await book.periods() == [(at(9), at(10), at(10, 5)), (at(10), at(11), None)]
    assert await book.totals() == {(at(9), "requests"): 7, (at(9), "megabytes"): 50}


async def test_leaves_alone_what_is_not_over(books: Any) -> None:
    book = books()
    await book.run(begin_subscription, "ada", "hour", started_at=at(9))
    assert await book.close(at(10) - MICROSECOND) == Closed(0, 0)
    assert await book.close(at(10)) == Closed(1, 1), "a period that ends now is over"


async def test_twice_is_the_same(books: Any) -> None:
    received: list[ClosedPeriod] = []
    book = books(usage_period_rollover_closed=append_to(received))
    await book.run(begin_subscription, "ada", "hour", started_at=at(9))
    await book.run(record_usage, "ada", "requests", 3, recorded_at=at(9))
    await book.close(at(10, 5))
    before = await book.periods(), await book.totals()

    assert await book.close(at(10, 6)) == Closed(0, 0)

    assert (await book.periods(), await book.totals()) == before
    assert len(received) == 1


async def test_the_tick_after_three_missed_ones_closes_each_period_in_turn(books: Any) -> None:
    received: list[ClosedPeriod] = []
    book = books(usage_period_rollover_closed=append_to(received))
    await book.run(begin_subscription, "ada", "hour", started_at=at(9))
    for hour in (9, 10, 11, 12):
        await book.run(record_usage, "ada", "requests", hour, recorded_at=at(hour, 30))

    assert await book.close(at(13, 7), tick=at(13, 5)) == Closed(periods=4, subscriptions=1)

    assert await book.periods() == [
        *((at(hour), at(hour + 1), at(13, 7)) for hour in (9, 10, 11, 12)),
        (at(13), at(14), None),
    ]
    assert received == [
        ClosedPeriod(
            "ada",
            at(hour),
            at(hour + 1),
            totals={"requests": hour},
            closed_at=at(13, 7),
            tick=at(13, 5),
        )
        for hour in (9, 10, 11, 12)
    ]


async def test_the_tick_is_written_down(books: Any) -> None:
    book = books()
    await book.run(begin_subscription, "ada", "hour", started_at=at(9))
    job = testing.job(
        usage_period_rollover,
        UsagePeriodRollover(),
        scheduled_for=at(10, 5),
        processed_on=at(10, 5) + MICROSECOND * 9000,
    )
    assert await roll_over(job, book.rollover) == RolledOver(
        tick=at(10, 5), periods=1, subscriptions=1
    )
    async with book.engine.connect() as connection:
        periods = usage_periods.c
        row = (
            await connection.execute(
                select(periods.tick, periods.closed_at).where(periods.started_at == at(9))
            )
        ).one()
    assert tuple(row) == (at(10, 5), job.processed_on)


async def test_a_counter_on_a_boundary_belongs_to_the_period_that_begins(books: Any) -> None:
    book = books()
    await book.run(begin_subscription, "ada", "hour", started_at=at(9))
    for moment, amount in [
        (at(9), 1),
        (at(10) - MICROSECOND, 10),
        (at(10), 100),
        (at(11) - MICROSECOND, 1000),
    ]:
        await book.run(record_usage, "ada", "requests", amount, recorded_at=moment)
    await book.close(at(11, 5))
    assert await book.totals() == {(at(9), "requests"): 11, (at(10), "requests"): 1100}


async def test_a_counter_that_comes_after_its_period_was_closed_is_counted_once_in_the_next(
    books: Any,
) -> None:
    book = books()
    await book.run(begin_subscription, "ada", "hour", started_at=at(9))
    await book.run(record_usage, "ada", "requests", 1, recorded_at=at(9, 58))
    await book.close(at(10, 5))
    await book.run(record_usage, "ada", "requests", 10, recorded_at=at(9, 59))
    await book.run(record_usage, "ada", "requests", 100, recorded_at=at(10, 30))
    await book.close(at(13, 5))
    assert await book.totals() == {(at(9), "requests"): 1, (at(10), "requests"): 110}


async def test_a_counter_that_is_committed_while_its_period_is_closed_is_counted_once(
    books: Any,
) -> None:
    """SQLite has one transaction that writes at a time: there the rollover waits, and counts it at
    once.
    """
    book = books()
    await book.run(begin_subscription, "ada", "hour", started_at=at(9))
    async with book.engine.begin() as connection:
        await record_usage(connection, "ada", "requests", 10, recorded_at=at(9, 59))
        closing = asyncio.create_task(book.close(at(10, 5)))
        if book.on_postgresql:
            assert await closing == Closed(1, 1), "it does not wait for whoever counts"
    assert await closing == Closed(1, 1)
    await book.close(at(11, 5))
    assert await book.totals() == {(at(10 if book.on_postgresql else 9), "requests"): 10}


async def test_each_subscription_counts_its_own(books: Any) -> None:
    book = books()
    for name, length, hour in [("ada", "hour", 9), ("bob", "day", 8)]:
        await book.run(begin_subscription, name, length, started_at=at(hour))
        await book.run(record_usage, name, "requests", len(length), recorded_at=at(9, 30))
    assert await book.close(at(10, 5)) == Closed(1, 1)
    assert await book.totals("ada") == {(at(9), "requests"): 4}
    assert await book.totals("bob") == {}
    await book.close(at(9, 5, day=2))
    assert await book.totals("bob") == {(at(8), "requests"): 3}


async def test_month_ends(books: Any) -> None:
    book = books()
    await book.run(begin_subscription, "ada", "month", started_at=at(0, day=31))
    await book.close(datetime(2027, 4, 1, tzinfo=UTC))
    assert [start.strftime("%m-%d") for start, _, _ in await book.periods()] == [
        "01-31",
        "02-28",
        "03-31",
    ]
    assert (await book.periods())[-1][1:] == (datetime(2027, 4, 30, tzinfo=UTC), None)


async def test_a_subscription_that_began_between_boundaries_has_a_short_first_period(
    books: Any,
) -> None:
    book = books()
    first = await book.run(
        begin_subscription, "ada", "month", started_at=at(12, day=10), anchor_at=at(0, day=1)
    )
    assert (first.started_at, first.ends_at) == (at(12, day=10), datetime(2027, 2, 1, tzinfo=UTC))
    await book.close(datetime(2027, 2, 1, tzinfo=UTC))
    assert (await book.periods())[-1] == (
        datetime(2027, 2, 1, tzinfo=UTC),
        datetime(2027, 3, 1, tzinfo=UTC),
        None,
    )


async def test_a_subscription_that_has_ended_gets_no_further_period(books: Any) -> None:
    book = books()
    await book.run(begin_subscription, "ada", "hour", started_at=at(9))
    await book.run(end_subscription, "ada", ended_at=at(10, 30))
    assert await book.close(at(15)) == Closed(2, 1)
    assert await book.periods() == [(at(9), at(10), at(15)), (at(10), at(11), at(15))]
    assert await book.close(at(16)) == Closed(0, 0)


async def test_a_subscription_that_is_ended_while_its_period_is_closed_gets_no_further_one(
    books: Any, wait_until: Any
) -> None:
    """The rollover waits for whoever is ending it: on PostgreSQL for a row, on SQLite for its turn."""
    book = books()
    await book.run(begin_subscription, "ada", "hour", started_at=at(9))

    async def waits() -> bool:
        query = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return bool((await book.run(lambda connection: connection.execute(query))).scalar())

    async with book.engine.begin() as connection:
        await end_subscription(connection, "ada", ended_at=at(10))
        closing = asyncio.create_task(book.close(at(10, 5)))
        if book.on_postgresql:
            await wait_until(waits, "the rollover waits for the subscription's row")
    assert await closing == Closed(1, 1)
    assert await book.periods() == [(at(9), at(10), at(10, 5))]


async def test_rows_that_contradict_each_other_do_not_stop_the_others(books: Any) -> None:
    book = books()
    for name in ("ada", "bob"):
        await book.run(begin_subscription, name, "hour", started_at=at(9))
    there_already = {
        "subscription_id": "ada",
        "started_at": at(10),
        "ends_at": at(11),
        "closed_at": at(11),
    }
    await book.run(
        lambda connection: connection.execute(insert(usage_periods).values(**there_already))
    )
    with pytest.raises(PeriodsLeft, match="'ada'"):
        await book.close(at(10, 5))
    assert (await book.periods("ada"))[0][2] is None
    assert (await book.periods("bob"))[0][2] == at(10, 5)


async def test_an_error_of_the_database_is_raised_as_it_is(books: Any) -> None:
    book = books()
    await book.run(begin_subscription, "ada", "hour", started_at=at(9))
    await book.run(record_usage, "ada", "requests", recorded_at=at(9))
    for dropped in ("usage_totals", "usage_periods"):
        await book.run(
            lambda connection, table=dropped: connection.execute(text(f"DROP TABLE {table}"))
        )
        with pytest.raises(DBAPIError, match=dropped):  # not a PeriodsLeft, and not a Fail
            await book.close(at(10, 5))


async def test_two_rollovers_at_once_close_each_period_once(books: Any) -> None:
    received: list[tuple[str, datetime]] = []
    book = books(
        usage_period_rollover_closed=lambda period: received.append(
            (period.subscription_id, period.started_at)
        )
    )
    names = [f"s{number}" for number in range(8)]
    for name in names:
        await book.run(begin_subscription, name, "hour", started_at=at(9))
        await book.run(record_usage, name, "requests", 5, recorded_at=at(9))

    both = await asyncio.gather(*(book.close(at(11, 5)) for _ in range(4)))

    assert sum(closed.periods for closed in both) == 16
    for name in names:
        assert await book.totals(name) == {(at(9), "requests"): 5}
        assert len(await book.periods(name)) == 3
    # a transaction that is refused the lock is rolled back before it calls a subscriber
    assert sorted(set(received)) == sorted(received)


async def test_what_is_due_is_worked_off_in_pages(
    books: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollover, "PAGE", 3)
    book = books()
    for number in range(10):
        await book.run(begin_subscription, f"s{number}", "hour", started_at=at(9))
    assert await book.close(at(11, 5)) == Closed(periods=20, subscriptions=10)
    assert await book.close(at(11, 5)) == Closed(0, 0)


async def test_a_crash_in_the_middle_leaves_whole_periods_and_the_next_run_does_the_rest(
    books: Any,
) -> None:
    class Killed(BaseException):
        pass

    def die(period: ClosedPeriod) -> None:
        if period.subscription_id == "s3":
            raise Killed

    book = books(usage_period_rollover_closed=die)
    for number in range(6):
        await book.run(begin_subscription, f"s{number}", "hour", started_at=at(9))
    with pytest.raises(Killed):
        await book.close(at(10, 5))
    assert await books().close(at(10, 6)) == Closed(3, 3)


async def test_one_period_of_each_beginning_and_one_that_is_open(books: Any) -> None:
    """The unique indexes are what holds the promise, whoever writes into the tables."""
    book = books()
    await book.run(begin_subscription, "ada", "hour", started_at=at(9))
    for start, closed_at in [(at(9), at(10)), (at(10), None)]:
        row = {
            "subscription_id": "ada",
            "started_at": start,
            "ends_at": at(11),
            "closed_at": closed_at,
        }
        with pytest.raises(IntegrityError):
            await book.run(
                lambda connection, row=row: connection.execute(insert(usage_periods).values(**row))
            )


async def test_an_application_with_an_orm_hands_over_its_session(books: Any) -> None:
    book = books()
    async with AsyncSession(book.engine) as session, session.begin():
        await begin_subscription(session, "ada", "hour", started_at=at(9))
        await record_usage(session, "ada", "requests", 5, recorded_at=at(9))
    await book.close(at(10, 5))
    assert await book.totals() == {(at(9), "requests"): 5}


async def test_a_subscription_may_change_its_length_and_its_anchor(books: Any) -> None:
    from corral_usage_period_rollover.tables import usage_subscriptions

    book = books()
    await book.run(begin_subscription, "ada", "hour", started_at=at(9, 30))
    change = update(usage_subscriptions).values(length="day", anchor_at=at(0))
    await book.run(lambda connection: connection.execute(change))
    await book.close(at(10, 35))
    assert await book.periods() == [
        (at(9, 30), at(10, 30), at(10, 35)),
        (at(10, 30), at(0, day=2), None),
    ]


async def test_moments_without_a_time_zone_are_refused(books: Any) -> None:
    book = books()
    naive = datetime(2027, 1, 1)  # noqa: DTZ001  # that is the point
    with pytest.raises(Exception, match="without a time zone"):
        await book.run(record_usage, "ada", "requests", recorded_at=naive)
    vienna = datetime.fromisoformat("2027-01-01T01:00:00+01:00")
    await book.run(record_usage, "ada", "requests", recorded_at=vienna)
    stored = await book.run(
        lambda connection: connection.scalars(select(usage_counters.c.recorded_at))
    )
    assert [moment.isoformat() for moment in stored] == ["2027-01-01T00:00:00+00:00"]
