"""The other sides: BullMQ 6 and 5 for Node and BullMQ for Python, each in a process of its own,
from Python.

A driver (`driver.mjs`, `driver.py`) is asked in JSON lines. Starting one takes half a second of a
busy machine, so that one process serves many tests: `open` gives it a test's store, `close` leaves
nothing of it behind.
"""

from __future__ import annotations

import asyncio
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

HERE = Path(__file__).parent
ANSWER_SECONDS = 20.0
"""Longer than a driver waits for anything."""
NO_API = "no API yet: "
"""How the reason of a skipped test begins whose operation one of the sides cannot be asked for."""


@dataclass(frozen=True)
class Kind:
    """A BullMQ.

    Attributes:
        title: What the matrix calls it.
        module: The name that Node loads it by; empty for the one that is Python's.
    """

    title: str
    module: str = ""


KINDS = MappingProxyType(
    {
        "node6": Kind("Node 6", "bullmq"),
        "node5": Kind("Node 5", "bullmq5"),
        "python": Kind("Python"),
    }
)


def no_api(what: str) -> None:
    """End a test that has no operation to be about, with one sentence on what is missing."""
    pytest.skip(NO_API + what)


class Peer:
    """BullMQ in a process of its own: see the drivers for what it can be asked.

    Args:
        kind: A name of `KINDS`.
        node_modules: The directory that holds Node's `node_modules`.
        environment: More of its environment.

    Attributes:
        kind: As given.
        title: What it is called where people read.
        pid: What its workers write into the journal.
    """

    def __init__(
        self, kind: str, node_modules: Path, environment: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.kind = kind
        self.title = KINDS[kind].title
        command = (
            ["node", str(HERE / "driver.mjs")]
            if KINDS[kind].module
            else [sys.executable, str(HERE / "driver.py")]
        )
        own = {
            "CORRAL_NODE_MODULES": str(node_modules),
            "CORRAL_BULLMQ": KINDS[kind].module,
            **environment,
        }
        self._process = subprocess.Popen(
            command, env={**os.environ, **own}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.pid = self._process.pid
        self._rest = b""

    async def ask(self, operation: str, **arguments: Any) -> Any:
        """Have one thing done.

        A test that asks for what the side has no API for ends there, as `no_api` does.
        """
        answer = await asyncio.to_thread(self._answer, {"do": operation, **arguments})
        if "no_api" in answer:
            no_api(f"BullMQ for {self.title} {answer['no_api']}")
        assert "error" not in answer, answer["error"]
        return answer["ok"]

    async def needs(self, *what: str) -> None:
        """End a test whose later questions this side has no API for: operations, or names of
        `driver.py`'s `LACKS`.
        """
        for each in what:
            if lacking := await self.ask("lacks", what=each):
                no_api(f"BullMQ for {self.title} {lacking}")

    def _answer(self, request: Mapping[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        deadline = time.monotonic() + ANSWER_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                assert selector.select(max(deadline - time.monotonic(), 0)), (
                    f"{self.title} says nothing: {request}"
                )
                more = os.read(self._process.stdout.fileno(), 2**20)
                if not more:
                    return {"error": "the driver's process ended"}
                self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)

    async def add(self, *jobs: dict[str, Any], queue: str = "chaos") -> Sequence[str]:
        """Add jobs, each `{"data": …, "opts": …}`; returns their ids."""
        ids: Sequence[str] = await self.ask("add", queue=queue, jobs=jobs)
        return ids

    async def job(self, job_id: str, queue: str = "chaos") -> dict[str, Any]:
        """A job as BullMQ sees it."""
        seen = await self.ask("job", queue=queue, id=job_id)
        assert seen, f"BullMQ knows no job {job_id}"
        return dict(seen)

    async def work(self, queue: str = "chaos", *, concurrency: int = 1, **how: Any) -> None:
        """Start a worker; for what else can be said, see the drivers."""
        assert await self.ask("work", queue=queue, concurrency=concurrency, **how) == self.pid

    @property
    def lives(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """`kill -9`."""
        self._process.kill()
        with self._process:
            pass


@asynccontextmanager
async def opened(
    peer: Peer, socket: Path, journal: Path, prefix: str = "bull"
) -> AsyncIterator[Peer]:
    """Let a peer use a test's store. Afterwards it may have complained of nothing, and has left the
    store.

    A peer that the test has killed, or that does not let go, is gone.
    """
    await peer.ask("open", socket=str(socket), journal=str(journal), prefix=prefix)
    try:
        yield peer
        if peer.lives:
            complaints = await peer.ask("errors")
            assert complaints == []
            await peer.ask("close")
    except BaseException:
        peer.kill()  # whatever it is in the middle of is no matter of the next test
        raise


class Peers:
    """The processes, started when they are first asked for."""

    def __init__(self) -> None:
        self._running: dict[str, Peer] = {}

    async def get(self, kind: str, node_modules: Path) -> Peer:
        """The one process of a kind, which has loaded BullMQ."""
        if kind not in self._running or not self._running[kind].lives:
            self._running[kind] = Peer(kind, node_modules)
            await self._running[kind].ask(
                "errors"
            )  # it takes seconds on a busy machine, and a job's delay would be over
        return self._running[kind]

    def end(self) -> None:
        """End them all."""
        for peer in self._running.values():
            peer.kill()
