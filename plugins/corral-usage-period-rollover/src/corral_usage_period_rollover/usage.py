"""For the application: begin a subscription, end it, count usage.

Each runs in the caller's own transaction.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import insert, update

from corral.sql import Connection, Ledger
from corral_usage_period_rollover.periods import Length, Period, next_boundary
from corral_usage_period_rollover.tables import usage_counters, usage_periods, usage_subscriptions

__all__ = ["KEY_SCOPE", "begin_subscription", "end_subscription", "record_usage"]

KEY_SCOPE: Final = "usage-period-rollover"
"""The scope of the ledger's rows for the keys of `record_usage`."""


async def begin_subscription(
    connection: Connection,
    subscription_id: str,
    length: Length,
    *,
    started_at: datetime | None = None,
    anchor_at: datetime | None = None,
) -> Period:
    """Store a subscription and open its first period.

    Args:
        connection: The caller's connection or session, in its transaction.
        subscription_id: At most 128 characters, unique for ever.
        length: How long a period is.
        started_at: When the first period starts (aware); now by default.
        anchor_at: A boundary (aware); `started_at` by default. With another one the first period is
            a short one: started on the 10th and anchored on the 1st, it ends on the 1st.

    Returns:
        The first period.

    Raises:
        IntegrityError: There is a subscription of this id.
    """
    started_at = started_at or datetime.now(UTC)
    anchor_at = anchor_at or started_at
    period = Period(subscription_id, started_at, next_boundary(anchor_at, length, started_at))
    await connection.execute(
        insert(usage_subscriptions).values(id=subscription_id, length=length, anchor_at=anchor_at)
    )
    await connection.execute(
        insert(usage_periods).values(
            subscription_id=subscription_id, started_at=period.started_at, ends_at=period.ends_at
        )
    )
    return period


async def end_subscription(
    connection: Connection, subscription_id: str, *, ended_at: datetime | None = None
) -> None:
    """Open no further period: the open one is closed when it is over, and is the last.

    Args:
        connection: The caller's connection or session, in its transaction.
        subscription_id: Whose.
        ended_at: No period starts at this moment (aware) or after it; now by default.
    """
    await connection.execute(
        update(usage_subscriptions)
        .where(usage_subscriptions.c.id == subscription_id)
        .values(ended_at=ended_at or datetime.now(UTC))
    )


async def record_usage(
    connection: Connection,
    subscription_id: str,
    metric: str,
    amount: int = 1,
    *,
    recorded_at: datetime | None = None,
    key: str | None = None,
) -> bool:
    """Count usage, once for each key.

    The first call with a key counts. Later calls with the same subscription, metric and key count
    nothing, whatever their amount is: a correction is a negative amount with a key of its own. Of
    two transactions that use one key at once, the second waits for the first one's end.

    Args:
        connection: The caller's connection or session, in its transaction.
        subscription_id: Whose.
        metric: Of what, at most 64 characters.
        amount: How much, in whole units; a negative one takes back.
        recorded_at: When it was used (aware); now by default.
        key: Names what is counted, any text: the id of the request that caused it. It is remembered
            for `CORRAL_USAGE_PERIOD_ROLLOVER_KEY_DAYS`. None: every call counts.

    Returns:
        Whether it was counted: false where the key was used before.
    """
    if key is not None:
        # as JSON, no two triples have the same text
        name = json.dumps([subscription_id, metric, key])
        if not await Ledger.claim(connection, KEY_SCOPE, name):
            return False
    await connection.execute(
        insert(usage_counters).values(
            subscription_id=subscription_id,
            metric=metric,
            amount=amount,
            recorded_at=recorded_at or datetime.now(UTC),
        )
    )
    return True
