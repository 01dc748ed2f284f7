"""The tables of requests, and of what was removed and kept; `corral db create` makes them."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Index, MetaData, String, Table, Text

from corral.sql import Moment

__all__ = [
    "account_deletion_kept",
    "account_deletion_receipts",
    "account_deletion_requests",
    "metadata",
]


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
    Column(
        "finished_at", Moment
    ),  # no finished job holds the user's contents, and the mail is enqueued
)
_open = account_deletion_requests.c.cancelled_at.is_(
    None
) & account_deletion_requests.c.finished_at.is_(None)
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

account_deletion_kept = Table(
    "account_deletion_kept",
    metadata,
    Column("request_id", ID, primary_key=True),
    Column("participant", String(255), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("amount", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("anonymized", Boolean, nullable=False),
)
"""What each participant kept, how much of it, and why."""
