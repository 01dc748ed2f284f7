"""A lane: one private server and one Node process, on which programs run one after the other."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError  # noqa: A004  # redis-py's own, not the built-in one

from corral.embedded.server_binary import find_server

DRIVER = Path(__file__).with_name("driver.cjs")
ANSWER_SECONDS = 30
"""No operation takes a hundredth of this; a driver that hangs must not hang the run."""
LINE_BYTES = 2**24


class DriverError(Exception):
    """BullMQ raised what it is not meant to raise here; the text is its stack."""


class Node:
    """The driver's process: one request at a time, one line each way."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, operation: str, now_ms: int, **arguments: Any) -> Any:
        """Have BullMQ do one thing at a time of our choosing.

        Raises:
            DriverError: It failed in a way that has no code of its own.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(
            json.dumps({"do": operation, "now": now_ms, **arguments}).encode() + b"\n"
        )
        async with asyncio.timeout(ANSWER_SECONDS):
            await self._process.stdin.drain()
            line = await self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "the driver's process ended"}
        if "error" in answer:
            raise DriverError(answer["error"])
        return answer["ok"]


@dataclass(frozen=True, slots=True)
class Lane:
    """What one program after the other runs on.

    Attributes:
        url: The server's address.
        client: For looking at the server; nothing under test goes through it.
        node: BullMQ.
    """

    url: str
    client: Redis
    node: Node


@asynccontextmanager
async def open_lane(folder: Path, node_modules: Path) -> AsyncIterator[Lane]:
    """A fresh server and a fresh Node process, both gone afterwards.

    Args:
        folder: For the server's socket: short, a socket's path ends at 107 bytes.
        node_modules: The directory that holds Node's `node_modules`.
    """
    socket = folder / "valkey.sock"
    server = find_server(os.environ.get("CORRAL_VALKEY_SERVER")).path
    # DEBUG DIGEST is how "nothing changed" is asserted; nothing is written to disk
    arguments = [
        "--port",
        "0",
        "--unixsocket",
        str(socket),
        "--save",
        "",
        "--enable-debug-command",
        "yes",
    ]
    async with (
        _process(server, *arguments, "--dir", str(folder), stdout=asyncio.subprocess.DEVNULL),
        Redis(unix_socket_path=str(socket)) as client,
    ):
        await _answers(client)
        async with _process(
            "node",
            str(DRIVER),
            str(socket),
            env={**os.environ, "CORRAL_NODE_MODULES": str(node_modules)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES,
        ) as node:
            yield Lane(f"unix://{socket}", client, Node(node))


@asynccontextmanager
async def _process(*command: str, **settings: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(*command, **settings)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()  # neither keeps anything that outlives it
        await process.wait()


async def _answers(client: Redis) -> None:
    """Wait until the server answers: 40 ms, mostly."""
    async with asyncio.timeout(10):
        while True:
            try:
                await client.ping()
            except (ConnectionError, OSError):
                await asyncio.sleep(0.005)
            else:
                return
