"""The processor of `usage-period-rollover`: closes the periods that were over when it started."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

import corral.sql
from corral import Deps, Job
from corral_usage_period_rollover import UsagePeriodRollover
from corral_usage_period_rollover.rollover import Rollover
from corral_usage_period_rollover.settings import RolloverSettings
from corral_usage_period_rollover.tables import metadata

__all__ = ["RolledOver", "open_rollover", "roll_over"]


class RolledOver(BaseModel):
    """The job's result.

    Attributes:
        tick: The tick it ran for.
        periods: How many periods this run closed.
        subscriptions: Of how many subscriptions.
    """

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, frozen=True)

    tick: datetime
    periods: int
    subscriptions: int


@asynccontextmanager
async def open_rollover(deps: Deps) -> AsyncIterator[Rollover]:
    """The rollover of this worker, on the worker's database, which may be away.

    Raises:
        ConfigurationError: The database lacks our tables, or a setting cannot be used.
    """
    settings = RolloverSettings()
    engine = await deps.enter(corral.sql.engine)
    await corral.sql.require_tables(engine, *metadata.tables.values(), corral.sql.ledger)
    yield Rollover(engine, deps, key_lifetime=settings.key_lifetime)


async def roll_over(job: Job[UsagePeriodRollover], rollover: Rollover) -> RolledOver:
    """Forget old keys of `record_usage`, and close every period that had ended when this started.

    Returns:
        What this run closed: nothing, where an earlier attempt did it all.

    Raises:
        PeriodsLeft: Some subscriptions could not be rolled over; the next attempt tries them again.
        Exception: The database failed.
    """
    await rollover.forget_keys()  # first: a subscription that always fails must not keep all keys
    closed = await rollover.close_due(job.processed_on, tick=job.scheduled_for)
    return RolledOver(
        tick=job.scheduled_for, periods=closed.periods, subscriptions=closed.subscriptions
    )
