"""Requests without bounds are refused quickly (S-11, S-16); measured in CPU seconds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
import redis

from board.asking import HERE, PAGE, Browser, decoded
from corral import Payload, Queue
from corral.board import Board
from corral.errors import PayloadRefused
from machine import slowness

SECONDS = 0.05
LONG = "x" * 100_000
ASKED = {
    "a page at 1e9": ("/queues/letters?start=1e9", 400),
    "a page at 10^9": ("/queues/letters?start=1000000000", 400),
    "a page at 10^100000": (f"/queues/letters?start={'9' * 100_000}", 400),
    "a page of 10^9": ("/queues/letters?limit=1000000000&count=1e9", 200),
    "another state": (f"/queues/letters?state={LONG}", 400),
    "a search of 100 kB": (f"/queues/letters?q={LONG}", 400),
    "everywhere": (f"/search?q={LONG}", 400),
    "a field of 100 kB": (f"/search?q={LONG[:50_000]}%3D{LONG[:50_000]}", 400),
    "a path of 50,000 fields": (f"/search?q={'a.' * 50_000}a%3D1", 400),
    "10,000 fields": (
        "/queues/letters?" + "&".join(f"f{number}=1" for number in range(10_000)),
        200,
    ),
    "10,000 times one": ("/queues/letters?" + "&".join(["state=failed"] * 10_000), 200),
    "a queue of 100,000 characters": (f"/queues/{LONG}", 404),
    "a job of 100,000 characters": (f"/queues/letters/jobs/{LONG}", 404),
    "100,000 escapes": (f"/queues/{'%41' * 100_000}", 404),
    "100,000 segments": ("/" * 100_000, 404),
    "a log of 10^9": ("/queues/letters/jobs/one/logs?start=9999999999", 400),
    "an audit before": (f"/audit?before={'9' * 100_000}-0", 400),
    **{
        f"a search behind {after[:20]!r}": (
            f"/queues/letters?q=a&state={state}&after={quote(after)}",
            400,
        )
        for state, after in (
            ("failed", "failed:1_0:one"),
            ("failed", "failed:nan:one"),
            ("failed", "failed:inf:one"),
            ("failed", "failed:\u0661:one"),
            ("failed", "failed: 1:one"),
            ("failed", "failed:0x10:one"),
            ("failed", "wait:1:one"),
            ("failed", "no such:1:one"),
            ("failed", ":"),
            ("failed", "meta::"),
            ("waiting", "wait:-1:one"),
            ("waiting", "wait:1e3:one"),
            ("waiting", f"wait:{'9' * 400}:one"),
        )
    },
}


@pytest.mark.timing
@pytest.mark.asyncio
@pytest.mark.parametrize(("target", "status"), ASKED.values(), ids=ASKED)
async def test_a_request_without_bounds_costs_no_more_than_another(
    board: Board, store: redis.Redis, target: str, status: int
) -> None:
    store.hset("bull:letters:one", mapping={"data": "{}", "opts": "{}"})
    store.zadd("bull:letters:failed", {"one": 1})
    browser = Browser(board, "admin")
    await browser.see("/queues/letters")
    await browser.ask("GET", "/none", headers=PAGE)
    decoded(target.partition("?")[0])
    began = time.process_time()
    got = await browser.ask("GET", target, headers=PAGE)
    seconds = time.process_time() - began
    assert got.status == status, got.text[:500]
    assert seconds < SECONDS * slowness()
    assert len(got.body) < 2 * len(target) + 50_000, "what was asked stands in the page once"


DEPTH = 100_000
BODIES: dict[str, Callable[[], bytes]] = {
    "lists in lists": lambda: b'{"a":' + b"[" * DEPTH,
    "objects in objects": lambda: b'{"a":' * DEPTH,
    "closed ones": lambda: b'{"a":' + b"[" * DEPTH + b"]" * DEPTH + b"}",
    "100,000 names": lambda: json.dumps({f"n{number}": 1 for number in range(100_000)}).encode(),
    "300,000 values": lambda: b'{"id":[' + b"1," * 299_999 + b"1]}",
    "a number of a million digits": lambda: b'{"a":' + b"9" * 1_000_000 + b"}",
    "half a pair": lambda: b'{"a":"\\ud800"}',
    "no object": lambda: b"[1]",
    "no UTF-8": lambda: b'{"a":"\xff"}',
}


@pytest.mark.timing
@pytest.mark.asyncio
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_a_costly_body_is_refused(board: Board, body: Callable[[], bytes]) -> None:
    sent, browser = body(), Browser(board, "admin")
    headers = {**HERE, "content-type": "application/json", "accept": "application/json"}
    await browser.ask("POST", "/queues/letters/pause", headers=headers, body=b"")  # starts it
    began = time.process_time()
    got = await browser.ask("POST", "/queues/letters/pause", headers=headers, body=sent)
    assert time.process_time() - began < SECONDS * slowness()
    assert got.status == 400, got.text


class Open(Payload):
    anything: Any = None


@pytest.mark.timing
@pytest.mark.parametrize(
    "text", [b"[" * DEPTH, b'{"a":' * DEPTH, b"[" * 500 + b"]" * 500, b"9" * 900_000], ids=range(4)
)
def test_a_costly_payload_is_refused(text: bytes) -> None:
    queue = Queue("open", Open)
    began = time.process_time()
    with pytest.raises(PayloadRefused):
        queue.parsed(b'{"anything":' + text + b"}")
    assert time.process_time() - began < SECONDS * slowness()


@pytest.mark.timing
def test_a_payload_of_many_names_is_read_in_linear_time() -> None:
    raw = json.dumps({"anything": {f"n{number}": 1 for number in range(60_000)}}).encode()
    queue = Queue("open", Open)
    began = time.process_time()
    assert len(queue.parsed(raw)[0].anything) == 60_000
    assert time.process_time() - began < SECONDS * slowness()
