"""One connection to the store, asyncio's and a thread's: what a slow, a silent or a broken link
makes of a call.
"""

from __future__ import annotations

import asyncio
import math
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import trustme

from chaos.proxy import Proxy
from chaos.scene import Scene
from corral.errors import ConfigurationError, StoreUnavailable
from corral.store import connection
from corral.store.connection import Link, ThreadLink
from corral.store.replies import NoScriptError, ResponseError

pytestmark = pytest.mark.asyncio

SECONDS = 0.4
"""How long the store may be silent in these tests."""
LARGE = b"x" * 400_000

Call = Callable[..., Awaitable[Any]]


@pytest_asyncio.fixture
async def proxy(scene: Scene) -> AsyncIterator[Proxy]:
    async with scene.proxy() as proxy:
        yield proxy


@asynccontextmanager
async def opened(kind: str, url: str) -> AsyncIterator[Call]:
    """The `call` of a link: of one on the loop, pipelined or not, or of one on a thread, which is
    awaited.
    """
    if kind != "thread":
        link = Link(url, read_seconds=SECONDS, pipelined=kind == "pipelined")
        try:
            yield link.call
        finally:
            await link.close()
        return
    on_thread = ThreadLink(url, SECONDS)
    try:
        yield lambda *command: asyncio.to_thread(on_thread.call, *command)
    finally:
        on_thread.close()


