"""The application's database, and the API inside this process; a store only where a test asks for
the API.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from corral import sql
from corral.testing import Kit
from examples.saas.api import create_app

STRIPE_SECRET = "whsec_of_the_tests_alone"
ADMIN_TOKEN = secrets.token_hex(32)


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The application's settings, and Corral's that name the application."""
    monkeypatch.setenv("CORRAL_APP", "examples.saas.plugin")
    monkeypatch.setenv("CORRAL_ENV", "development")  # where the board is on by default
    monkeypatch.setenv("SAAS_URL", "http://acme.test")
    monkeypatch.setenv("SAAS_ADMIN_TOKEN", ADMIN_TOKEN)
    monkeypatch.setenv("SAAS_STRIPE_SECRET", STRIPE_SECRET)


@pytest_asyncio.fixture
async def engine(_settings: None, corral_database_with_tables: str) -> AsyncIterator[AsyncEngine]:
    """The database with everybody's tables."""
    engine = sql.create_engine(corral_database_with_tables)
    yield engine
    await engine.dispose()


@pytest_asyncio.fixture
async def api(engine: AsyncEngine, corral_kit: Kit) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the API, which enqueues through the outbox; nobody relays that, and nobody works."""
    app = create_app()
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app), base_url="http://acme.test"
        ) as client,
    ):
        yield client
