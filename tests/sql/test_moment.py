"""`Moment`: a database returns the moment that was written, in UTC, and compares it as a moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, insert, select
from sqlalchemy.exc import StatementError

from corral.sql import Moment

pytestmark = pytest.mark.asyncio

metadata = MetaData()
visits = Table("visits", metadata, Column("id", Integer, primary_key=True), Column("at", Moment))

NOON = datetime(2027, 1, 1, 12, tzinfo=UTC)


async def test_a_moment_is_the_same_on_every_database_whatever_zone_it_was_written_in(
    bare_engine,
) -> None:
    tokyo = NOON.astimezone(timezone(timedelta(hours=9)))
    async with bare_engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
        await connection.execute(insert(visits), [{"id": 1, "at": tokyo}, {"id": 2, "at": None}])
        read = list(await connection.scalars(select(visits.c.at).order_by(visits.c.id)))
        earlier = await connection.scalars(
            select(visits.c.id).where(visits.c.at < NOON + timedelta(seconds=1))
        )
        assert list(earlier) == [1]
    assert read == [NOON, None]
    assert read[0].tzinfo is UTC


async def test_a_moment_without_a_time_zone_is_refused(bare_engine) -> None:
    async with bare_engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
        with pytest.raises(
            StatementError, match="a moment without a time zone: 2027-01-01T12:00:00"
        ):
            await connection.execute(insert(visits), {"id": 1, "at": NOON.replace(tzinfo=None)})
