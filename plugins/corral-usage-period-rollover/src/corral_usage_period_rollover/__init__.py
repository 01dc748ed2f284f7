"""The queue `usage-period-rollover`: every hour, close the metered periods that are over.

All that a producer loads.

It must not know SQLAlchemy: corral and pydantic are enough to import it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from corral import Cron, Exponential, JobOptions, Payload, Processor, Queue, hookimpl
from corral_usage_period_rollover import hookspecs

if TYPE_CHECKING:  # workers have it, producers need not
    from sqlalchemy import MetaData
    from sqlalchemy.ext.asyncio import AsyncConnection

    from corral import PluginSettings
    from corral_usage_period_rollover.periods import Period

__all__ = ["UsagePeriodRollover", "usage_period_rollover"]


class UsagePeriodRollover(Payload):
    """Nothing: what is due follows from the database and from the moment at which the job runs."""


usage_period_rollover = Queue(
    "usage-period-rollover",
    UsagePeriodRollover,
    # a database may be away for any time: each job is retried until the next one is due, which
    # closes what this one could not
    options=JobOptions(
        backoff=Exponential(delay=timedelta(seconds=5), max=timedelta(minutes=5))
    ).retrying_for(timedelta(hours=1)),
    timeout=timedelta(
        minutes=50
    ),  # a connection that hangs must not hold the place of the next tick's job
    concurrency=1,
    schedule=Cron("5 * * * *"),
)


@hookimpl
def corral_queues() -> list[Queue]:
    """Declare the queue."""
    return [usage_period_rollover]


@hookimpl
def corral_settings() -> list[type[PluginSettings]]:
    """Declare the settings, `CORRAL_USAGE_PERIOD_ROLLOVER_…`."""
    from corral_usage_period_rollover.settings import RolloverSettings  # noqa: PLC0415  # read where it is needed

    return [RolloverSettings]


@hookimpl
def corral_processors() -> list[Processor]:
    """Bind its processor; the database is imported in here."""
    from corral_usage_period_rollover.processor import open_rollover, roll_over  # noqa: PLC0415  # workers only

    return [usage_period_rollover.processed_by(roll_over, using=open_rollover)]


@hookimpl
def corral_tables() -> list[MetaData]:
    """The tables, for `corral db create`."""
    from corral_usage_period_rollover.tables import metadata  # noqa: PLC0415  # a producer has no SQLAlchemy

    return [metadata]


@hookimpl
def corral_hookspecs() -> list[object]:
    """What applications and other plugins may take part in."""
    return [hookspecs]


@hookimpl(trylast=True)
def usage_period_rollover_totals(
    period: Period, connection: AsyncConnection
) -> Awaitable[Mapping[str, int]]:
    """The totals of our own counters, where the application does not keep its own."""
    from corral_usage_period_rollover.counters import count_usage  # noqa: PLC0415  # a producer has no SQLAlchemy

    return count_usage(period, connection)
