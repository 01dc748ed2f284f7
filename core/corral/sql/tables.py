"""The core's own tables, and the clock that their times come from: the database's."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction

__all__ = ["Moment", "ledger", "metadata", "now_ms", "outbox"]


class Moment(TypeDecorator[datetime]):
    """A column of aware datetimes, in UTC on every database.

    SQLite has no time zones: it would compare texts of several zones, and returns naive datetimes.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """The value as it is written: in UTC.

        Raises:
            ValueError: The datetime has no time zone.
        """
        if value is None:
            return None
        if value.utcoffset() is None:
            raise ValueError(f"a moment without a time zone: {value.isoformat()}")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002  # SQLAlchemy's signature
        """The value as it is read: aware, in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata: Final = MetaData()
"""The tables of the ledger and the outbox, for migrations."""

ledger: Final = Table(
    "corral_ledger",
    metadata,
    Column("scope", String(128), primary_key=True),
    Column("key", String(128), primary_key=True),
    Column("claimed_ms", BigInteger, nullable=False),
)
"""Effects that have happened, one row each."""
Index("corral_ledger_age", ledger.c.scope, ledger.c.claimed_ms)

outbox: Final = Table(
    "corral_outbox",
    metadata,
    # On SQLite, only an INTEGER counts up by itself.
    Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True),
    Column("prefix", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("job_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("data", Text, nullable=False),
    Column("opts", Text, nullable=False),
    Column("delay_ms", BigInteger, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("lifo", Boolean, nullable=False),
    Column("nonce", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("refused", Boolean, nullable=False),
    Column("error", Text),
    sqlite_autoincrement=True,
)
"""Jobs to be written to the store: the fields of `NewJob`, and what failed so far."""
IF_FAILED: Final = "corralIfFailed"
"""What a row's `opts` have beside the job's own options, where the call had `if_failed`."""
Index(
    "corral_outbox_due",
    outbox.c.prefix,
    outbox.c.id,
    postgresql_where=~outbox.c.refused,
    sqlite_where=~outbox.c.refused,
)


class now_ms(GenericFunction[int]):  # noqa: N801  # a SQL function is written in lower case
    """Unix milliseconds by the database's clock: one clock for all machines that share it."""

    type = BigInteger()
    inherit_cache = True


@compiles(now_ms, "sqlite")
def _in_sqlite(_element: now_ms, _compiler: Any, **_: Any) -> str:
    return "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"


@compiles(now_ms, "postgresql")
def _in_postgresql(_element: now_ms, _compiler: Any, **_: Any) -> str:
    return "CAST(FLOOR(EXTRACT(EPOCH FROM clock_timestamp()) * 1000) AS BIGINT)"
