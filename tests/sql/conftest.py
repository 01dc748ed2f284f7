"""Every test here runs on SQLite and on a real PostgreSQL, those of `corral.testing`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from corral import sql
from integration.conftest import acme, command, real_plugins

__all__ = ["acme", "command", "real_plugins"]


@pytest.fixture
def database_url(corral_database_url: str) -> str:
    """The URL of an empty database: once SQLite's, once PostgreSQL's."""
    return corral_database_url


@pytest_asyncio.fixture
async def bare_engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """An engine on a database without tables."""
    engine = sql.create_engine(database_url)
    yield engine
    await engine.dispose()


@pytest_asyncio.fixture
async def engine(bare_engine: AsyncEngine) -> AsyncEngine:
    """An engine on a database that has the core's tables."""
    async with bare_engine.begin() as connection:
        await connection.run_sync(sql.metadata.create_all)
    return bare_engine
