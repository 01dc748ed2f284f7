"""The hooks: what subscribers do in the transaction that closes a period, and what becomes of it
when they fail.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import column, func, insert, select, table, text
from sqlalchemy.exc import DBAPIError

from corral_usage_period_rollover.periods import ClosedPeriod, Period
from corral_usage_period_rollover.rollover import Closed, PeriodsLeft
from corral_usage_period_rollover.tables import usage_periods
from corral_usage_period_rollover.usage import begin_subscription, record_usage

pytestmark = pytest.mark.asyncio


def at(hour: int, minute: int = 0) -> datetime:
    return datetime(2027, 1, 1, hour, minute, tzinfo=UTC)


async def test_a_subscriber_that_raises_leaves_its_period_open_and_nothing_half_done(
    books: Any,
) -> None:
    """What it wrote through the connection is gone, too; what was closed before it stays closed."""
    invoices = table("invoices", column("subscription"), column("amount"))
    broken = True

    async def bill(period: ClosedPeriod, connection: Any) -> None:
        await connection.execute(
            insert(invoices).values(subscription=period.subscription_id, amount=period.totals["x"])
        )
        if broken and period.started_at == at(10):
            raise ValueError("no price")

    book = books(usage_period_rollover_closed=bill)
    await book.run(
        lambda connection: connection.execute(
            text("CREATE TABLE invoices (subscription TEXT, amount INT)")
        )
    )
    await book.run(begin_subscription, "ada", "hour", started_at=at(9))
    for hour in (9, 10, 11):
        await book.run(record_usage, "ada", "x", hour, recorded_at=at(hour))

    with pytest.raises(
        PeriodsLeft,
        match="'ada': acme_jobs raised in usage_period_rollover_closed: ValueError: no price",
    ):
        await book.close(at(12, 5))
    assert await book.periods() == [(at(9), at(10), at(12, 5)), (at(10), at(11), None)]
    assert await book.totals() == {(at(9), "x"): 9}

    broken = False
    assert await book.close(at(12, 6)) == Closed(2, 1)
    assert await book.totals() == {(at(hour), "x"): hour for hour in (9, 10, 11)}
    billed = await book.run(lambda connection: connection.execute(select(invoices.c.amount)))
    assert sorted(amount for (amount,) in billed) == [9, 10, 11]


async def test_a_subscriber_that_raises_for_one_subscription_does_not_stop_the_others(
    books: Any,
) -> None:
    def refuse(period: ClosedPeriod) -> None:
        if period.subscription_id in {"bob", "cy"}:
            raise LookupError(period.subscription_id)

    book = books(usage_period_rollover_closed=refuse)
    for name in ("ada", "bob", "cy", "dan"):
        await book.run(begin_subscription, name, "hour", started_at=at(9))
    with pytest.raises(PeriodsLeft, match=r"'bob'.*, and 1 more"):
        await book.close(at(10, 5))
    closed = {
        name: (await book.periods(name))[0][2] is not None for name in ("ada", "bob", "cy", "dan")
    }
    assert closed == {"ada": True, "bob": False, "cy": False, "dan": True}


@pytest.mark.parametrize("hook", ["usage_period_rollover_totals", "usage_period_rollover_closed"])
async def test_a_subscriber_that_swallows_the_database_s_refusal_does_not_make_a_period_look_closed(
    books: Any, hook: str
) -> None:
    """PostgreSQL answers COMMIT with ROLLBACK then, and without an error.

    To SQLite a refusal is no matter.
    """

    async def swallow(period: Period, connection: Any) -> dict[str, int]:
        if period.subscription_id == "ada":
            with contextlib.suppress(DBAPIError):
                await connection.execute(text("SELECT * FROM nowhere"))
        return {}

    book = books(**{hook: swallow})
    for name in ("ada", "bob"):
        await book.run(begin_subscription, name, "hour", started_at=at(9))
    with (
        pytest.raises(PeriodsLeft, match=f"'ada': {hook} left")
        if book.on_postgresql
        else contextlib.nullcontext()
    ):
        await book.close(at(12, 5))
    assert [len(await book.periods(name)) for name in ("ada", "bob")] == [
        1 if book.on_postgresql else 4,
        4,
    ]


@pytest.mark.parametrize("ending", ["commit", "rollback"])
async def test_a_subscriber_that_ends_the_transaction_is_named_and_does_not_stop_the_others(
    books: Any, ending: str
) -> None:
    async def end(period: ClosedPeriod, connection: Any) -> None:
        if period.subscription_id == "ada":
            await getattr(connection, ending)()

    book = books(usage_period_rollover_closed=end)
    for name in ("ada", "bob"):
        await book.run(begin_subscription, name, "hour", started_at=at(9))
    with pytest.raises(
        PeriodsLeft, match="'ada': usage_period_rollover_closed left the transaction unusable"
    ):
        await book.close(at(10, 5))
    assert len(await book.periods("bob")) == 2


async def test_an_answer_that_is_no_total_leaves_the_period_open(books: Any) -> None:
    book = books(
        usage_period_rollover_totals=lambda period: (
            7 if period.subscription_id == "ada" else {"seats": 7}
        )
    )
    for name in ("ada", "bob"):
        await book.run(begin_subscription, name, "hour", started_at=at(9))
    with pytest.raises(
        PeriodsLeft,
        match="'ada': usage_period_rollover_totals was answered with int, which is no mapping",
    ):
        await book.close(at(10, 5))
    assert await book.periods("ada") == [(at(9), at(10), None)]
    assert await book.totals("bob") == {(at(9), "seats"): 7}


@pytest.mark.parametrize(
    ("totals", "why"),
    [
        ({"seats": Decimal(7)}, "'seats' with Decimal, which is no whole number; hint: int"),
        ({"seats": None}, "'seats' with NoneType"),
        ({"seats": 2.5}, "'seats' with float"),
        ({"seats": True}, "'seats' with bool"),
        ({"seats": 2**63}, "'seats' with more than 64 bits hold"),
        ({7: 7}, "7 as a metric, which is no text of up to 64 characters"),
        ({"x" * 65: 7}, "'x{65}' as a metric"),
    ],
)
async def test_a_total_that_the_table_does_not_take_is_named_and_stops_nobody_else(
    books: Any, totals: dict[Any, Any], why: str
) -> None:
    """What sums up a PostgreSQL bigint is a Decimal; SQLite would keep half a seat, and 65
    characters.
    """
    book = books(
        usage_period_rollover_totals=lambda period: (
            totals if period.subscription_id == "ada" else {"seats": 7}
        )
    )
    for name in ("ada", "bob"):
        await book.run(begin_subscription, name, "hour", started_at=at(9))
    with pytest.raises(
        PeriodsLeft, match=f"'ada': usage_period_rollover_totals was answered {why}"
    ):
        await book.close(at(10, 5))
    assert await book.periods("ada") == [(at(9), at(10), None)]
    assert await book.totals("bob") == {(at(9), "seats"): 7}


async def test_counters_that_come_to_more_than_a_total_holds_stop_nobody_else(books: Any) -> None:
    book = books()
    for name in ("ada", "bob"):
        await book.run(begin_subscription, name, "hour", started_at=at(9))
        for amount in (2**63 - 1, 1 if name == "ada" else -1):
            await book.run(record_usage, name, "bytes", amount, recorded_at=at(9))
    with pytest.raises(PeriodsLeft, match="'ada': "):
        await book.close(at(10, 5))
    assert await book.periods("ada") == [(at(9), at(10), None)]
    assert await book.totals("bob") == {(at(9), "bytes"): 2**63 - 2}


async def test_the_application_may_count_by_itself(books: Any) -> None:
    async def totals(period: Any, connection: Any) -> dict[str, int]:
        assert (await connection.scalar(select(func.count()).select_from(usage_periods))) == 1
        return {"seats": 12} if period.started_at == at(9) else {}

    book = books(usage_period_rollover_totals=totals)
    await book.run(begin_subscription, "ada", "hour", started_at=at(9))
    await book.run(record_usage, "ada", "requests", 5, recorded_at=at(9))
    await book.close(at(10, 5))
    assert await book.totals() == {(at(9), "seats"): 12}


async def test_the_application_may_leave_some_subscriptions_to_the_counters(books: Any) -> None:
    def totals(period: Any) -> dict[str, int] | None:
        return {"seats": 12} if period.subscription_id == "ada" else None

    book = books(usage_period_rollover_totals=totals)
    for name in ("ada", "bob"):
        await book.run(begin_subscription, name, "hour", started_at=at(9))
        await book.run(record_usage, name, "requests", 5, recorded_at=at(9))
    await book.close(at(10, 5))
    assert await book.totals("ada") == {(at(9), "seats"): 12}
    assert await book.totals("bob") == {(at(9), "requests"): 5}
