"""Closing periods: what is due, in bounded pages; each period in a transaction of its own.

It knows nothing of jobs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from corral import Deps, HookRaised
from corral.sql import Ledger, Outbox, TransactionSpoilt, ensure_unspoilt
from corral_usage_period_rollover import hookspecs
from corral_usage_period_rollover.periods import ClosedPeriod, Period, next_boundary
from corral_usage_period_rollover.settings import KEY_DAYS
from corral_usage_period_rollover.tables import (
    METRIC_LENGTH,
    usage_periods,
    usage_subscriptions,
    usage_totals,
)
from corral_usage_period_rollover.usage import KEY_SCOPE

__all__ = ["Closed", "HookMisused", "PeriodsLeft", "Rollover"]

PAGE = 500
"""How many due subscriptions are read at once: some 64 KiB of ids at most, and no transaction is
held meanwhile.
"""


class HookMisused(Exception):
    """A hook was answered with what is no total: the period it was called for stays open."""


class PeriodsLeft(Exception):
    """Some subscriptions could not be rolled over; all others were."""


@dataclass(frozen=True, slots=True)
class Closed:
    """What was done.

    Attributes:
        periods: How many periods were closed.
        subscriptions: Of how many subscriptions.
    """

    periods: int
    subscriptions: int


class Rollover:
    """Closes periods.

    Args:
        engine: The database.
        deps: Asks `usage_period_rollover_totals` and `usage_period_rollover_closed`, and enqueues
            for subscribers, bound to their transaction.
        key_lifetime: How long keys of `record_usage` are remembered.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        deps: Deps,
        *,
        key_lifetime: timedelta = timedelta(days=KEY_DAYS),
    ) -> None:
        self._engine = engine
        self._key_lifetime = key_lifetime
        self._deps = deps
        self._outbox = Outbox(deps.jobs)

    async def forget_keys(self) -> int:
        """Forget the keys of `record_usage` whose time is over; returns how many."""
        async with self._engine.begin() as connection:
            return await Ledger.purge(connection, KEY_SCOPE, self._key_lifetime)

    async def close_due(self, now: datetime, tick: datetime) -> Closed:
        """Close every period that ended at or before now, and its successors that did, too.

        One subscription that cannot be rolled over does not stop the others.

        Args:
            now: The moment (aware).
            tick: What is written down as the tick (aware).

        Raises:
            PeriodsLeft: Hooks raised, or rows that contradict each other, for some subscriptions.
            Exception: The database failed; what was closed before is closed.
        """
        periods = subscriptions = 0
        left: list[tuple[str, Exception]] = []
        page: Sequence[str] = ()
        while page := await self._list_due(now, after=page[-1] if page else None):
            for subscription_id in page:
                before, is_due = periods, True
                try:
                    while is_due:
                        closed, is_due = await self._close_next(subscription_id, now, tick)
                        periods += closed
                except (
                    HookRaised,
                    HookMisused,
                    TransactionSpoilt,
                    DataError,
                    IntegrityError,
                ) as error:
                    left.append((subscription_id, error))
                subscriptions += periods > before
        if left:
            name, first = left[0]
            others = f", and {len(left) - 1} more" if len(left) > 1 else ""
            raise PeriodsLeft(
                f"could not roll over subscription {name!r}: {first}{others}"
            ) from first
        return Closed(periods, subscriptions)

    async def _list_due(self, now: datetime, *, after: str | None) -> Sequence[str]:
        periods = usage_periods.c
        due = select(periods.subscription_id).where(
            periods.closed_at.is_(None), periods.ends_at <= now
        )
        if after is not None:
            due = due.where(periods.subscription_id > after)
        async with self._engine.connect() as connection:
            return (
                await connection.scalars(due.order_by(periods.subscription_id).limit(PAGE))
            ).all()

    async def _close_next(
        self, subscription_id: str, now: datetime, tick: datetime
    ) -> tuple[bool, bool]:
        """Close a subscription's open period, if it is over, and open the next, in one transaction.

        The update is the claim, and it comes first: of two rollovers at once one finds the row
        closed and does nothing, and SQLite takes its write lock before anything was read.

        Returns:
            Whether it was closed, and whether the next one is over, too.
        """
        periods = usage_periods.c
        claim = (
            update(usage_periods)
            .where(
                periods.subscription_id == subscription_id,
                periods.closed_at.is_(None),
                periods.ends_at <= now,
            )
            .values(closed_at=now, tick=tick)
            .returning(periods.started_at, periods.ends_at)
        )
        async with self._engine.begin() as connection:
            claimed = (await connection.execute(claim)).one_or_none()
            if claimed is None:
                return False, False
            period = Period(subscription_id, claimed.started_at, claimed.ends_at)
            totals = await self._totals(period, connection)
            if totals:
                await connection.execute(insert(usage_totals), _rows(period, totals))
            opened = await self._open_next(period, connection)
            closed = ClosedPeriod(
                period.subscription_id,
                period.started_at,
                period.ends_at,
                totals=totals,
                closed_at=now,
                tick=tick,
            )
            await self._call_subscribers(closed, connection)
        return True, opened is not None and opened.ends_at <= now

    async def _open_next(self, period: Period, connection: AsyncConnection) -> Period | None:
        subscriptions = usage_subscriptions.c
        found = select(subscriptions.length, subscriptions.anchor_at, subscriptions.ended_at)
        # locked, so that nobody ends it between this look and our commit
        subscription = (
            await connection.execute(
                found.where(subscriptions.id == period.subscription_id).with_for_update(read=True)
            )
        ).one()
        if subscription.ended_at is not None and subscription.ended_at <= period.ends_at:
            return None
        boundary = next_boundary(subscription.anchor_at, subscription.length, period.ends_at)
        opened = Period(period.subscription_id, started_at=period.ends_at, ends_at=boundary)
        await connection.execute(insert(usage_periods), asdict(opened))
        return opened

    async def _totals(self, period: Period, connection: AsyncConnection) -> Mapping[str, int]:
        spec = hookspecs.usage_period_rollover_totals
        totals: object = await self._deps.ask_first(spec, period=period, connection=connection)
        await ensure_unspoilt(connection, spec.__name__)
        if not isinstance(totals, Mapping):
            raise HookMisused(
                f"{spec.__name__} was answered with {type(totals).__name__}, which is no mapping"
            )
        for metric, amount in totals.items():
            if (why := _unfit(metric, amount)) is not None:
                raise HookMisused(f"{spec.__name__} was answered {why}")
        return dict(totals)

    async def _call_subscribers(self, period: ClosedPeriod, connection: AsyncConnection) -> None:
        spec = hookspecs.usage_period_rollover_closed
        jobs = self._outbox.within(connection)
        if await self._deps.ask_all(spec, period=period, connection=connection, jobs=jobs):
            await ensure_unspoilt(connection, spec.__name__)


def _unfit(metric: object, amount: object) -> str | None:
    """Why a total cannot be stored: PostgreSQL's error names no metric, SQLite stores anything."""
    if not isinstance(metric, str) or len(metric) > METRIC_LENGTH:
        return f"{metric!r} as a metric, which is no text of up to {METRIC_LENGTH} characters"
    if not isinstance(amount, int) or isinstance(amount, bool):
        kind = type(amount).__name__
        return f"{metric!r} with {kind}, which is no whole number; hint: int(…) what is summed"
    if not -(2**63) <= amount < 2**63:
        return f"{metric!r} with more than 64 bits hold"
    return None


def _rows(period: Period, totals: Mapping[str, int]) -> list[dict[str, Any]]:
    return [
        {
            "subscription_id": period.subscription_id,
            "started_at": period.started_at,
            "metric": metric,
            "amount": amount,
        }
        for metric, amount in totals.items()
    ]
