"""Jobs that wait for another attempt, on the board: a number, a tab, and why their attempts fail."""

from __future__ import annotations

import re
import time

import pytest
import redis

from board.asking import Browser
from corral.board import Board

pytestmark = [pytest.mark.asyncio, pytest.mark.corral_untidy("its jobs are written by hand")]

BASE, OWN, AT = "bull:letters:", "corral:bull:letters:", "/queues/letters"
HOUR_MS = 3_600_000


def delay(store: redis.Redis, job_id: str, due_ms: int, **fields: object) -> None:
    """Write a delayed job."""
    held = {"name": "letters", "data": "{}", "opts": '{"attempts": 3}', "timestamp": 1, **fields}
    store.hset(f"{BASE}{job_id}", mapping=held)  # type: ignore[arg-type]  # any value is written as text
    store.zadd(f"{BASE}delayed", {job_id: due_ms * 4096})


def record(store: redis.Redis, reason: str, *, series: int, ago_s: int, completed: int = 0) -> None:
    """Write what a worker records of failed attempts, the last one some seconds ago."""
    last = int(time.time() * 1000) - ago_s * 1000
    text = f"{series} {series} {last - 60_000} {last} {completed} ill"
    store.hset(f"{OWN}reasons:{last // HOUR_MS}", reason, text)


def forget(board: Board) -> None:
    board._contexts._shared.cache.clear()  # type: ignore[union-attr]  # it is open by now


def cell(text: str) -> str:
    """The overview's cell about failures of `letters`, as a reader sees it."""
    row = text.partition(f'<a class="queue" href="{AT}">')[2].partition("</tr>")[0]
    shown = re.search(r'<td class="clip[^>]*>(.*?)</td>', row, re.DOTALL)
    assert shown
    return " ".join(re.sub(r"<[^>]+>", " ", shown[1]).split())


async def test_retrying_jobs_have_a_number_and_a_tab_of_their_own(
    board: Board, store: redis.Redis
) -> None:
    browser = Browser(board, "admin")
    now = int(time.time() * 1000) + HOUR_MS
    delay(store, "ill", now, atm=1, failedReason="ValueError: <b>no</b>")
    delay(store, "fresh", now + 1)
    delay(store, "snoozed", now + 2, ats=4)
    assert f'<a class="c-failed" href="{AT}?state=retrying">1</a>' in (await browser.see("/")).text
    page = (await browser.see(f"{AT}?state=retrying")).text
    assert re.search(r'aria-current="page">retrying<b>1</b>', page)
    assert re.findall(r'name="id" value="(\w+)"', page) == ["ill"]
    assert "ValueError: &lt;b&gt;no&lt;/b&gt;" in page
    assert 'name="all"' not in page, "all that are delayed are more than these"
    assert 'name="all"' in (await browser.see(f"{AT}?state=delayed")).text
    found = (await browser.see(f"{AT}?state=retrying&q=snoozed")).text
    assert re.findall(r'name="id" value="(\w+)"', found) == ["snoozed"], "it looks at all delayed"
    for n in range(2_001):
        delay(store, f"j{n}", now - 10_000 + n, atm=1, failedReason="no")
    forget(board)
    assert ">≥ 2\u202f000</a>" in (await browser.see("/")).text
    page = (await browser.see(f"{AT}?state=retrying&start=50")).text
    assert "51 to 100 of ≥ 2\u202f000" in page
    assert f"{AT}?state=retrying&amp;start=100" in page


async def test_the_overview_says_why_how_many_and_since_when_until_it_is_over(
    board: Board, store: redis.Redis
) -> None:
    browser = Browser(board, "viewer")
    assert cell((await browser.see("/")).text) == ""
    store.hset(f"{BASE}metrics:completed", "count", 7)
    record(store, "an older trouble", series=99, ago_s=300, completed=7)
    record(store, "ConnectError: <i>…</i> is down", series=12, ago_s=2, completed=7)
    record(store, "once", series=1, ago_s=1, completed=7)
    forget(board)
    shown = cell((await browser.see("/")).text)
    assert re.fullmatch(
        r"ConnectError: &lt;i&gt;…&lt;/i&gt; is down 12 attempts failed, the first"
        r" 1 min \d+ s ago , the last \d\.\d s ago",
        shown,
    ), shown

    store.hset(f"{BASE}metrics:completed", "count", 9)
    delay(store, "ill", 10**13, atm=1, failedReason="no")
    forget(board)
    assert "recovered" not in cell((await browser.see("/")).text), "a job is still retrying"
    store.zrem(f"{BASE}delayed", "ill")
    store.lpush(f"{BASE}active", "ill")
    forget(board)
    assert "recovered" not in cell((await browser.see("/")).text), "it is at another attempt"
    store.lrem(f"{BASE}active", 1, "ill")
    forget(board)
    shown = cell((await browser.see("/")).text)
    assert "recovered : 2 completed since the last failed attempt" in shown
    assert "12 attempts had failed" in shown
    page = (await browser.see(AT)).text
    assert "Failed attempts of the last hour, by reason" in page
    assert re.findall(r'<li><b class="c-failed">(\d+)\u00d7', page) == ["99", "12", "1"]
    assert "<i>…</i>" not in page


@pytest.mark.parametrize("written", [b"", b"1 2", b"x y z a b c", b"9" * 99, b"\xff"])
async def test_an_entry_that_cannot_be_read_is_left_out(
    board: Board, store: redis.Redis, written: bytes
) -> None:
    browser = Browser(board, "viewer")
    record(store, "known", series=1, ago_s=1)
    hour = int(time.time() * 1000 - 1000) // HOUR_MS
    store.hset(f"{OWN}reasons:{hour}", b"odd \xff", written)
    assert "known" in cell((await browser.see("/")).text)
    assert "odd" not in (await browser.see(AT)).text
