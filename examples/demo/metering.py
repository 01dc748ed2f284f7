"""Metered usage: a subscription whose last hours nobody has closed, and what the rollover makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from corral_usage_period_rollover.tables import usage_periods, usage_totals
from corral_usage_period_rollover.usage import begin_subscription, record_usage

__all__ = ["CUSTOMER", "USED", "ClosedHour", "begin_metering", "closed_hours", "open_hours"]

CUSTOMER = "acme"
"""Whose subscription it is."""

USED = (120, 80, 45)
"""Requests in each of the hours that are over."""

HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class ClosedHour:
    """A period that was closed.

    Attributes:
        started_at: When it began (UTC).
        requests: What was totalled.
    """

    started_at: datetime
    requests: int


async def begin_metering(engine: AsyncEngine) -> datetime:
    """A subscription by the hour, begun three hours ago, with a counter on the first moment of each hour.

    Returns:
        When it began.
    """
    start = datetime.now(UTC).replace(microsecond=0) - len(USED) * HOUR - timedelta(minutes=5)
    async with engine.begin() as connection:
        await begin_subscription(connection, CUSTOMER, "hour", started_at=start)
        for number, requests in enumerate(USED):
            await record_usage(connection, CUSTOMER, "requests", requests, recorded_at=start + number * HOUR)
    return start


async def closed_hours(engine: AsyncEngine) -> list[ClosedHour]:
    """The periods that are closed, with their totals, in order."""
    query = (
        select(usage_periods.c.started_at, usage_totals.c.amount)
        .join_from(usage_periods, usage_totals)
        .where(usage_periods.c.closed_at.is_not(None))
        .order_by(usage_periods.c.started_at)
    )
    async with engine.connect() as connection:
        return [ClosedHour(start, requests) for start, requests in await connection.execute(query)]


async def open_hours(engine: AsyncEngine) -> list[datetime]:
    """When the open periods began: one of each subscription."""
    query = select(usage_periods.c.started_at).where(usage_periods.c.closed_at.is_(None))
    async with engine.connect() as connection:
        return list(await connection.scalars(query))
