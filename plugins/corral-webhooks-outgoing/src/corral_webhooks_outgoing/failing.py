"""Records since when an endpoint has accepted nothing, and announces it after days of that.

The record is in the database: it outlasts processes, and several of them send to one endpoint. A
row is written when an endpoint begins to fail, when that is announced, and when something is
accepted again. Further failures only read it.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from corral import Deps, HookRaised, sql
from corral_webhooks_outgoing import hookspecs
from corral_webhooks_outgoing.endpoints import Endpoint
from corral_webhooks_outgoing.tables import webhook_failing_endpoints

__all__ = ["FailingEndpoints"]

log = logging.getLogger("corral_webhooks_outgoing")

_own = webhook_failing_endpoints.c


class FailingEndpoints:
    """The endpoints that have accepted nothing for some time.

    `corral_webhooks_outgoing.endpoints.forget_failures` ends the record of one.

    Args:
        engine: The database.
        deps: Calls the hook, and enqueues for its implementations in their transaction.
        announced_after: How long an endpoint fails before the hook is called.
    """

    def __init__(self, engine: AsyncEngine, deps: Deps, announced_after: timedelta) -> None:
        self._engine = engine
        self._deps = deps
        self._announced_after = announced_after

    async def record_failure(self, endpoint: Endpoint, now: datetime) -> datetime:
        """Record that an endpoint has not accepted an event, and announce it when it is time.

        Neither a database that is away nor a hook that raises keeps the job from being tried again:
        it is logged, and the next failure makes up for it.

        Args:
            endpoint: The endpoint.
            now: The time of the failure (aware).

        Returns:
            Since when the endpoint has accepted nothing, as far as that can be found out.
        """
        since = now
        try:
            with sql.database_errors(self._engine):
                since = await self._begin(endpoint.id, now)
                if now - since >= self._announced_after:
                    await self._announce(endpoint)
        except HookRaised as error:
            log.warning(
                "a failing webhook endpoint was not announced, its next failure announces it: %s",
                error,
            )
        except Exception as error:  # noqa: BLE001  # whatever it is: the delivery's own failure is what counts
            log.warning("the failure of a webhook endpoint could not be recorded: %s", error)
        return since

    async def _begin(self, endpoint_id: str, now: datetime) -> datetime:
        """Since when an endpoint fails; that it begins to is written."""
        reading = self._engine.execution_options(sqlite_begin="DEFERRED")
        async with reading.connect() as connection:
            since: datetime | None = await connection.scalar(
                select(_own.since).where(_own.endpoint_id == endpoint_id)
            )
        if since is not None:
            return since
        async with self._engine.begin() as connection:
            row = {"endpoint_id": endpoint_id, "since": now, "announced": False}
            await connection.execute(
                sql.insert_if_absent(connection, webhook_failing_endpoints).values(row)
            )
        return now

    async def _announce(self, endpoint: Endpoint) -> None:
        """Call the subscribers, unless that was done since the endpoint began to fail."""
        async with self._engine.begin() as connection:
            # a process that announces it at the same time waits here, and finds it announced
            unannounced = (_own.endpoint_id == endpoint.id) & ~_own.announced
            since: datetime | None = await connection.scalar(
                update(webhook_failing_endpoints)
                .where(unannounced)
                .values(announced=True)
                .returning(_own.since)
            )
            if since is None:
                return
            spec = hookspecs.webhooks_outgoing_endpoint_failing
            jobs = sql.Outbox(self._deps.jobs).within(connection)
            await self._deps.ask_all(
                spec, endpoint=endpoint, since=since, connection=connection, jobs=jobs
            )
            await sql.ensure_unspoilt(connection, spec.__name__)
        log.warning(
            "webhook endpoint %r has accepted nothing since %s", endpoint.id, since.isoformat()
        )
