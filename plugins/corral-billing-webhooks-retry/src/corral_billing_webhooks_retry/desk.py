"""The desk where events are handed over: each once, in one transaction with its row of the ledger.

It knows nothing of jobs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pluggy import HookRelay
from sqlalchemy.ext.asyncio import AsyncEngine

from corral import JobScheduler, sql
from corral.hooks import all_answers
from corral_billing_webhooks_retry import BillingEvent, job_id_for

__all__ = ["SCOPE", "Desk"]

SCOPE: Final = "billing-webhooks-retry"
"""Of the ledger: its keys are what `job_id_for` makes of an event."""


@dataclass(frozen=True, slots=True)
class Desk:
    """Where events are handed over.

    Attributes:
        engine: The database.
        hook: Calls `corral_billing_event`.
        jobs: What subscribers enqueue with, once it is bound to their transaction.
        providers: Whose events are handled.
    """

    engine: AsyncEngine
    hook: HookRelay
    jobs: JobScheduler
    providers: frozenset[str]

    @property
    def subscribed(self) -> bool:
        """Whether anybody wants to be told."""
        return bool(self.hook.corral_billing_event.get_hookimpls())

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
        with sql.unavailable(self.engine):
            async with self.engine.begin() as connection:
                if not await sql.Ledger.claim(
                    connection, SCOPE, job_id_for(event.provider, event.event_id)
                ):
                    return False
                jobs = sql.Outbox(self.jobs).within(connection)
                await all_answers(
                    self.hook.corral_billing_event, event=event, connection=connection, jobs=jobs
                )
                await sql.ensure_unspoilt(connection, "corral_billing_event")
        return True
