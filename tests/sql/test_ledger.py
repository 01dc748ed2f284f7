"""The ledger: of all who claim one effect, one may make it, and only if it commits."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from corral.sql import Ledger
from corral.sql.tables import ledger

pytestmark = pytest.mark.asyncio


async def claims(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return (await connection.execute(select(func.count()).select_from(ledger))).scalar_one()


async def test_of_eight_claims_at_once_exactly_one_is_true(engine: AsyncEngine) -> None:
    ready = asyncio.Barrier(8)

    async def claim() -> bool:
        await ready.wait()
        async with engine.begin() as connection:
            return await Ledger.claim(connection, "billing", "evt_1")

    answers = await asyncio.gather(*(claim() for _ in range(8)))
    print(
        f"8 claims at once on {engine.dialect.name}: {answers.count(True)} true, {answers.count(False)} false"
    )
    assert sorted(answers) == [False] * 7 + [True]
    assert await claims(engine) == 1


async def test_a_claim_that_is_rolled_back_was_none(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        assert await Ledger.claim(connection, "billing", "evt_1")
        await connection.rollback()
        assert await Ledger.claim(connection, "billing", "evt_1")
        await connection.commit()
        assert not await Ledger.claim(connection, "billing", "evt_1")


async def test_whoever_waits_for_a_claim_gets_it_when_the_first_is_rolled_back(
    engine: AsyncEngine,
) -> None:
    async with engine.connect() as first:
        assert await Ledger.claim(first, "billing", "evt_1")

        async def second() -> bool:
            async with engine.begin() as connection:
                return await Ledger.claim(connection, "billing", "evt_1")

        waiting = asyncio.create_task(second())
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done, "it waits for the first to end"
        await first.rollback()
        assert await asyncio.wait_for(waiting, 10)


async def test_scopes_do_not_share_keys_and_nothing_is_cut_off(engine: AsyncEngine) -> None:
    long = "x" * 5000
    texts = [
        "a",
        "A",
        "ä",
        "a ",
        "",
        "a\0b",
        "\ud83d",
        "'; DROP TABLE corral_ledger; --",
        "%s :key $1 ?",
        long,
        long + "y",
    ]
    async with engine.begin() as connection:
        for scope in texts:
            for key in texts:
                assert await Ledger.claim(connection, scope, key)
        for key in texts:
            assert not await Ledger.claim(connection, key, key)
    assert await claims(engine) == len(texts) ** 2


async def test_the_hash_of_a_long_key_is_another_key(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        assert await Ledger.claim(connection, "billing", "x" * 200)
        stored = (await connection.execute(select(ledger.c.key))).scalar_one()
        assert len(stored) <= 128
        assert await Ledger.claim(connection, "billing", stored)


async def test_an_orm_session_claims_in_its_own_transaction(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        assert await Ledger.claim(session, "billing", "evt_1")
        await session.rollback()
    async with AsyncSession(engine) as session, session.begin():
        assert await Ledger.claim(session, "billing", "evt_1")
        assert await Ledger.is_claimed(session, "billing", "evt_1")
        assert not await Ledger.is_claimed(session, "billing", "evt_2")
    assert await claims(engine) == 1


async def test_purge_forgets_the_old_claims_of_one_scope(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        for scope in ("billing", "emails"):
            for key in ("old", "new"):
                await Ledger.claim(connection, scope, key)
        day_ms = 86_400_000
        await connection.execute(
            update(ledger)
            .where(ledger.c.key == "old")
            .values(claimed_ms=ledger.c.claimed_ms - day_ms)
        )
    async with engine.begin() as connection:
        assert await Ledger.purge(connection, "billing", timedelta(hours=23)) == 1
        assert await Ledger.purge(connection, "billing", timedelta(hours=23)) == 0
        assert await Ledger.claim(connection, "billing", "old")
        assert not await Ledger.claim(connection, "billing", "new")
        assert not await Ledger.claim(connection, "emails", "old")
