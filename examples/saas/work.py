"""`Work`: one transaction, what is enqueued in it, and who hears of what happens in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from corral import JobScheduler
from corral.sql import Outbox
from examples.saas.events import Event
from examples.saas.listeners import LISTENERS

__all__ = ["Work", "working"]


@dataclass(frozen=True, slots=True)
class Work:
    """What a use case is handed.

    Attributes:
        connection: The database, in a transaction.
        jobs: Enqueues in this transaction; a test hands over a `RecordingJobScheduler`.
    """

    connection: AsyncConnection
    jobs: JobScheduler

    async def publish(self, event: Event) -> None:
        """Call the listeners of an event.

        What they do is committed with everything else, or not at all.
        """
        for listener in LISTENERS[type(event)]:
            await listener(event, self.connection, self.jobs)


@asynccontextmanager
async def working(engine: AsyncEngine, jobs: JobScheduler) -> AsyncIterator[Work]:
    """One transaction, committed at the block's end unless something was raised.

    Args:
        engine: The database.
        jobs: What `corral.connect()` yields.
    """
    async with engine.begin() as connection:
        yield Work(connection, Outbox(jobs).within(connection))
