"""A table that events have an effect on, and a dispatcher with a test's subscribers, on either
database.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from types import ModuleType
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import column, func, insert, select, table, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

import corral_billing_webhooks_retry
from corral import Deps, JobScheduler, hookimpl, sql, testing
from corral_billing_webhooks_retry import BillingEvent, billing_webhooks_retry
from corral_billing_webhooks_retry.event_dispatcher import EventDispatcher
from corral_billing_webhooks_retry.processor import EventResult, dispatch_event
from corral_billing_webhooks_retry.settings import PREFIX

SECONDS = 60
"""How long a program may take, or what is waited for."""

payments = table("payments", column("event"))
"""The effect: one row for each event that a subscriber was called with."""


class PaymentsDatabase:
    """A database with payments.

    Attributes:
        engine: The database.
        jobs: A scheduler that has an outbox.
    """

    def __init__(self, engine: AsyncEngine, jobs: JobScheduler) -> None:
        self.engine = engine
        self.jobs = jobs

    @staticmethod
    def event(event_id: str = "evt_1", *, provider: str = "stripe") -> BillingEvent:
        """Some event."""
        return BillingEvent(
            provider=provider,
            event_id=event_id,
            type="invoice.paid",
            occurred_at=datetime(2027, 1, 1, 10, tzinfo=UTC),
            body={"id": event_id},
        )

    @staticmethod
    async def pay(event: BillingEvent, connection: AsyncConnection) -> None:
        """A subscriber, the one that most tests have."""
        await connection.execute(
            insert(payments).values(event=f"{event.provider} {event.event_id}")
        )

    @property
    def on_postgresql(self) -> bool:
        """Which of the two databases it is."""
        return self.engine.dialect.name == "postgresql"

    def dispatcher(self, *subscribers: Callable[..., Any]) -> EventDispatcher:
        """The dispatcher of a worker; the subscribers are packages `acme_0`, `acme_1` …, called in
        this order.
        """
        return EventDispatcher(
            self.engine, self.deps(*subscribers), frozenset({"stripe", "google-play"})
        )

    def deps(
        self,
        *subscribers: Callable[..., Any],
        hook: str = "billing_webhooks_retry_event",
        resources: AsyncExitStack | None = None,
    ) -> Deps:
        """What a worker offers whose packages `acme_0`, `acme_1` … implement a hook, in this order."""
        packages: dict[str, ModuleType] = {}
        for number, subscriber in enumerate(subscribers):
            packages[f"acme_{number}"] = ModuleType(f"acme_{number}")
            setattr(packages[f"acme_{number}"], hook, hookimpl(subscriber))
        modules = {"the plugin": corral_billing_webhooks_retry, **dict(reversed(packages.items()))}
        return testing.deps(jobs=self.jobs, plugins=modules, resources=resources)

    async def run_job(
        self, dispatcher: EventDispatcher, sent: BillingEvent | None = None, **job: Any
    ) -> str:
        """Run the processor with a job, and return the status in its result."""
        async with asyncio.timeout(SECONDS):
            result: EventResult = await dispatch_event(
                testing.job(billing_webhooks_retry, sent or self.event(), **job), dispatcher
            )
        return result.status

    async def effects(self) -> list[str]:
        """The payments that were made."""
        async with self.engine.connect() as connection:
            return list(await connection.scalars(select(payments.c.event).order_by("event")))

    async def count_rows(self) -> tuple[int, int, int]:
        """Count the rows that there are: payments, claims in the ledger, jobs in the outbox."""
        async with self.engine.connect() as connection:
            counted = [
                await connection.scalar(select(func.count()).select_from(each))
                for each in (payments, table("corral_ledger"), table("corral_outbox"))
            ]
        return counted[0], counted[1], counted[2]


@pytest.fixture(autouse=True)
def _no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)


@pytest_asyncio.fixture
async def payments_db(
    corral_database_with_tables: str, corral_kit: testing.Kit
) -> AsyncIterator[PaymentsDatabase]:
    engine = sql.create_engine(corral_database_with_tables)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE payments (event TEXT)"))
    async with corral_kit.connect() as jobs:
        yield PaymentsDatabase(engine, jobs)
    await engine.dispose()


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
