"""The quarantine on the board: counted, listed with reasons, returned and discarded."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
import redis

from board.asking import Browser
from corral.board import Board

pytestmark = pytest.mark.asyncio

ASIDE, AT = "corral:bull:letters:quarantine", "/queues/letters/quarantine"
ODD, SHOWN = b"a\xff<b>&", "a\\xff<b>&"


@pytest.fixture
def aside(store: redis.Redis) -> redis.Redis:
    """Three entries: an id that is not UTF-8, an id that is a queue's key, and a list for a job."""
    for at, job in enumerate((ODD, b"completed", b"lost")):
        kept = f"{ASIDE}:".encode() + job
        record = json.dumps(
            {"at": 1000 + at, "from": "wait", "reason": "why & <i>how</i>", "key": "KEY"}
        ).encode()
        store.hset(ASIDE, job, record.replace(b"KEY", kept))
        store.hset(kept, mapping={"name": "letters", "data": "{}", "opts": "{}", "timestamp": 1000})
    store.delete(f"{ASIDE}:lost")
    store.rpush(f"{ASIDE}:lost", "junk")
    return store


async def test_it_is_counted_where_there_is_any(board: Board, store: redis.Redis) -> None:
    browser = Browser(board, "viewer")
    for page in ("/", "/queues/letters"):
        assert "in quarantine" not in (await browser.see(page)).text
    store.hset(ASIDE, mapping={f"j{number}": "{}" for number in range(1234)})
    for page in ("/", "/queues/letters"):
        board._contexts._shared.cache.clear()  # type: ignore[union-attr]  # it is open by now
        text = (await browser.see(page)).text
        assert f'href="{AT}">1\u202f234 in quarantine</a>' in text
    first = await browser.see(AT)
    assert "1 to 50 of 1\u202f234" in first.text
    assert f"{AT}?start=50" in first.text
    assert (await browser.see(f"{AT}?start=10001", 400)).status == 400


async def test_each_is_shown_with_its_reason_and_whether_it_can_return(
    board: Board, aside: redis.Redis
) -> None:
    browser = Browser(board, "viewer")
    text = (await browser.see(AT)).text
    assert "a\\xff&lt;b&gt;&amp;" in text
    assert "why &amp; &lt;i&gt;how&lt;/i&gt;" in text
    assert '<span class="mono">returned-completed</span>' in text
    assert f"{ASIDE}:lost is a list, not a hash" in text
    for hidden in ("Discard", 'name="id"', ">Return<"):
        assert hidden not in text, "a viewer looks"
    operator = (await Browser(board, "operator").see(AT)).text
    assert (">Return<" in operator, ">Discard<" in operator) == (True, False)
    found = json.loads((await browser.ask("GET", AT, headers={"accept": "application/json"})).body)
    assert [(each["id"], each["returns_as"], bool(each["obstacle"])) for each in found["jobs"]] == [
        ("lost", "lost", True),
        ("completed", "returned-completed", False),
        (SHOWN, SHOWN, False),
    ]


@pytest.mark.corral_untidy("an id that is no UTF-8 waits")
async def test_what_is_ticked_returns_once_that_was_confirmed(
    board: Board, aside: redis.Redis
) -> None:
    browser = Browser(board, "operator")
    token = await browser.token()
    asked = await browser.send(f"{AT}/return", token, id=[SHOWN, "lost"])
    assert "Let 2 jobs in quarantine of letters wait again?" in asked.text
    assert aside.hlen(ASIDE) == 3
    done = await browser.send(f"{AT}/return", token, id=[SHOWN, "lost"], confirmed="1")
    assert (done.status, done.header("location")) == (303, f"{AT}?notice=returned&n=1")
    assert aside.lrange("bull:letters:wait", 0, -1) == [ODD]
    done = await browser.send(f"{AT}/return", token, id="lost", confirmed="1")
    assert done.header("location") == f"{AT}?notice=stayed&n=1"
    done = await browser.send(f"{AT}/return", token, id="completed", confirmed="1")
    assert done.header("location") == f"{AT}?notice=renamed&id=returned-completed"
    assert (
        "under the new id returned-completed"
        in (await browser.see(done.header("location") or "")).text
    )
    assert (await browser.send(f"{AT}/return", token, confirmed="1")).status == 400
    (entry,) = [
        fields
        for _, fields in aside.xrange("corral:bull:audit")
        if fields.get(b"job") == b"completed"
    ]
    assert (entry[b"who"], entry[b"what"]) == (b"operator", b"return_quarantined")


async def test_all_are_discarded_once_that_was_confirmed(board: Board, aside: redis.Redis) -> None:
    browser = Browser(board, "admin")
    token = await browser.token()
    asked = await browser.send(f"{AT}/discard", token, all="1")
    assert "Remove all 3 in quarantine of letters" in asked.text
    assert aside.hlen(ASIDE) == 3
    done = await browser.send(f"{AT}/discard", token, all="1", confirmed="1")
    assert done.header("location") == f"{AT}?notice=discarded&n=3"
    assert aside.keys(f"{ASIDE}*") == []
    assert "Discarded 3 jobs." in (await browser.see(done.header("location") or "")).text


async def test_a_quarantine_in_the_wrong_type_is_named(board: Board, store: redis.Redis) -> None:
    store.set(ASIDE, "junk")
    browser = Browser(board, "admin")
    assert (
        f"The key {ASIDE} is a string, not a hash." in (await browser.see("/queues/letters")).text
    )
    assert f"the key {ASIDE} is a string, not a hash" in (await browser.see(AT, 503)).text
    done = await browser.send(f"{AT}/discard", await browser.token(), all="1", confirmed="1")
    assert done.status == 503


async def test_the_page_of_another_queue_is_another(board: Board, aside: redis.Redis) -> None:
    browser = Browser(board, "admin")
    assert "The quarantine is empty." in (await browser.see("/queues/parcels/quarantine")).text
    assert (await browser.see(f"/queues/{quote('no such')}/quarantine", 404)).status == 404


async def test_what_a_worker_says_an_operator_must_know_is_on_the_page_of_workers(
    board: Board, store: redis.Redis
) -> None:
    now_ms = int(store.time()[0]) * 1000
    troubles = json.dumps(["the key bull:letters:meta is a <list>, not a hash"])
    store.hset("corral:bull:alive", "w-1-a", f"{now_ms} 0 0 {now_ms} 7 0.1 {troubles}")
    assert (
        "the key bull:letters:meta is a &lt;list&gt;, not a hash"
        in (await Browser(board, "viewer").see("/workers")).text
    )
