"""The real Bull Board, in Node, from Python."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

__all__ = ["BullBoard", "bull_board"]

SERVER = Path(__file__).with_name("bull_board.mjs")
MISSING = "Bull Board is not installed: npm ci --prefix tests/node"
ANSWER_SECONDS = 30.0


class BullBoard:
    """Bull Board on BullMQ's queues; see `bull_board.mjs`.

    Attributes:
        url: Its address, without a path.
    """

    def __init__(self, url: str, client: httpx2.AsyncClient) -> None:
        self.url = url
        self._client = client

    async def get(self, path: str) -> Any:
        """Get an address; returns the parsed answer."""
        answer = await self._client.get(f"{self.url}{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def put(self, path: str, method: str = "PUT", **json: Any) -> Any:
        """Send a command; returns the parsed answer."""
        answer = await self._client.request(method, f"{self.url}{path}", json=json)
        assert answer.status_code < 300, answer.text
        return answer

    async def queues(self) -> dict[str, Any]:
        """Every queue in its overview, by name."""
        return {each["name"]: each for each in (await self.get("/board/api/queues"))["queues"]}

    async def queue(self, name: str, status: str = "latest") -> Any:
        """A queue with its jobs of a state."""
        answer = await self.get(
            f"/board/api/queues?activeQueue={name}&status={status}&page=1&jobsPerPage=50"
        )
        return next(each for each in answer["queues"] if each["name"] == name)

    async def job(self, queue: str, job_id: str) -> Any:
        """A job as Bull Board shows it."""
        return (await self.get(f"/board/api/queues/{queue}/{job_id}"))["job"]


@asynccontextmanager
async def bull_board(
    node_modules: Path, socket: str, queues: Sequence[str]
) -> AsyncIterator[BullBoard]:
    """Bull Board, on a port of the kernel's choice.

    Args:
        node_modules: The directory that holds Node's `node_modules`.
        socket: The store's socket.
        queues: The queues' names.
    """
    if not (node_modules / "node_modules" / "@bull-board").is_dir():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(MISSING)
    running = await asyncio.create_subprocess_exec(
        "node",
        str(SERVER),
        socket,
        *queues,
        env={**os.environ, "CORRAL_NODE_MODULES": str(node_modules)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert running.stdout is not None
        port = int(await asyncio.wait_for(running.stdout.readline(), ANSWER_SECONDS))
        async with httpx2.AsyncClient(timeout=ANSWER_SECONDS) as client:
            yield BullBoard(f"http://127.0.0.1:{port}", client)
    finally:
        with suppress(ProcessLookupError):
            running.kill()
        await running.wait()
