"""The tables: what was asked for, and the receipts of what was removed. Made by `corral db create`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from sqlalchemy import BigInteger, Column, DateTime, Dialect, Index, MetaData, String, Table, Text, TypeDecorator

__all__ = ["account_deletion_receipts", "account_deletion_requests", "metadata"]


class Moment(TypeDecorator[datetime]):
    """An aware moment, in UTC on every database."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002  # SQLAlchemy's signature
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


ID: Final = String(128)

metadata = MetaData()

account_deletion_requests = Table(
    "account_deletion_requests",
    metadata,
    Column("id", ID, primary_key=True),
    Column("user_id", ID, nullable=False),
    Column("email", Text),  # until it is finished or cancelled
    Column("locale", String(35)),
    Column("requested_at", Moment, nullable=False),
    Column("due_at", Moment, nullable=False),
    Column("cancelled_at", Moment),
    Column("processed_at", Moment),  # erased, in this transaction
    Column("finished_at", Moment),  # no finished job holds the user's contents, and the mail is enqueued
)
_open = account_deletion_requests.c.cancelled_at.is_(None) & account_deletion_requests.c.finished_at.is_(None)
Index(
    "account_deletion_requests_open",
    account_deletion_requests.c.user_id,
    unique=True,
    postgresql_where=_open,
    sqlite_where=_open,
)

account_deletion_receipts = Table(
    "account_deletion_receipts",
    metadata,
    # no foreign key: an application may keep its requests elsewhere
    Column("request_id", ID, primary_key=True),
    Column("participant", String(255), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("amount", BigInteger, nullable=False),
)
"""What each participant removed: counts, and nothing that was counted."""
