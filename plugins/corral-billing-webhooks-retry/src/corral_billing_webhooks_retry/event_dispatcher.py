"""Calls the subscribers with an event: once, in one transaction with the event's ledger row.

It knows nothing of jobs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from corral import Deps, sql
from corral_billing_webhooks_retry import BillingEvent, hookspecs, job_id_for

__all__ = ["SCOPE", "EventDispatcher"]

SCOPE: Final = "billing-webhooks-retry"
"""Of the ledger: its keys are what `job_id_for` makes of an event."""

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

    async def dispatch(self, event: BillingEvent) -> bool:
        """Call every subscriber with an event and record it, in one transaction and once.

        Returns:
            False if it was done before.

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
                    return False
                jobs = sql.Outbox(self.deps.jobs).within(connection)
                for hook in HOOKS:
                    await self.deps.ask_all(hook, event=event, connection=connection, jobs=jobs)
                await sql.ensure_unspoilt(connection, "billing_webhooks_retry_event")
        return True
