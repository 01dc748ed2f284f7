"""One queue is damaged, or this user may not read it: every list still shows the other queues."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from board.asking import Browser, Host
from corral.board import Board
from integration.servers import Server, server
from integration.test_store_users import LINES, QUEUE, stage
from integration.test_wrong_types import spoil

OTHER = "acme-threads"
TYPES = ("string", "hash")
"""Each key is of another type in one of these cases at least."""
KEYS = (
    *(
        "wait",
        "active",
        "paused",
        "prioritized",
        "delayed",
        "completed",
        "failed",
        "waiting-children",
        "marker",
    ),
    *(
        "repeat",
        "id",
        "pc",
        "limiter",
        "stalled-check",
        "meta",
        "events",
        "stalled",
        "metrics:completed",
    ),
    *("metrics:completed:data", "metrics:failed", "metrics:failed:data"),
)
DAMAGE = [(f"bull:{QUEUE}:{key}", kind) for key in KEYS for kind in TYPES]
DAMAGE += [
    (f"corral:bull:{QUEUE}:{key}", kind)
    for key in ("quarantine", "minutes", "removed")
    for kind in TYPES
]
DAMAGE += [
    (f"bull:{QUEUE}:{job}", kind) for job in ("first", "later", "broken", "done") for kind in TYPES
]
PAGES = ("/", "/search?q=user-4711", "/schedules", "/workers", "/catalog", "/metrics")


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with server("valkey") as made:
        yield made


@pytest.fixture
def store(running: Server) -> Server:
    running.admin.flushall()
    stage(running.admin)
    base = f"bull:{OTHER}:"
    fields: dict[Any, Any] = {
        "name": OTHER,
        "data": '{"text":"user-4711"}',
        "opts": "{}",
        "timestamp": 1000,
    }
    running.admin.hset(f"{base}other", mapping=fields)
    running.admin.lpush(f"{base}wait", "other")
    return running


@pytest.fixture
def corral(
    in_process: Callable[..., tuple[int, str, str]], acme: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """`corral(url, "queues")`: see `in_process`."""
    monkeypatch.setenv("CORRAL_BOARD_ENABLED", "true")
    monkeypatch.setenv("CORRAL_LOG_LEVEL", "ERROR")
    monkeypatch.delitem(sys.modules, "acme_letters", raising=False)
    monkeypatch.setattr(sys, "path", [str(acme), *sys.path])  # the board's pages load it, too
    return in_process


def row(out: str) -> dict[str, Any]:
    """Return the row of the other queue, from the output of a command."""
    (found,) = (each for each in json.loads(out) if each["queue"] == OTHER)
    return dict(found)


@pytest.mark.parametrize(("key", "kind"), DAMAGE)
def test_one_damaged_queue_hides_no_other(
    store: Server, corral: Callable[..., tuple[int, str, str]], key: str, kind: str
) -> None:
    spoil(store.admin, key, kind)
    look_at_the_other(store.url(), corral)


@pytest.mark.parametrize("user", ["operator", "board"])
def test_a_queue_that_this_user_may_not_read_hides_no_other(
    store: Server, corral: Callable[..., tuple[int, str, str]], user: str
) -> None:
    store.set_user(user, LINES[user].replace("~bull:*", f"~bull:{OTHER}:*"))
    look_at_the_other(store.url(user), corral)


def look_at_the_other(url: str, corral: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = corral(url, "queues", "--json")
    assert code in {0, 1, 4}, err
    assert row(out)["waiting"] == 1, err
    code, out, err = corral(url, "schedules", "--json")
    assert code in {0, 1, 4}, err
    assert isinstance(json.loads(out), list)
    code, out, err = corral(url, "scrub", "user-4711", "--yes", "--json")
    assert code in {0, 1, 4}, err
    assert row(out) == {"queue": OTHER, "scrubbed": 0}, err
    assert asyncio.run(pages(url)) == dict.fromkeys(PAGES, 200)


async def pages(url: str) -> dict[str, int]:
    board = Board(authorize=Host().who, url=url)
    found = {}
    try:
        browser = Browser(board, "admin")
        for path in PAGES:
            got = await browser.ask("GET", path)
            found[path] = (
                got.status
                if path in {"/catalog", "/schedules"} or OTHER in got.text
                else -got.status
            )
    finally:
        await board.close()
    return found
