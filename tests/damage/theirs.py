"""BullMQ for Node as the hand of a trial, in a process that serves all trials of a test."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from damage.trial import Trial

__all__ = ["NodeProcess", "Theirs", "node_worker"]

DRIVER = Path(__file__).with_name("node_worker.mjs")
ANSWER_SECONDS = 20.0


class NodeProcess:
    """The driver's process: see `node_worker.mjs` for what it can be asked.

    Attributes:
        complaints: How often BullMQ complained, by queue.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.complaints: Counter[str] = Counter()
        self._process = process
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Any]] = {}

    async def ask(self, operation: str, **arguments: Any) -> Any:
        """Have one thing done.

        Raises:
            RuntimeError: BullMQ threw, or the process has ended.
        """
        assert self._process.stdin is not None
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(
            json.dumps({"n": number, "do": operation, **arguments}).encode() + b"\n"
        )
        return await asyncio.wait_for(answer, ANSWER_SECONDS)

    async def read(self) -> None:
        """Read what the process says, until it ends."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = json.loads(line)
            if "complaint" in said:
                self.complaints[said["queue"]] += 1
                continue
            answer = self._asked.pop(said["n"])
            if answer.done():
                continue
            if "error" in said:
                answer.set_exception(RuntimeError(said["error"]))
            else:
                answer.set_result(said["ok"])
        for answer in self._asked.values():
            if not answer.done():
                answer.set_exception(RuntimeError("the process of BullMQ has ended"))


@asynccontextmanager
async def node_worker(node_modules: Path, url: str) -> AsyncIterator[NodeProcess]:
    """A process with BullMQ; gone afterwards.

    Args:
        node_modules: The directory that holds Node's `node_modules`.
        url: The store, `unix://…`.
    """
    process = await asyncio.create_subprocess_exec(
        "node",
        str(DRIVER),
        url.removeprefix("unix://"),
        env={**os.environ, "CORRAL_NODE_MODULES": str(node_modules)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    node = NodeProcess(process)
    reading = asyncio.create_task(node.read(), name="what BullMQ says")
    try:
        yield node
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await reading


@dataclass
class Theirs:
    """A worker of BullMQ.

    Attributes:
        node: The process.
    """

    node: NodeProcess
    _queue: str = field(init=False, default="")

    async def start(self, trial: Trial) -> None:
        self._queue = trial.layout.queue
        closed = trial.case.when == "held"
        await self.node.ask(
            "work", queue=self._queue, slots=trial.slots, victim=trial.case.victim, closed=closed
        )

    async def holds(self) -> Counter[str]:
        return Counter(await self.node.ask("holds", queue=self._queue))

    async def open(self) -> None:
        await self.node.ask("open", queue=self._queue)

    def tells(self, key: str) -> bool:
        """It names no keys: any complaint will do, and none is taken back."""
        return bool(key) and self.node.complaints[self._queue] > 0

    async def stop(self) -> list[str]:
        ended = await self.node.ask("stop", queue=self._queue)
        return [] if ended == "closed" else ["the worker of BullMQ did not close"]
