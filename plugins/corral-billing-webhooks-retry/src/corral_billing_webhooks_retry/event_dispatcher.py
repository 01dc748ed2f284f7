"""Calls the subscribers with an event: once, in one transaction with the event's ledger row.

It knows nothing of jobs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from corral import Deps, sql
from corral_billing_webhooks_retry import BillingEvent, hookspecs, job_id_for
from corral_billing_webhooks_retry.billing_tables import billing_objects

__all__ = ["SCOPE", "EventDispatcher"]

SCOPE: Final = "billing-webhooks-retry"
"""Of the ledger: its keys are what `job_id_for` makes of an event."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

HOOKS: Final = (hookspecs.billing_webhooks_retry_event, hookspecs.corral_billing_event)
"""The hook, and its old name, whose implementations are asked after those of the new one."""


@dataclass(frozen=True, slots=True)
class EventDispatcher:
    """Calls the subscribers with events.

    Attributes:
        engine: The database.
        deps: Asks the hook, and enqueues for subscribers, bound to their transaction.
        providers: Whose events are handled.
    """

    engine: AsyncEngine
    deps: Deps
    providers: frozenset[str]

    @property
    def has_subscribers(self) -> bool:
        """Whether any plugin implements the hook."""
        return any(self.deps.implementers(hook) for hook in HOOKS)

    async def dispatch(self, event: BillingEvent) -> Literal["handled", "replayed", "stale"]:
        """Call every subscriber with an event and record it, in one transaction and once.

        Returns:
            `replayed` if that was done before, and nobody was called; `stale` if every subscriber
            has skipped it.

        Raises:
            HookRaised: A subscriber raised; nothing was committed.
            TransactionSpoilt: A subscriber should have; nothing was committed, but for what it
            committed itself.
            DatabaseUnavailable: Nothing was committed, or, where the reply to COMMIT was lost, all
            of it.
        """
        with sql.database_errors(self.engine):
            async with self.engine.begin() as connection:
                if not await sql.Ledger.claim(
                    connection, SCOPE, job_id_for(event.provider, event.event_id)
                ):
                    return "replayed"
                jobs = sql.Outbox(self.deps.jobs).within(connection)
                newer_seen = await _note_newest(connection, event)
                answers = [
                    answer.value
                    for hook in HOOKS
                    for answer in await self.deps.ask_all(hook, event, connection, jobs, newer_seen)
                ]
                await sql.ensure_unspoilt(connection, "billing_webhooks_retry_event")
        is_stale = bool(answers) and all(answer == "stale" for answer in answers)
        return "stale" if is_stale else "handled"


async def _note_newest(connection: AsyncConnection, event: BillingEvent) -> bool:
    """Note when the newest event of an object has happened, and lock the object's row.

    Returns:
        Whether an event that happened later was handled before.
    """
    object_id = _object_id(event)
    if object_id is None:
        return False
    key = job_id_for(event.provider, object_id)
    happened_ms = (event.occurred_at - EPOCH) // timedelta(milliseconds=1)
    row = {"object": key, "newest_ms": happened_ms}
    await connection.execute(sql.insert_if_absent(connection, billing_objects).values(row))
    own = billing_objects.c.object == key
    locked = select(billing_objects.c.newest_ms).where(own).with_for_update()
    newest_ms: int = (await connection.scalars(locked)).one()
    if newest_ms < happened_ms:
        await connection.execute(update(billing_objects).where(own).values(newest_ms=happened_ms))
    return newest_ms > happened_ms


def _object_id(event: BillingEvent) -> str | None:
    """What an event is about; Stripe's say it at `data.object.id`."""
    if event.object_id is not None or event.provider != "stripe":
        return event.object_id
    found: Any = event.body
    for name in ("data", "object", "id"):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, str) and found else None
