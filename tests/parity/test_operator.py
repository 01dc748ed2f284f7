"""What an operator does leaves the same keys, whether BullMQ for Node does it or our `JobInspector`.

BullMQ makes the same jobs below two prefixes. Then it does a thing below one, and we do it below the other.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import pytest_asyncio

from corral import Payload, Queue
from corral.catalog import Catalog, Entry
from corral.inspector import CurrentIteration, JobInspector, JobLocked, WrongState
from corral.plugins import Provider
from corral.store.connection import Link
from parity.keyspace import Entries, differences, read
from parity.lane import Lane, open_lane

pytestmark = pytest.mark.asyncio(loop_scope="module")

THEIRS, OURS = "theirs", "ours"
QUEUE, OTHER = "mail", "post"
STEP_MS = 5000
"""Times are compared in steps of this (`keyspace`): everything happens at the start of one."""
LONG = 3_600_000


class Mail(Payload):
    """Whatever."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lane(node_modules: Path) -> AsyncIterator[Lane]:
    with tempfile.TemporaryDirectory(prefix="corral-operator-") as folder:
        async with open_lane(Path(folder), node_modules) as opened:
            yield opened


@dataclass
class Sides:
    """BullMQ and the inspector, each below its prefix, at one time.

    Attributes:
        lane: The server and Node.
        inspector: Ours.
        now_ms: What BullMQ takes for now.
        handles: How many starts there were below each prefix.
    """

    lane: Lane
    inspector: JobInspector
    now_ms: int
    handles: dict[str, list[str]] = field(default_factory=dict)

    async def node(self, operation: str, prefix: str, **arguments: Any) -> Any:
        request = {"queue": QUEUE, "prefix": prefix, **arguments}
        return await self.lane.node.ask(operation, self.now_ms, **request)

    async def made(self, *jobs: Mapping[str, Any], queue: str = QUEUE) -> None:
        """Add jobs on both sides; each is `opts`, with its id."""
        adds = [{"name": "work", "data": {"n": n}, "opts": dict(opts)} for n, opts in enumerate(jobs)]
        for prefix in (THEIRS, OURS):
            await self.node("add", prefix, queue=queue, jobs=adds)

    async def flow(self, tree: dict[str, Any]) -> None:
        for prefix in (THEIRS, OURS):
            await self.lane.node.ask("flow", self.now_ms, prefix=prefix, tree=tree)

    async def worked(self, want: int, *endings: Mapping[str, Any]) -> None:
        """Have BullMQ start jobs on both sides, and end the first of them; the others stay active."""
        for prefix in (THEIRS, OURS):
            await self.node("open", prefix, worker="worker-1")
            started = (await self.node("advance", prefix, endings=[], want=want))["jobs"]
            assert len(started) == want
            ended = [{"handle": job["handle"], "outcome": how} for job, how in zip(started, endings, strict=False)]
            codes = (await self.node("advance", prefix, endings=ended, want=0))["codes"]
            assert codes == [0] * len(endings)
            await self.node("close", prefix)

    async def compared(self) -> tuple[list[str], Entries]:
        """What differs, and what we have left."""
        ours = await read(self.lane.client, OURS)
        found = differences(await read(self.lane.client, THEIRS), ours, Counter())
        return [str(entry) for entry in found], ours


FAILS = {"kind": "fail", "reason": "no", "traceback": "Error: no", "final": True, "delay_ms": 0}
DONE = {"kind": "complete", "value": {"sent": True}}


@pytest_asyncio.fixture(loop_scope="module")
async def sides(lane: Lane) -> AsyncIterator[Sides]:
    await lane.client.flushall()
    real = time.time_ns() // 1_000_000
    now = real // STEP_MS * STEP_MS + 100
    provider = Provider("acme", "1.0", "wheel")
    queues = {name: Entry(Queue(name, Mail), provider, "") for name in (QUEUE, OTHER)}
    link = Link(lane.url)
    inspector = JobInspector(Catalog(MappingProxyType(queues)), link, prefix=OURS, offset_ms=now - real)
    yield Sides(lane, inspector, now)
    await inspector.close()


async def test_retry_of_a_failed_job(sides: Sides) -> None:
    await sides.made({"jobId": "a"})
    await sides.worked(1, FAILS)
    await sides.node("retry", THEIRS, id="a", state="failed")
    await sides.inspector.retry(QUEUE, "a")
    found, ours = await sides.compared()
    assert found == []
    assert ours[f"{QUEUE}:wait", "[0]"] == "a"
