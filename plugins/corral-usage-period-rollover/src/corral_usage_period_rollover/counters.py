"""The default of `usage_period_rollover_totals`: sums the table `usage_counters`."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from corral_usage_period_rollover.periods import Period
from corral_usage_period_rollover.tables import usage_counters

__all__ = ["count_usage"]


async def count_usage(period: Period, connection: AsyncConnection) -> Mapping[str, int]:
    """Count what was recorded before the period's end and counted in no other.

    That is the period's own usage, and what came too late for an earlier one. Counters are marked
    first and then totalled by their mark: one that is committed between the two statements is in
    neither, and waits for the next period.

    Returns:
        The total of each metric.
    """
    counters = usage_counters.c
    await connection.execute(
        update(usage_counters)
        .where(
            counters.subscription_id == period.subscription_id,
            counters.counted_in.is_(None),
            counters.recorded_at < period.ends_at,
        )
        .values(counted_in=period.started_at)
    )
    totals = await connection.execute(
        select(counters.metric, func.sum(counters.amount))
        .where(
            counters.subscription_id == period.subscription_id,
            counters.counted_in == period.started_at,
        )
        .group_by(counters.metric)
        .order_by(counters.metric)
    )
    return {metric: int(amount) for metric, amount in totals}
