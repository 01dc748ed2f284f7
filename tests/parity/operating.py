"""What an operator does, as BullMQ for Node is asked for it and as our `JobInspector` is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from corral.inspector import JobInspector
from parity.keyspace import Entries, differences, read
from parity.lane import Lane

THEIRS, OURS = "theirs", "ours"
QUEUE, OTHER = "mail", "post"
STEP_MS = 5000
"""Times are compared in steps of this (`keyspace`): everything happens at the start of one."""
LONG = 3_600_000


@dataclass
class Sides:
    """BullMQ and the inspector, each below its prefix, at one time.

    Attributes:
        lane: The server and Node.
        inspector: Ours.
        now_ms: What BullMQ takes for now.
    """

    lane: Lane
    inspector: JobInspector
    now_ms: int

    async def node(self, operation: str, prefix: str, **arguments: Any) -> Any:
        request = {"queue": QUEUE, "prefix": prefix, **arguments}
        return await self.lane.node.ask(operation, self.now_ms, **request)

    async def made(self, *jobs: Mapping[str, Any], queue: str = QUEUE) -> None:
        """Add jobs on both sides; each is `opts`, with its id."""
        adds = [
            {"name": "work", "data": {"n": n}, "opts": dict(opts)} for n, opts in enumerate(jobs)
        ]
        for prefix in (THEIRS, OURS):
            await self.node("add", prefix, queue=queue, jobs=adds)

    async def flow(self, tree: dict[str, Any]) -> None:
        for prefix in (THEIRS, OURS):
            await self.lane.node.ask("flow", self.now_ms, prefix=prefix, tree=tree)

    async def worked(self, want: int, *endings: Mapping[str, Any]) -> None:
        """Let BullMQ start jobs on both sides, and end the first one; the others stay active."""
        for prefix in (THEIRS, OURS):
            await self.node("open", prefix, worker="worker-1")
            started = (await self.node("advance", prefix, endings=[], want=want))["jobs"]
            assert len(started) == want
            ended = [
                {"handle": job["handle"], "outcome": how}
                for job, how in zip(started, endings, strict=False)
            ]
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


Operation = Callable[[Sides], Awaitable[Any]]


@dataclass(frozen=True)
class Case:
    """One thing an operator does.

    Attributes:
        jobs: What is added first.
        theirs: What BullMQ is asked.
        ours: What the inspector does.
        ends: How the first jobs ended; more jobs than that are not started, unless `active` says
        so.
        active: How many jobs are left active.
        tree: A flow that is added instead of jobs.
        apart: What differs by design: a pattern of the entries.
    """

    jobs: Sequence[Mapping[str, Any]]
    theirs: Operation
    ours: Operation
    ends: Sequence[Mapping[str, Any]] = ()
    active: int = 0
    tree: dict[str, Any] | None = None
    apart: str = "nothing"


# BullMQ lets a parent wait whose last child it swept away, and tells nobody; we do.
WAITS_AGAIN = r"post:events · #\d+( event| jobId| prev)?"
# BullMQ says that it cleaned nothing; and when it removes children first, that their parent waits,
# and is removed.
EVENT_LINES = r"\w+:events · .*"


async def pause_beside_6(sides: Sides) -> bool:
    """Where BullMQ 6 does not say that it is there, as it does not in these tests, waiting jobs are
    put aside for 5.
    """
    for prefix in (THEIRS, OURS):
        await sides.lane.client.hset(f"{prefix}:{QUEUE}:meta", "version", "bullmq:6.7.0")
    return await sides.inspector.pause(QUEUE)


def asked(operation: str, **arguments: Any) -> Operation:
    return lambda sides: sides.node(operation, THEIRS, **arguments)


def child(name: str, queue: str = QUEUE, **opts: Any) -> dict[str, Any]:
    return {"name": "child", "queueName": queue, "data": {}, "opts": {"jobId": name, **opts}}


def parent(queue: str, *children: dict[str, Any], **opts: Any) -> dict[str, Any]:
    made = {"name": "parent", "queueName": queue, "data": {}, "opts": {"jobId": "parent", **opts}}
    return {**made, "children": list(children)}


PLAIN = [{"jobId": "a"}, {"jobId": "b"}, {"jobId": "c"}]
MIXED = [
    *PLAIN,
    {"jobId": "p", "priority": 3},
    {"jobId": "q", "priority": 1},
    {"jobId": "d", "delay": LONG},
]
DELAYED = [{"jobId": "a", "delay": LONG}, {"jobId": "b", "delay": 2 * LONG}, {"jobId": "c"}]
HOUR = timedelta(hours=1)
NOTHING = timedelta(0)

CASES: dict[str, Case] = {
    "retry a failed job": Case(
        PLAIN,
        asked("retry", id="a", state="failed"),
        lambda sides: sides.inspector.retry(QUEUE, "a"),
        [FAILS],
    ),
    "retry a failed job from zero": Case(
        PLAIN,
        asked(
            "retry",
            id="a",
            state="failed",
            opts={"resetAttemptsMade": True, "resetAttemptsStarted": True},
        ),
        lambda sides: sides.inspector.retry(QUEUE, "a", reset=True),
        [FAILS],
    ),
    "retry a completed job": Case(
        PLAIN,
        asked("retry", id="a", state="completed"),
        lambda sides: sides.inspector.retry(QUEUE, "a"),
        [DONE, FAILS],
    ),
    "retry a prioritized job": Case(
        [{"jobId": "p", "priority": 3}, {"jobId": "q", "priority": 5}],
        asked("retry", id="p", state="failed"),
        lambda sides: sides.inspector.retry(QUEUE, "p"),
        [FAILS],
    ),
    "retry a lifo job": Case(
        [{"jobId": "a", "lifo": True}, {"jobId": "b"}, {"jobId": "c"}],
        asked("retry", id="a", state="failed"),
        lambda sides: sides.inspector.retry(QUEUE, "a"),
        [FAILS],
    ),
    "retry all failed": Case(
        PLAIN,
        asked("retry_all"),
        lambda sides: sides.inspector.retry_all_failed(QUEUE),
        [FAILS, DONE, FAILS],
    ),
    "retry none": Case(
        PLAIN, asked("retry_all"), lambda sides: sides.inspector.retry_all_failed(QUEUE)
    ),
    "retry a child that failed its parent": Case(
        [],
        asked("retry", id="a", state="failed"),
        lambda sides: sides.inspector.retry(QUEUE, "a"),
        [FAILS],
        tree=parent(OTHER, child("a", failParentOnFailure=True), child("b", delay=LONG)),
    ),
    "retry a child that its parent ignores": Case(
        [],
        asked("retry", id="a", state="failed"),
        lambda sides: sides.inspector.retry(QUEUE, "a"),
        [FAILS],
        tree=parent(OTHER, child("a", ignoreDependencyOnFailure=True), child("b", delay=LONG)),
    ),
    "retry a completed child": Case(
        [],
        asked("retry", id="a", state="completed"),
        lambda sides: sides.inspector.retry(QUEUE, "a"),
        [DONE],
        tree=parent(OTHER, child("a"), child("b", delay=LONG)),
    ),
    "promote": Case(
        DELAYED, asked("promote", id="b"), lambda sides: sides.inspector.promote(QUEUE, "b")
    ),
    "promote a prioritized job": Case(
        [{"jobId": "a", "delay": LONG, "priority": 2}],
        asked("promote", id="a"),
        lambda sides: sides.inspector.promote(QUEUE, "a"),
    ),
    "pause": Case(MIXED, asked("pause"), pause_beside_6),
    "concurrency": Case(
        PLAIN,
        asked("concurrency", value=3),
        lambda sides: sides.inspector.set_concurrency(QUEUE, 3),
    ),
    "rate limit": Case(
        PLAIN,
        asked("rate_limit", max=100, duration_ms=60_000),
        lambda sides: sides.inspector.set_rate_limit(QUEUE, 100, timedelta(minutes=1)),
    ),
    "remove a waiting job": Case(
        PLAIN, asked("remove", id="b"), lambda sides: sides.inspector.remove(QUEUE, "b")
    ),
    "remove a prioritized job": Case(
        MIXED, asked("remove", id="p"), lambda sides: sides.inspector.remove(QUEUE, "p")
    ),
    "remove a delayed job": Case(
        MIXED, asked("remove", id="d"), lambda sides: sides.inspector.remove(QUEUE, "d")
    ),
    "remove a failed job": Case(
        PLAIN,
        asked("remove", id="a"),
        lambda sides: sides.inspector.remove(QUEUE, "a"),
        [FAILS, DONE],
    ),
    "remove the owner of a deduplication id": Case(
        [{"jobId": "a", "deduplication": {"id": "one"}}, {"jobId": "b"}],
        asked("remove", id="a"),
        lambda sides: sides.inspector.remove(QUEUE, "a"),
    ),
    "remove a parent with its children": Case(
        [],
        asked("remove", id="parent"),
        lambda sides: sides.inspector.remove(QUEUE, "parent"),
        [DONE],
        tree=parent(
            QUEUE, child("a"), child("b"), child("c", OTHER, delay=LONG), child("d", priority=3)
        ),
        apart=EVENT_LINES,
    ),
    "remove one of two children": Case(
        [],
        asked("remove", id="a"),
        lambda sides: sides.inspector.remove(QUEUE, "a"),
        tree=parent(OTHER, child("a"), child("b")),
    ),
    "remove the last child": Case(
        [],
        asked("remove", id="a"),
        lambda sides: sides.inspector.remove(QUEUE, "a"),
        tree=parent(OTHER, child("a")),
    ),
    "remove the last child of a delayed and prioritized parent": Case(
        [],
        asked("remove", id="a"),
        lambda sides: sides.inspector.remove(QUEUE, "a"),
        tree=parent(OTHER, child("a"), delay=LONG, priority=2),
    ),
    "drain": Case(
        MIXED, asked("drain", delayed=False), lambda sides: sides.inspector.drain(QUEUE), [DONE], 1
    ),
    "drain with delayed": Case(
        MIXED,
        asked("drain", delayed=True),
        lambda sides: sides.inspector.drain(QUEUE, delayed=True),
    ),
    "drain the owner of a deduplication id": Case(
        [{"jobId": "a", "deduplication": {"id": "one"}}, {"jobId": "b"}],
        asked("drain", delayed=False),
        lambda sides: sides.inspector.drain(QUEUE),
    ),
    "drain the children of a parent elsewhere": Case(
        [],
        asked("drain", delayed=False),
        lambda sides: sides.inspector.drain(QUEUE),
        tree=parent(OTHER, child("a"), child("b")),
        apart=WAITS_AGAIN,
    ),
    "drain the children of a parent here": Case(
        [],
        asked("drain", delayed=False),
        lambda sides: sides.inspector.drain(QUEUE),
        tree=parent(QUEUE, child("a"), child("b")),
    ),
    "clean nothing": Case(
        PLAIN,
        asked("clean", age_ms=LONG, limit=0, state="failed"),
        lambda sides: sides.inspector.clean(QUEUE, "failed", HOUR),
        [FAILS],
        apart=EVENT_LINES,
    ),
    "clean failed": Case(
        PLAIN,
        asked("clean", age_ms=0, limit=0, state="failed"),
        lambda sides: sides.inspector.clean(QUEUE, "failed", NOTHING),
        [FAILS, FAILS, DONE],
    ),
    "clean a number of completed": Case(
        PLAIN,
        asked("clean", age_ms=0, limit=2, state="completed"),
        lambda sides: sides.inspector.clean(QUEUE, "completed", NOTHING, limit=2),
        [DONE, DONE, DONE],
    ),
    "clean waiting": Case(
        MIXED,
        asked("clean", age_ms=0, limit=0, state="wait"),
        lambda sides: sides.inspector.clean(QUEUE, "waiting", NOTHING),
    ),
    "clean delayed": Case(
        MIXED,
        asked("clean", age_ms=0, limit=0, state="delayed"),
        lambda sides: sides.inspector.clean(QUEUE, "delayed", NOTHING),
    ),
    "clean prioritized": Case(
        MIXED,
        asked("clean", age_ms=0, limit=0, state="prioritized"),
        lambda sides: sides.inspector.clean(QUEUE, "prioritized", NOTHING),
    ),
    "clean active, which is locked": Case(
        PLAIN,
        asked("clean", age_ms=0, limit=0, state="active"),
        lambda sides: sides.inspector.clean(QUEUE, "active", NOTHING),
        active=2,
        apart=EVENT_LINES,
    ),
    "clean the last child of a parent elsewhere": Case(
        [],
        asked("clean", age_ms=0, limit=0, state="wait"),
        lambda sides: sides.inspector.clean(QUEUE, "waiting", NOTHING),
        tree=parent(OTHER, child("a")),
        apart=WAITS_AGAIN,
    ),
    "clean the last child of a parent here": Case(
        [],
        asked("clean", age_ms=0, limit=0, state="wait"),
        lambda sides: sides.inspector.clean(QUEUE, "waiting", NOTHING),
        tree=parent(QUEUE, child("a")),
    ),
    "clean a failed child that its parent waits for": Case(
        [],
        asked("clean", age_ms=0, limit=0, state="failed"),
        lambda sides: sides.inspector.clean(QUEUE, "failed", NOTHING),
        [FAILS],
        tree=parent(OTHER, child("a")),
        apart=WAITS_AGAIN,
    ),
    "clean a failed child of a parent here": Case(
        [],
        asked("clean", age_ms=0, limit=0, state="failed"),
        lambda sides: sides.inspector.clean(QUEUE, "failed", NOTHING),
        [FAILS],
        tree=parent(QUEUE, child("a")),
    ),
    "clean a completed child": Case(
        [],
        asked("clean", age_ms=0, limit=0, state="completed"),
        lambda sides: sides.inspector.clean(QUEUE, "completed", NOTHING),
        [DONE],
        tree=parent(OTHER, child("a"), child("b")),
    ),
    "clean a parent that has done its work": Case(
        [],
        asked("clean", age_ms=0, limit=0, state="completed"),
        lambda sides: sides.inspector.clean(QUEUE, "completed", NOTHING),
        [DONE, DONE],
        tree=parent(QUEUE, child("a")),
    ),
}
