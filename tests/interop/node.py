"""The driver's process, from Python."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

DRIVER = Path(__file__).with_name("driver.mjs")
ANSWER_SECONDS = 20.0
"""Longer than the driver waits for anything."""


class Node:
    """BullMQ for Node in a process of its own: see `driver.mjs` for what it can be asked.

    Attributes:
        pid: What its workers write into the journal.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.pid = process.pid
        self._process = process

    async def ask(self, operation: str, **arguments: Any) -> Any:
        """Have one thing done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": operation, **arguments}).encode() + b"\n")
        async with asyncio.timeout(ANSWER_SECONDS):
            line = await self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "the driver's process ended"}
        assert "error" not in answer, answer["error"]
        return answer["ok"]

    async def add(self, *jobs: dict[str, Any], queue: str = "chaos") -> Sequence[str]:
        """Add jobs, each `{"data": …, "opts": …}`; returns their ids."""
        ids: Sequence[str] = await self.ask("add", queue=queue, jobs=jobs)
        return ids

    async def job(self, job_id: str, queue: str = "chaos") -> dict[str, Any]:
        """A job as BullMQ sees it."""
        seen = await self.ask("job", queue=queue, id=job_id)
        assert seen, f"BullMQ knows no job {job_id}"
        return dict(seen)


@asynccontextmanager
async def node_process(node_modules: Path, socket: Path, journal: Path, **environment: str) -> AsyncIterator[Node]:
    """A driver's process; gone afterwards, with its workers.

    Args:
        node_modules: The directory that holds Node's `node_modules`.
        socket: The store's.
        journal: What its workers write.
        environment: More of its environment.
    """
    process = await asyncio.create_subprocess_exec(
        "node",
        str(DRIVER),
        str(socket),
        str(journal),
        env={**os.environ, "CORRAL_NODE_MODULES": str(node_modules), **environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    try:
        yield Node(process)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
