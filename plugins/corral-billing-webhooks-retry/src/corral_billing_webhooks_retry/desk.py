"""The desk where events are handed over: each once, in one transaction with its row of the ledger.

It knows nothing of jobs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from corral import Deps, sql
from corral_billing_webhooks_retry import BillingEvent, hookspecs, job_id_for

__all__ = ["SCOPE", "Desk"]

SCOPE: Final = "billing-webhooks-retry"
"""Of the ledger: its keys are what `job_id_for` makes of an event."""

HOOKS: Final = (hookspecs.billing_webhooks_retry_event, hookspecs.corral_billing_event)
"""The hook, and its old name, whose implementations are asked after those of the new one."""


@dataclass(frozen=True, slots=True)
class Desk:
    """Where events are handed over.

    Attributes:
        engine: The database.
        deps: Asks the hook, and enqueues for subscribers, bound to their transaction.
        providers: Whose events are handled.
    """

    engine: AsyncEngine
    deps: Deps
    providers: frozenset[str]

    @property
    def subscribed(self) -> bool:
        """Whether anybody wants to be told."""
        return any(self.deps.implementers(hook) for hook in HOOKS)

    async def hand_over(self, event: BillingEvent) -> bool:
        """Call every subscriber with an event and record it, in one transaction and once.

        Returns:
            False where it had been done.

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
