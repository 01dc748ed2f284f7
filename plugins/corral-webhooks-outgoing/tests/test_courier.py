"""One POST: what is sent, what is read of the answer, and how long all of it may take."""

from __future__ import annotations

import asyncio
import gzip
import textwrap
import time
import tracemalloc
from typing import Any

import httpx2
import pytest

from corral_webhooks_outgoing.answer import Answer
from corral_webhooks_outgoing.courier import MAX_BODY_BYTES, Unanswered
from corral_webhooks_outgoing.guard import Guard, NotPublic

from .conftest import MESSAGE, NAME, NO_CONTENT, PUBLIC, answering, post

pytestmark = pytest.mark.asyncio


async def drip(writer: asyncio.StreamWriter) -> None:
    """One byte every tenth of a second, until the other side has enough."""
    for _ in range(1000):
        writer.write(b"a")
        await writer.drain()
        await asyncio.sleep(0.1)


async def drip_the_body(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 500 No\r\ncontent-length: 100000\r\n\r\nsorry ")
    await drip(writer)


async def test_what_is_sent(courier, receiver) -> None:
    assert await post(courier, receiver) == Answer(204)
    (request,) = receiver.requests
    assert request.line == "POST /corral?token=1 HTTP/1.1"
    assert request.body == MESSAGE.body
    assert request.headers.pop("user-agent").startswith("corral-webhooks-outgoing/")
    assert request.headers == {
        "host": f"127.0.0.1:{receiver.port}",
        "accept": "*/*",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "content-length": "8",
        "webhook-id": "evt_1",
    }


async def test_neither_proxies_nor_credentials_of_the_environment_nor_cookies_are_used(
    courier_with, receiver, serving, monkeypatch, tmp_path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login ada password lovelace")
    async with serving() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        courier = courier_with(allow_private=True)
        receiver.replies.append(answering(200, set_cookie="a=b"))
        for _ in range(2):
            await post(courier, receiver)
        assert proxy.connections == 0
    assert len(receiver.requests) == 2
    assert not {"cookie", "authorization"} & {
        name for request in receiver.requests for name in request.headers
    }


async def test_a_burst_to_one_receiver_uses_one_connection(courier, receiver) -> None:
    for _ in range(5):
        await post(courier, receiver)
    assert (len(receiver.requests), receiver.connections) == (5, 1)


async def test_a_connection_that_its_receiver_has_closed_is_not_used_again(
    courier, receiver
) -> None:
    closed = asyncio.Event()

    async def hang_up(writer: asyncio.StreamWriter) -> None:
        writer.write(NO_CONTENT)
        writer.close()
        await writer.wait_closed()
        closed.set()

    receiver.replies.append(hang_up)
    await post(courier, receiver)
    await asyncio.wait_for(closed.wait(), 15)
    assert await post(courier, receiver) == Answer(204)
    assert receiver.connections == 2


async def test_the_name_is_kept_for_host_sni_and_the_certificate(
    courier_with, serving, certified, resolver, internet
) -> None:
    context = certified(NAME)
    named: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: named.append(name)
    async with serving(tls=context) as receiver:
        internet.ports[PUBLIC] = receiver.port
        await courier_with(internet).post(httpx2.URL(f"https://{NAME}/"), MESSAGE)
    assert (resolver.asked, internet.dialled) == ([NAME], [PUBLIC])
    assert (named, [request.headers["host"] for request in receiver.requests]) == ([NAME], [NAME])


async def test_a_certificate_of_another_name_is_refused(
    courier_with, serving, certified, resolver, internet
) -> None:
    async with serving(tls=certified("somebody.example.org")) as receiver:
        internet.ports[PUBLIC] = receiver.port
        with pytest.raises(Unanswered, match=r"certificate is not valid for 'hooks\.example\.org'"):
            await courier_with(internet).post(httpx2.URL(f"https://{NAME}/"), MESSAGE)
    assert receiver.requests == []


async def test_an_authority_that_is_not_trusted_is_refused(
    courier_with, serving, certified, resolver, internet, monkeypatch
) -> None:
    context = certified(NAME)
    monkeypatch.delenv("SSL_CERT_FILE")
    async with serving(tls=context) as receiver:
        internet.ports[PUBLIC] = receiver.port
        with pytest.raises(Unanswered, match="CERTIFICATE_VERIFY_FAILED"):
            await courier_with(internet).post(httpx2.URL(f"https://{NAME}/"), MESSAGE)
    assert receiver.requests == []


async def test_an_address_that_nobody_answers_at_leaves_the_others_their_turn(
    courier_with, serving, certified, resolver, internet
) -> None:
    resolver.answers[NAME] = [["2606:4700::1111", PUBLIC]]
    async with serving(tls=certified(NAME)) as receiver:
        internet.ports[PUBLIC] = receiver.port
        await courier_with(internet).post(httpx2.URL(f"https://{NAME}/"), MESSAGE)
    assert internet.dialled == ["2606:4700::1111", PUBLIC]
    assert len(receiver.requests) == 1


async def test_an_address_that_swallows_packets_does_too(
    courier_with, serving, certified, resolver, internet
) -> None:
    resolver.answers[NAME] = [["2606:4700::1111", PUBLIC]]
    internet.silent.add("2606:4700::1111")
    async with serving(tls=certified(NAME)) as receiver:
        internet.ports[PUBLIC] = receiver.port
        courier = courier_with(internet, connect_timeout_seconds=2, timeout_seconds=15)
        assert await courier.post(httpx2.URL(f"https://{NAME}/"), MESSAGE) == Answer(204)
    assert internet.dialled == ["2606:4700::1111", PUBLIC]


async def test_a_name_server_that_does_not_answer_is_not_waited_for(
    courier_with, resolver, internet
) -> None:
    courier = courier_with(internet, connect_timeout_seconds=0.2)
    resolver.answering.clear()
    try:
        with pytest.raises(Unanswered, match=r"no connection within 0\.2 s"):
            await courier.post(httpx2.URL(f"https://{NAME}/"), MESSAGE)
    finally:
        resolver.answering.set()
    assert internet.dialled == []


async def test_names_that_are_never_answered_keep_no_other_name_waiting(
    courier_with, serving, certified, resolver, internet, wait_until
) -> None:
    courier = courier_with(internet, connect_timeout_seconds=60, timeout_seconds=60)
    names = [f"silent{number}.example.org" for number in range(20)]
    resolver.hanging.update(names)
    async with serving(tls=certified(NAME)) as receiver:
        internet.ports[PUBLIC] = receiver.port
        waiting = [
            asyncio.create_task(courier.post(httpx2.URL(f"https://{name}/"), MESSAGE))
            for name in names
        ]
        try:
            await wait_until(lambda: set(names) <= set(resolver.asked), "all of them are asked for")
            assert await courier.post(httpx2.URL(f"https://{NAME}/"), MESSAGE) == Answer(204)
            assert not any(task.done() for task in waiting)
        finally:
            resolver.answered.set()
            ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(each) for each in ended} == {Unanswered}


async def test_a_name_that_is_never_answered_does_not_keep_a_worker_from_ending(python) -> None:
    program = """
        import asyncio, socket, threading, httpx2
        from corral_webhooks_outgoing.courier import Unanswered
        from corral_webhooks_outgoing.message import Message
        from corral_webhooks_outgoing.sending import Sender
        from corral_webhooks_outgoing.settings import WebhookSettings
        socket.getaddrinfo = lambda *_, **__: threading.Event().wait()

        async def ask():
            sender = Sender.open(WebhookSettings(connect_timeout_seconds=0.1))
            try:
                await sender.courier.post(httpx2.URL("https://hooks.example.org/"), Message(b"{}", {}))
            except Unanswered as error:
                print(error)
            await sender.close()

        asyncio.run(ask())
    """
    assert python(textwrap.dedent(program)) == "no connection within 0.1 s"


async def test_a_name_that_cannot_be_resolved_and_a_receiver_that_is_away_are_reported(
    courier_with, resolver, internet
) -> None:
    courier = courier_with(internet)
    with pytest.raises(Unanswered, match="the name cannot be resolved: Name or service not known"):
        await courier.post(httpx2.URL("https://nobody.example.org/"), MESSAGE)
    assert internet.dialled == []
    with pytest.raises(Unanswered, match="ConnectError: nobody is there"):
        await courier.post(httpx2.URL(f"https://{NAME}/"), MESSAGE)


async def test_a_socket_of_this_machine_is_not_public() -> None:
    with pytest.raises(NotImplementedError):
        await Guard(allow_private=True).connect_unix_socket("/run/docker.sock")


@pytest.mark.timing
async def test_a_server_that_drips_bytes_frees_its_slot_within_sixteen_seconds(
    courier, serving
) -> None:
    """Once in the status line and once in the body, at the same time, with the settings as they are
    by default.
    """

    async def timed(reply: Any) -> tuple[object, float]:
        async with serving() as receiver:
            receiver.replies.append(reply)
            began = time.monotonic()
            try:
                ended: object = (await post(courier, receiver)).status
            except Unanswered as error:
                ended = str(error)
            return ended, time.monotonic() - began

    (first, first_took), (second, second_took) = await asyncio.gather(
        timed(drip), timed(drip_the_body)
    )
    print(f"servers that drip freed their slots after {first_took:.2f} and {second_took:.2f} s")
    assert (first, second) == ("no answer within 15 s", 500)
    assert 15 <= first_took <= 16
    assert 15 <= second_took <= 16


async def test_a_server_that_drips_behind_tls_is_left_as_well(
    courier_with, serving, certified, resolver, internet
) -> None:
    async with serving(tls=certified(NAME)) as receiver:
        internet.ports[PUBLIC] = receiver.port
        receiver.replies.append(drip)
        with pytest.raises(Unanswered, match=r"no answer within 0\.5 s"):
            await courier_with(internet, timeout_seconds=0.5).post(
                httpx2.URL(f"https://{NAME}/"), MESSAGE
            )


async def test_the_status_is_the_answer_whatever_becomes_of_the_body(
    courier_with, receiver
) -> None:
    receiver.replies.append(drip_the_body)
    answer = await post(courier_with(allow_private=True, timeout_seconds=0.5), receiver)
    assert (answer.status, answer.body[:6]) == (500, b"sorry ")


async def test_what_is_no_http_is_reported_and_not_at_length(courier, receiver) -> None:
    receiver.replies.append(b"SSH-2.0-OpenSSH_9.2" + b"x" * 5000 + b"\r\n\r\n")
    with pytest.raises(Unanswered, match="RemoteProtocolError: illegal status line") as refused:
        await post(courier, receiver)
    assert len(str(refused.value)) <= 300


async def test_a_receiver_that_hangs_up_is_reported(courier, receiver) -> None:
    async def hang_up(writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    receiver.replies.append(hang_up)
    with pytest.raises(Unanswered):
        await post(courier, receiver)


async def test_endless_headers_are_not_read_to_their_end(courier, receiver) -> None:
    async def pour(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"x: " + b"y" * 1000 + b"\r\n")
            await writer.drain()

    receiver.replies.append(pour)
    with pytest.raises(Unanswered, match="RemoteProtocolError"):
        await post(courier, receiver)


async def test_of_an_endless_body_64_kib_are_read(courier, receiver) -> None:
    async def pour(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 1000)
            await writer.drain()

    receiver.replies.append(pour)
    assert len((await post(courier, receiver)).body) == MAX_BODY_BYTES


async def test_a_bomb_is_not_unpacked(courier, receiver) -> None:
    bomb = gzip.compress(bytes(128 << 20))
    assert len(bomb) > MAX_BODY_BYTES
    head = (
        f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(bomb)}\r\n\r\n".encode()
    )

    async def throw(writer: asyncio.StreamWriter) -> None:
        writer.transport.write(head)
        writer.transport.write(memoryview(bomb))

    await post(courier, receiver)
    receiver.replies.append(throw)
    tracemalloc.start()
    try:
        answer = await post(courier, receiver)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert answer.body == bomb[:MAX_BODY_BYTES]
    print(f"a bomb of {len(bomb)} bytes that holds 128 MiB took {peak} bytes")
    assert peak < 1 << 20


async def test_nothing_is_connected_to_where_the_guard_refuses(courier_with, receiver) -> None:
    with pytest.raises(NotPublic, match=r"127\.0\.0\.1"):
        await post(courier_with(), receiver)
    assert receiver.connections == 0
