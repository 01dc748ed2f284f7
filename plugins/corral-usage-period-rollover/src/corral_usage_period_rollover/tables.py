"""The tables: subscriptions, their periods, what is counted, and the totals.

Made by `corral db create`.

Two unique indexes carry the promise that each period is closed once: a subscription has one period
of each beginning, and one that is open.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
)

from corral.sql import Moment
from corral_usage_period_rollover.periods import LENGTHS

__all__ = [
    "METRIC_LENGTH",
    "metadata",
    "usage_counters",
    "usage_periods",
    "usage_subscriptions",
    "usage_totals",
]


SUBSCRIPTION_ID: Final = String(128)
METRIC_LENGTH: Final = 64
METRIC: Final = String(METRIC_LENGTH)

metadata = MetaData()

usage_subscriptions = Table(
    "usage_subscriptions",
    metadata,
    Column("id", SUBSCRIPTION_ID, primary_key=True),
    Column("length", String(8), nullable=False),
    Column("anchor_at", Moment, nullable=False),
    Column("ended_at", Moment),  # no period begins at or after it
    CheckConstraint(
        f"length IN ({', '.join(repr(length) for length in LENGTHS)})",
        name="usage_subscriptions_length",
    ),
)

usage_periods = Table(
    "usage_periods",
    metadata,
    Column(
        "subscription_id", SUBSCRIPTION_ID, ForeignKey(usage_subscriptions.c.id), primary_key=True
    ),
    Column("started_at", Moment, primary_key=True),
    Column("ends_at", Moment, nullable=False),
    Column("closed_at", Moment),
    Column("tick", Moment),
    CheckConstraint("ends_at > started_at", name="usage_periods_length"),
)
_open = usage_periods.c.closed_at.is_(None)
Index(
    "usage_periods_open",
    usage_periods.c.subscription_id,
    unique=True,
    postgresql_where=_open,
    sqlite_where=_open,
)
Index("usage_periods_due", usage_periods.c.ends_at, postgresql_where=_open, sqlite_where=_open)

usage_totals = Table(
    "usage_totals",
    metadata,
    Column("subscription_id", SUBSCRIPTION_ID, primary_key=True),
    Column("started_at", Moment, primary_key=True),
    Column("metric", METRIC, primary_key=True),
    Column("amount", BigInteger, nullable=False),
    ForeignKeyConstraint(
        ["subscription_id", "started_at"],
        [usage_periods.c.subscription_id, usage_periods.c.started_at],
    ),
)

usage_counters = Table(
    "usage_counters",
    metadata,
    # SQLite counts by itself only in a column that is exactly INTEGER
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    # no foreign key: it would lock the subscription's row once per count
    Column("subscription_id", SUBSCRIPTION_ID, nullable=False),
    Column("metric", METRIC, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("recorded_at", Moment, nullable=False),
    Column("counted_in", Moment),  # the beginning of the period that it was counted in
    Index("usage_counters_counted", "subscription_id", "counted_in", "recorded_at"),
)
