"""The plugin's hooks with subscribers of a test, on either database."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

import corral_usage_period_rollover
from corral import Deps, JobScheduler, hookimpl, testing
from corral.sql import create_engine
from corral_usage_period_rollover.rollover import Closed, Rollover
from corral_usage_period_rollover.tables import usage_periods, usage_totals

SECONDS = 60
"""How long a program may take, or what is waited for."""


@pytest_asyncio.fixture
async def engine(corral_database_with_tables: str) -> AsyncIterator[AsyncEngine]:
    """The database with all tables, and nothing in them."""
    engine = create_engine(corral_database_with_tables)
    yield engine
    await engine.dispose()


@pytest_asyncio.fixture
async def jobs(corral_kit: testing.Kit) -> AsyncIterator[JobScheduler]:
    """A scheduler that has an outbox."""
    async with corral_kit.connect() as jobs:
        yield jobs


class Books:
    """A database and its rollover.

    Attributes:
        engine: The database.
        rollover: Closes its periods.
    """

    def __init__(self, engine: AsyncEngine, rollover: Rollover) -> None:
        self.engine = engine
        self.rollover = rollover

    @property
    def on_postgresql(self) -> bool:
        """Which of the two databases it is: they differ where transactions meet."""
        return self.engine.dialect.name == "postgresql"

    async def run(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """One of the application's calls, in a transaction of its own."""
        async with self.engine.begin() as connection:
            return await function(connection, *arguments, **named)

    async def close(self, now: datetime, tick: datetime | None = None) -> Closed:
        async with asyncio.timeout(SECONDS):
            return await self.rollover.close_due(now, tick or now)

    async def periods(
        self, subscription_id: str = "ada"
    ) -> list[tuple[datetime, datetime, datetime | None]]:
        """Its periods in order: start, end, and when each was closed."""
        message = usage_periods.c
        query = select(message.started_at, message.ends_at, message.closed_at).where(
            message.subscription_id == subscription_id
        )
        async with self.engine.connect() as connection:
            return [
                tuple(row) for row in await connection.execute(query.order_by(message.started_at))
            ]

    async def totals(self, subscription_id: str = "ada") -> dict[tuple[datetime, str], int]:
        """What was totalled, by the beginning of the period and the metric."""
        message = usage_totals.c
        query = select(message.started_at, message.metric, message.amount).where(
            message.subscription_id == subscription_id
        )
        async with self.engine.connect() as connection:
            return {
                (start, metric): amount for start, metric, amount in await connection.execute(query)
            }


def deps_of(jobs: JobScheduler, **subscribers: Callable[..., Any]) -> Deps:
    """What a worker offers, with a subscriber in `acme_jobs` for each hook that is named."""
    acme = SimpleNamespace(**{name: hookimpl(made) for name, made in subscribers.items()})
    modules = {"the plugin": corral_usage_period_rollover, "acme_jobs": acme}
    return testing.deps(jobs=jobs, plugins=modules)


@pytest.fixture
def books(engine: AsyncEngine, jobs: JobScheduler) -> Callable[..., Books]:
    """`books(usage_period_rollover_closed=…)`: the database, its rollover, and subscribers to its
    hooks.
    """
    return lambda **subscribers: Books(engine, Rollover(engine, deps_of(jobs, **subscribers)))


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    """`await wait_until(condition, "what is awaited")`: that of `corral.testing`, for a minute."""
    return partial(testing.wait_until, seconds=SECONDS)


@pytest.fixture
def python() -> Callable[..., str]:
    """Runs a program to its end in an interpreter of its own, and returns what it printed."""

    def run(program: str) -> str:
        command = [sys.executable, "-c", program]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=SECONDS
        ).stdout.strip()

    return run
