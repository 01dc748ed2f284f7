"""The proxy loses what it is set to lose, and nothing else."""

from __future__ import annotations

import asyncio
import time

import pytest
import redis.asyncio
from redis.exceptions import ConnectionError  # noqa: A004  # redis-py's own, a different class from the built-in one

from chaos.scene import Scene

pytestmark = pytest.mark.asyncio


def client(url: str) -> redis.asyncio.Redis:
    return redis.asyncio.Redis.from_url(url, retry=None, single_connection_client=True)


async def test_a_reply_that_is_cut_was_earned(scene: Scene) -> None:
    async with scene.proxy() as proxy, client(proxy.url) as cut, client(proxy.url) as other:
        assert await other.ping()
        proxy.cut = lambda request: b"INCR" in request
        with pytest.raises(ConnectionError):
            await cut.incr("counter")
        assert await other.get("counter") == b"1"
        assert proxy.cuts == 1


async def test_what_is_held_arrives_when_it_is_let_go(scene: Scene) -> None:
    async with scene.proxy() as proxy, client(proxy.url) as old, client(proxy.url) as new:
        assert await old.ping()
        proxy.hold()
        waiting = [asyncio.create_task(each.incr("counter")) for each in (old, new)]
        done, _ = await asyncio.wait(waiting, timeout=0.2)
        assert not done
        proxy.let_go()
        assert sorted(await asyncio.gather(*waiting)) == [1, 2]


async def test_swallowed_connections_stay_open_and_new_ones_work(scene: Scene) -> None:
    async with scene.proxy() as proxy, client(proxy.url) as old:
        assert await old.ping()
        proxy.swallow()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(old.incr("counter"), 0.1)
        async with client(proxy.url) as new:
            assert await new.get("counter") is None


async def test_requests_are_held_up(scene: Scene) -> None:
    async with scene.proxy() as proxy, client(proxy.url) as slow:
        assert await slow.ping()
        proxy.delay_seconds = 0.05
        began = time.monotonic()
        assert await slow.ping()
        assert time.monotonic() - began >= proxy.delay_seconds


async def test_replies_that_are_held_back_come_late_and_others_do_not(scene: Scene) -> None:
    async with scene.proxy() as proxy, client(proxy.url) as slow, client(proxy.url) as other:
        proxy.late = lambda reply: 0.05 if b"later" in reply else 0.0
        began = time.monotonic()
        assert await slow.echo("later") == b"later"
        assert time.monotonic() - began >= 0.05
        assert (proxy.held, proxy.holds_back) == (1, 0)
        proxy.late = lambda reply: 600.0 if b"later" in reply else 0.0
        waiting = asyncio.create_task(slow.echo("later"))
        await scene.until(lambda: proxy.holds_back, "a reply is held back")
        assert await other.echo("now") == b"now"
        assert not waiting.done()
        proxy.let_arrive()
        assert await waiting == b"later"
