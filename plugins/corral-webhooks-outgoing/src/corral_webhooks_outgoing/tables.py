"""The table of endpoints. Made by `corral db create`."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Boolean, Column, MetaData, String, Table

__all__ = ["metadata", "webhook_endpoints"]

SECRET: Final = String(100)
"""`whsec_` and 64 bytes as base64, the longest there is, are 94 characters."""

metadata = MetaData()

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("url", String(2048), nullable=False),
    Column("secret", SECRET, nullable=False),
    Column("previous_secret", SECRET),  # signs as well, while the owner moves on to the new one
    Column("enabled", Boolean, nullable=False),
)
