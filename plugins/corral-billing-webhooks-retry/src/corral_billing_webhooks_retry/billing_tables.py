"""The table of objects that events are about. Made by `corral db create`."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, MetaData, String, Table

__all__ = ["billing_objects", "metadata"]

metadata: Final = MetaData()

billing_objects: Final = Table(
    "billing_objects",
    metadata,
    Column("object", String(128), primary_key=True),
    Column("newest_ms", BigInteger, nullable=False),
)
"""Subscriptions, invoices and so on, each by provider and id (as `job_id_for` joins them).

`newest_ms` is when the newest event of it that was handled has happened, in Unix milliseconds.
"""
