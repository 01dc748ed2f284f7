"""The application's own tables. `corral db create` makes them, beside those of the plugins."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table, Text

from corral.sql import Moment

__all__ = ["invites", "invoices", "metadata", "notes", "payments", "users"]

metadata = MetaData()

USER_ID = String(32)

users = Table(
    "users",
    metadata,
    Column("id", USER_ID, primary_key=True),
    Column("email", String(254), nullable=False, unique=True),
    Column("name", String(100), nullable=False),
    Column("plan", String(16), nullable=False),
    Column("token_hash", String(64), nullable=False, unique=True),
    Column("joined_at", Moment, nullable=False),
    Column("board_role", String(16)),  # viewer, operator or admin; nobody sees the board by default
)

notes = Table(
    "notes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("user_id", USER_ID, ForeignKey(users.c.id), nullable=False),
    Column("text", Text, nullable=False),
    Column("written_at", Moment, nullable=False),
)

invites = Table(
    "invites",
    metadata,
    Column("code", String(32), primary_key=True),
    Column("redeemed_by", USER_ID),
)

# what was paid and billed outlives the account: the law wants it kept, without the name
payments = Table(
    "payments",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("user_id", USER_ID, nullable=False),
    Column("provider_event", String(255), nullable=False),
    Column("payer_email", String(254)),
    Column("cents", Integer, nullable=False),
    Column("paid_at", Moment, nullable=False),
)

invoices = Table(
    "invoices",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("user_id", USER_ID, nullable=False),
    Column("period_start", Moment, nullable=False),
    Column("requests", Integer, nullable=False),
)
