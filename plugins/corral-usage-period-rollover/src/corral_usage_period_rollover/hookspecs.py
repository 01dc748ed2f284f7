"""The hooks that this plugin offers: one totals usage, one reacts to a closed period.

Both are called by the worker, inside the transaction that closes the period, with its connection.
Whatever they write through it is there if and only if the period is closed. A hook is a function or
an `async def`; what it returns is awaited where that can be awaited. An exception rolls the period
back, and the job is tried again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING

from corral import hookspec

if TYPE_CHECKING:  # a producer loads this module and has no SQLAlchemy
    from sqlalchemy.ext.asyncio import AsyncConnection

    from corral import JobScheduler
    from corral_usage_period_rollover.periods import ClosedPeriod, Period

__all__ = ["usage_period_rollover_closed", "usage_period_rollover_totals"]


@hookspec
def usage_period_rollover_totals(
    period: Period, connection: AsyncConnection
) -> Awaitable[Mapping[str, int]] | Mapping[str, int] | None:
    """Total the usage of a period that is being closed.

    Called once per closing. The first who answers is the one who counts; without an answer of the
    application's, the counters of `usage_counters` are totalled.

    Args:
        period: What is closed, `started_at` included and `ends_at` not.
        connection: The transaction that closes it.

    Returns:
        The total of each metric, in whole units. None leaves it to the next.
    """


@hookspec
def usage_period_rollover_closed(
    period: ClosedPeriod, connection: AsyncConnection, jobs: JobScheduler
) -> Awaitable[None] | None:
    """React to a closed period and its successor; both are committed after the last subscriber.

    Called once per closing, for everybody who subscribes, one after the other: billing, quotas.

    Args:
        period: What was closed, with its totals.
        connection: The transaction that closes it. Do not commit it.
        jobs: Enqueues in this transaction.
    """
