"""The page of schedules shows what an operator has removed as removed, not as new."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from board.asking import Browser, Host
from board.test_catalog_page import distribution
from corral.board import Board
from corral.schedule import Every
from corral.store.connection import Link
from corral.store.queue_store import QueueStore
from corral.store.schedules import Schedules, removal

SOURCE = """
from datetime import timedelta
from corral import Every, Payload, Queue, hookimpl


class Nothing(Payload):
    pass


@hookimpl
def corral_queues():
    return [Queue("hourly", Nothing, schedule=Every(timedelta(hours=1)))]
"""


@pytest_asyncio.fixture
async def declaring(
    on: str, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Board]:
    """A board whose catalog has a queue with a schedule."""
    distribution(tmp_path, "acme-hourly", "acme_hourly", SOURCE, "hourly")
    monkeypatch.syspath_prepend(str(tmp_path))
    board = Board(authorize=host.who)
    yield board
    await board.close()
    sys.modules.pop("acme_hourly", None)


@pytest.mark.asyncio
async def test_what_an_operator_has_removed(declaring: Board, on: str) -> None:
    browser = Browser(declaring, "viewer")
    assert '<span class="badge">new</span>' in (await browser.see("/schedules")).text
    link = Link(on)
    await Schedules(QueueStore(link, "bull", "hourly")).remove(
        "hourly", mark=removal(Every(timedelta(hours=1)))
    )
    await link.close()
    page = (await browser.see("/schedules")).text
    assert '<span class="badge loud">removed</span>' in page
    assert "removed by an operator; to add it again: corral schedules restore hourly" in page
    assert "the first worker" not in page
