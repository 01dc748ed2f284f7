"""The tables: endpoints, and those of them that fail. Made by `corral db create`."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Boolean, Column, Dialect, MetaData, String, Table, TypeDecorator

from corral.sql import Moment

__all__ = ["metadata", "webhook_endpoints", "webhook_failing_endpoints"]


class _Unshown(str):
    """A text with a hidden repr: SQLAlchemy's errors and log repeat a statement's parameters."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


class Confidential(TypeDecorator[str]):
    """A column whose values are kept out of errors and logs."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002  # SQLAlchemy's signature
        """What is written."""
        return None if value is None else _Unshown(value)


SECRET: Final = Confidential(100)
"""`whsec_` and 64 bytes as base64, the longest there is, are 94 characters."""

metadata = MetaData()

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("url", Confidential(2048), nullable=False),  # receivers put tokens of their own into it
    Column("secret", SECRET, nullable=False),
    Column("previous_secret", SECRET),  # signs as well, while the owner moves on to the new one
    Column("enabled", Boolean, nullable=False),
)

webhook_failing_endpoints = Table(
    "webhook_failing_endpoints",
    metadata,
    # no foreign key: the application may keep its endpoints elsewhere
    Column("endpoint_id", String(128), primary_key=True),
    Column("since", Moment, nullable=False),  # of the first failure after the last success
    Column("announced", Boolean, nullable=False),  # by `webhooks_outgoing_endpoint_failing`
)
