"""The board on a real store, with two queues of an installed plugin."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import redis

from board.asking import Host, installed
from corral.board import Board


@pytest.fixture(scope="session")
def plugin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory.mktemp("plugin"))


@pytest.fixture
def on(plugin_folder: Path, store_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Switch the board on, in production; returns the store's URL."""
    monkeypatch.syspath_prepend(str(plugin_folder))
    monkeypatch.setenv("CORRAL_ENV", "production")
    monkeypatch.setenv("CORRAL_BOARD_ENABLED", "true")
    monkeypatch.setenv("REDIS_URL", store_url)
    monkeypatch.delenv("BULL_BOARD_ENABLED", raising=False)
    return store_url


@pytest.fixture
def store(store_url: str) -> Iterator[redis.Redis]:
    """A blocking client of the store; replies are bytes."""
    with redis.Redis.from_url(store_url) as client:
        yield client


@pytest.fixture
def host() -> Host:
    return Host()


@pytest_asyncio.fixture
async def board(on: str, host: Host) -> AsyncIterator[Board]:
    """The board of a host application, on this test's store."""
    made = Board(authorize=host.who)
    yield made
    await made.close()
