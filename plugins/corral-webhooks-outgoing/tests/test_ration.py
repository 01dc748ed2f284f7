"""How much of an answer is read, and how much of it at a time, whatever it is made of."""

from __future__ import annotations

import asyncio

import httpcore2
import pytest

from corral_webhooks_outgoing.answer import Answer
from corral_webhooks_outgoing.courier import MAX_BODY_BYTES, Unanswered
from corral_webhooks_outgoing.ration import MAX_ANSWER_BYTES, Rationed

from .conftest import answering, post

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize(
    "interim",
    [b"HTTP/1.1 100 \r\n\r\n", b"HTTP/1.1 103 \r\n" + b"x: y\r\n" * 100 + b"\r\n"],
    ids=["100", "103"],
)
async def test_interim_answers_without_end_are_left(courier, receiver, interim) -> None:
    """Long before the time is up: to read them keeps the whole worker busy."""

    async def pour(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(interim * 100)
            await writer.drain()

    receiver.replies.append(pour)
    with pytest.raises(Unanswered, match="ReadError: the answer has more than 192 KiB"):
        await post(courier, receiver)


async def test_a_body_of_single_bytes_is_read_as_far_as_the_ration_goes(courier, receiver) -> None:
    async def pour(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1\r\nx\r\n" * 1000)
            await writer.drain()

    receiver.replies.append(pour)
    answer = await post(courier, receiver)
    assert answer.status == 200
    assert MAX_ANSWER_BYTES / 7 < len(answer.body) < MAX_ANSWER_BYTES / 6


async def test_each_answer_on_one_connection_has_the_whole_ration(courier, receiver) -> None:
    body = b"x" * (MAX_BODY_BYTES - 1)
    receiver.replies += [answering(200, body) for _ in range(5)]
    assert [await post(courier, receiver) for _ in range(5)] == [Answer(200, None, body)] * 5
    assert receiver.connections == 1


async def test_what_has_all_come_already_leaves_others_their_turns() -> None:
    class Ready(httpcore2.AsyncNetworkStream):
        async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            return bytes(max_bytes)

    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    others = asyncio.create_task(other())
    stream, read = Rationed(Ready()), 0
    while read < 64 * 1024:
        read += len(await stream.read(64 * 1024))
    others.cancel()
    assert turns >= 16