@pytest.fixture(params=["loop", "pipelined", "thread"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


async def made(scene: Scene) -> int:
    """How many connections the store has accepted so far."""
    return (await scene.store.client.info("stats"))["total_connections_received"]


def direct(scene: Scene) -> str:
    """The store's own address: a process between would hold a connection open after the store has
    closed it.
    """
    return f"unix://{scene.store.socket}"


async def nobody_else(scene: Scene) -> None:
    """Wait until the store has no connection but the test's own."""

    async def alone() -> bool:
        return len(await scene.store.client.client_list()) == 1

    await scene.until(alone, "the connection is closed")


async def half_read(scene: Scene, proxy: Proxy, call: Call) -> asyncio.Future[Any]:
    """A call of whose reply a part has come, on a link that slows down for it."""
    await scene.store.client.set("large", LARGE)
    proxy.bytes_per_second = len(LARGE)
    asked = asyncio.ensure_future(call("GET", "large"))
    await scene.until(lambda: proxy.passed > len(LARGE) // 4, "a part of the reply has come")
    return asked


async def failing(call: Awaitable[Any]) -> StoreUnavailable:
    with pytest.raises(StoreUnavailable) as failed:
        await call
    return failed.value


async def test_a_reply_takes_as_long_as_it_flows(scene: Scene, proxy: Proxy, kind: str) -> None:
    await scene.store.client.set("large", LARGE)
    proxy.bytes_per_second = len(LARGE) * 2 // 3
    async with opened(kind, proxy.url) as call:
        assert await call("GET", "large") == LARGE
    assert proxy.passed < 2 * len(LARGE), "it was fetched once"


async def test_a_request_takes_as_long_as_its_bytes_need(
    scene: Scene, proxy: Proxy, kind: str
) -> None:
    proxy.bytes_per_second = len(LARGE) * 2 // 3
    async with opened(kind, proxy.url) as call:
        assert await call("SET", "large", LARGE) == b"OK"
    assert await scene.store.client.strlen("large") == len(LARGE)


async def test_silence_before_a_reply_ends_the_call(scene: Scene, proxy: Proxy, kind: str) -> None:
    async with opened(kind, proxy.url) as call:
        await call("PING")
        proxy.swallow()
        error = await failing(call("INCR", "counter"))
        assert (error.outcome, "no answer" in str(error) or "timed out" in str(error)) == (
            "unknown",
            True,
        )
        assert await call("INCR", "counter") == 1, (
            "a new connection works, and the swallowed call was not repeated"
        )


async def test_silence_in_the_middle_of_a_reply_ends_the_call(
    scene: Scene, proxy: Proxy, kind: str
) -> None:
    async with opened(kind, proxy.url) as call:
        asked = await half_read(scene, proxy, call)
        proxy.hold()
        assert (await failing(asked)).outcome == "unknown"
        proxy.let_go()
        proxy.bytes_per_second = 0
        assert await call("GET", "large") == LARGE


async def test_a_connection_that_breaks_in_the_middle_of_a_reply(
    scene: Scene, proxy: Proxy, kind: str
) -> None:
    async with opened(kind, proxy.url) as call:
        asked = await half_read(scene, proxy, call)
        proxy.sever()
        assert (await failing(asked)).outcome == "unknown"
        assert await call("STRLEN", "large") == len(LARGE)


async def test_a_reply_in_single_bytes(scene: Scene, proxy: Proxy, kind: str) -> None:
    await scene.store.client.rpush("list", *range(500))
    proxy.splits = True
    async with opened(kind, proxy.url) as call:
        assert await call("LRANGE", "list", 0, -1) == [
            str(number).encode() for number in range(500)
        ]
        assert await call("EVAL", "return {1, {'a', {}}, false, ''}", 0) == [
            1,
            [b"a", []],
            None,
            b"",
        ]


async def test_errors_begin_with_the_stores_own_word(scene: Scene, kind: str) -> None:
    await scene.store.client.set("text", "a")
    async with opened(kind, scene.store.url) as call:
        for command, text, raised in [
            (("LPUSH", "text", "a"), "WRONGTYPE ", ResponseError),
            (("EVALSHA", "0" * 40, 0), "NOSCRIPT ", NoScriptError),
            (("EVAL", "return redis.error_reply('MINE 1')", 0), "MINE 1", ResponseError),
        ]:
            with pytest.raises(raised, match=f"^{text}"):
                await call(*command)
        assert await made(scene) == 2, "an error reply costs no connection"


async def test_a_connection_that_the_store_closed_while_idle(scene: Scene, kind: str) -> None:
    async with opened(kind, direct(scene)) as call:
        await call("SET", "counter", 1)
        await scene.store.client.client_kill_filter(_type="normal", skipme=True)
        await nobody_else(scene)
        if kind == "thread":  # a thread hears of it when it asks
            await failing(call("INCR", "counter"))
        assert await call("INCR", "counter") == 2


async def test_a_call_of_what_cannot_be_packed_costs_nothing(scene: Scene, kind: str) -> None:
    async with opened(kind, scene.store.url) as call:
        await call("PING")
        with pytest.raises(TypeError):
            await call("SET", "key", object())
        assert await call("PING") == b"PONG"
        assert await made(scene) == 2


async def test_nobody_is_configured(tmp_path: Path, kind: str) -> None:
    async with opened(kind, f"unix://{tmp_path}/none") as call:
        error = await failing(call("PING"))
    assert error.outcome == "refused"
    assert str(error).endswith("is unavailable: No such file or directory")


@pytest.mark.parametrize(
    ("says", "message"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "Protocol error"),
        (b"-ERR max number of clients reached\r\n", "max number of clients reached"),
        (b"", "closed the connection"),
    ],
)
async def test_something_else_answers(scene: Scene, kind: str, says: bytes, message: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(says)
        writer.close()

    path = scene.folder / "other"
    async with (
        await asyncio.start_unix_server(answer, path),
        opened(kind, f"unix://{path}") as call,
    ):
        error = await failing(call("GET", "key"))
    assert message in str(error)
    assert error.outcome == "refused"


@pytest.mark.parametrize(
    "url", ["http://host", "host:6379", "redis://host?db=x", "redis://host?no_such=1"]
)
async def test_what_is_no_address(url: str, kind: str) -> None:
    async with opened(kind, url) as call:
        with pytest.raises(ConfigurationError, match="is not a store's address") as refused:
            await call("PING")
    assert refused.value.hint


@pytest.mark.trap(23)
async def test_options_of_the_url_that_are_for_the_client_library(scene: Scene, kind: str) -> None:
    options = "protocol=3&decode_responses=true&socket_timeout=0.01&max_connections=1&health_check_interval=1"
    async with opened(kind, f"{scene.store.url}?{options}&client_name=app") as call:
        assert await call("SET", "key", "a") == b"OK"
        assert await call("GET", "key") == b"a"
        assert "app" in {line["name"] for line in await scene.store.client.client_list()}


async def test_login_name_and_database_of_the_url(scene: Scene, kind: str) -> None:
    client = scene.store.client
    await client.execute_command("ACL", "SETUSER", "team", "on", ">pa/ss", "~*", "+@all")
    url = f"unix://team:pa%2Fss@{scene.store.socket}?db=3"
    async with opened(kind, url) as call:
        await call("SET", "key", "there")
        (seen,) = [line for line in await client.client_list() if line["user"] == "team"]
        assert (seen["db"], seen["lib-name"]) == ("3", "corral")
    async with opened(kind, url.replace("pa%2Fss", "wrong")) as call:
        error = await failing(call("PING"))
        assert (error.outcome, "refuses this user name" in str(error), "wrong" in str(error)) == (
            "refused",
            True,
            False,
        )
    named = Link(scene.store.url, name="bull:YQ==:w:1")
    await named.call("PING")
    assert "bull:YQ==:w:1" in {line["name"] for line in await client.client_list()}
    await named.close()


async def test_tls(scene: Scene, kind: str) -> None:
    authority, stranger = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    for each, name in ((authority, "ours"), (stranger, "other")):
        each.cert_pem.write_to_path(str(scene.folder / name))
    async with Proxy(scene.folder / "unused", scene.store.socket, tls=context) as proxy:
        url = f"rediss://localhost:{proxy.port}/0?ssl_ca_certs={scene.folder}"
        async with opened(kind, f"{url}/ours") as call:
            assert await call("SET", "large", LARGE) == b"OK"
            assert await call("GET", "large") == LARGE
            proxy.swallow()
            assert (await failing(call("PING"))).outcome == "unknown"
            assert await call("STRLEN", "large") == len(LARGE)
        async with opened(kind, f"{url}/other") as call:
            error = await failing(call("PING"))
            assert (error.outcome, "CERTIFICATE_VERIFY_FAILED" in str(error)) == ("refused", True)


async def test_an_idle_connection_is_checked_before_it_is_used(
    scene: Scene, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened("loop", proxy.url) as call:
        await call("SET", "counter", 1)
        connections = await made(scene)
        monkeypatch.setattr(connection, "IDLE_SECONDS", 0.0)
        assert await call("INCR", "counter") == 2
        assert await made(scene) == connections, "it answered"
        proxy.swallow()
        assert await call("INCR", "counter") == 3, (
            "what was swallowed was the question, and not the command"
        )
        assert await made(scene) == connections + 1
        await scene.store.client.execute_command("ACL", "SETUSER", "default", "-ping")
        assert await call("INCR", "counter") == 4, "to be refused is an answer"
        assert await made(scene) == connections + 1


async def test_a_large_request_is_not_sent_into_silence(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "LARGE_IDLE_SECONDS", 0.0)
    async with opened("loop", proxy.url) as call:
        await call("PING")
        proxy.swallow()
        proxy.swallows_new = True
        began = asyncio.get_running_loop().time()
        assert (await failing(call("SET", "large", LARGE))).outcome == "refused"
        assert asyncio.get_running_loop().time() - began < len(LARGE) / 32_768, (
            "its own bound is longer"
        )


@pytest.mark.parametrize("kind", ["loop", "pipelined"])
async def test_each_of_many_calls_at_once_gets_its_own_reply(
    scene: Scene, proxy: Proxy, kind: str
) -> None:
    await scene.store.client.mset({f"key-{number}": number for number in range(200)})
    async with opened(kind, proxy.url) as call:
        replies = await asyncio.gather(*(call("GET", f"key-{number}") for number in range(200)))
    assert replies == [str(number).encode() for number in range(200)]
    assert await made(scene) == 2, "the test's own, and one"


@pytest.mark.parametrize("kind", ["loop", "pipelined"])
async def test_a_cancelled_call_leaves_its_reply_to_nobody(
    scene: Scene, proxy: Proxy, kind: str
) -> None:
    await scene.store.client.mset({"one": 1, "two": 2})
    async with opened(kind, proxy.url) as call:
        for _ in range(2):  # while the connection is made; and when the request is sent
            proxy.hold()
            asked = asyncio.ensure_future(call("GET", "one"))
            waiting = asyncio.ensure_future(call("GET", "two"))
            await asyncio.sleep(0)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            proxy.let_go()
            assert await waiting == b"2"


async def test_a_pipelined_call_does_not_wait_for_the_replies_of_others(
    scene: Scene, proxy: Proxy
) -> None:
    """All are sent, and each reply finds its call: results, errors, and one that comes in many
    pieces.
    """
    await scene.store.client.mset({"large": LARGE, "small": b"1"})
    async with opened("pipelined", proxy.url) as call:
        await call("PING")
        proxy.hold()
        commands = [
            ("GET", "large"),
            ("LPUSH", "small", 1),
            ("GET", "small"),
            ("GET", "large"),
            ("GET", "small"),
        ]
        asked = [asyncio.ensure_future(call(*command)) for command in commands]
        for _ in commands:
            await asyncio.sleep(0)
        proxy.let_go()
        large, error, small, *others = await asyncio.gather(*asked, return_exceptions=True)
    assert (large, small, *others) == (LARGE, b"1", LARGE, b"1")
    assert str(error).startswith("WRONGTYPE")


async def test_pipelined_calls_fail_with_their_connection_and_the_next_opens_another(
    scene: Scene, proxy: Proxy
) -> None:
    async with opened("pipelined", proxy.url) as call:
        await call("PING")
        connections = await made(scene)
        proxy.hold()
        asked = [asyncio.ensure_future(call("INCR", "counter")) for _ in range(3)]
        for _ in asked:
            await asyncio.sleep(0)
        proxy.sever()
        proxy.let_go()
        errors = await asyncio.gather(*asked, return_exceptions=True)
        assert [getattr(each, "outcome", None) for each in errors] == ["unknown"] * 3
        assert await call("PING") == b"PONG"
        assert await made(scene) == connections + 1


async def test_a_store_that_answers_one_of_two_pipelined_calls_is_silent_from_then_on(
    scene: Scene, proxy: Proxy
) -> None:
    async with opened("pipelined", proxy.url) as call:
        await call("PING")
        began = asyncio.get_running_loop().time()
        asked = [
            asyncio.ensure_future(call("PING")),
            asyncio.ensure_future(call("BLPOP", "nothing", 30)),
        ]
        assert await asked[0] == b"PONG"
        assert (await failing(asked[1])).outcome == "unknown"
        assert SECONDS <= asyncio.get_running_loop().time() - began < 3 * SECONDS


async def test_a_slow_link_has_time_for_all_that_was_sent_before(
    scene: Scene, proxy: Proxy
) -> None:
    """Each of the requests arrives later than it could be awaited if it were alone."""
    proxy.bytes_per_second = 48 * 1024
    async with opened("pipelined", proxy.url) as call:
        asked = [call("SET", f"key-{number}", b"x" * 32 * 1024) for number in range(4)]
        assert await asyncio.gather(*asked) == [b"OK"] * 4
    assert await made(scene) == 2, "the test's own, and one"


async def test_a_loop_that_was_blocked_for_longer_still_reads_what_has_come(
    scene: Scene, kind: str
) -> None:
    async with opened(kind, scene.store.url) as call:
        await call("PING")
        connections = await made(scene)
        asked = asyncio.ensure_future(call("INCR", "counter"))
        for _ in range(3):
            await asyncio.sleep(0)
        end = time.monotonic() + 2 * SECONDS
        while time.monotonic() < end:
            pass
        assert await asked == 1
        assert await made(scene) == connections


async def test_what_nobody_had_asked_for_is_nobodys_reply(scene: Scene) -> None:
    async with opened("loop", direct(scene)) as call:
        await call("SET", "key", "a")
        await call("SUBSCRIBE", "news")
        await scene.store.client.publish("news", "unasked")
        await nobody_else(scene)
        assert await call("GET", "key") == b"a"


async def test_a_reply_that_comes_is_seen_to_come(scene: Scene, proxy: Proxy) -> None:
    """A worker that waits for a large one is not silent."""
    await scene.store.client.set("large", LARGE)
    link = Link(proxy.url, read_seconds=SECONDS)
    assert link.unheard_seconds == math.inf, "there is no connection"
    await link.call("PING")
    assert link.unheard_seconds == math.inf, "nothing is awaited"
    proxy.bytes_per_second = len(LARGE)
    asked = asyncio.ensure_future(link.call("GET", "large"))
    await scene.until(lambda: link.unheard_seconds < SECONDS, "a part has come")
    assert await asked == LARGE
    assert link.unheard_seconds == math.inf
    await link.close()
