"""Queues in the store that nobody declares, on the overview: counted, escaped, and out of reach."""

from __future__ import annotations

import pytest
import redis

from board.asking import Browser
from corral.board import Board

HOSTILE = "<img src=x onerror=alert(1)>"

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.corral_untidy("queues of other clients, written by hand"),
]


def add(store: redis.Redis, queue: str, waiting: int = 0, failed: int = 0) -> None:
    store.hset(f"bull:{queue}:meta", "version", "bullmq:6")
    for number in range(waiting):
        store.lpush(f"bull:{queue}:wait", f"w{number}")
    for number in range(failed):
        store.zadd(f"bull:{queue}:failed", {f"f{number}": 1})


async def test_the_overview_has_no_part_about_them_where_there_are_none(
    board: Board, store: redis.Redis
) -> None:
    add(store, "acme-empty")
    page = (await Browser(board, "viewer").see("/")).text
    assert "Not installed" not in page
    assert "acme-empty" not in page


async def test_the_overview_counts_them(board: Board, store: redis.Redis) -> None:
    add(store, "acme-legacy", waiting=3, failed=2)
    add(store, HOSTILE, waiting=1)
    page = (await Browser(board, "viewer").see("/")).text
    part = page.partition('<h2 id="orphans">Not installed</h2>')[2]
    assert '<b>acme-legacy</b> <span class="badge">not installed</span>' in part
    assert '<td class="num" data-label="waiting"><span class="c-waiting">3</span></td>' in part
    assert '<td class="num" data-label="failed"><span class="c-failed">2</span></td>' in part
    assert "corral drain NAME" in part
    assert "<b>&lt;img src=x onerror=alert(1)&gt;</b>" in part
    assert HOSTILE not in page


async def test_no_page_and_no_button_reaches_them(board: Board, store: redis.Redis) -> None:
    """The board's roles are about the queues of the catalog; the command line can drain others."""
    add(store, "acme-legacy", waiting=3)
    browser = Browser(board, "admin")
    await browser.see("/")
    await browser.see("/queues/acme-legacy", 404)
    token = await browser.token()
    for action in ("pause", "drain"):
        assert (await browser.send(f"/queues/acme-legacy/{action}", token)).status == 404
    assert store.llen("bull:acme-legacy:wait") == 3
