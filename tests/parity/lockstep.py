"""Runs a program on both sides, step by step, and says where they part."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from corral.store.codec import Advanced, Ending, FetchedJob
from corral.store.connection import Link, ThreadLink
from corral.store.queue_store import Note, QueueStore
from parity.keyspace import Entry, differences, read
from parity.lane import Lane
from parity.programs import TICK_MS, Program
from parity.spelling import (
    OURS,
    THEIRS,
    as_theirs,
    declared,
    json_text,
    new_job,
    outcome,
    summary,
    their_summary,
)

QUEUE, ELSEWHERE = "work", "elsewhere"
WORKER = "worker-1"
START_MS = 1_800_000_005_000
"""5 s into a minute, and so is each later step: metrics count by minutes, and no step is near the
edge of one.
"""
SLOWEST_SECONDS = 3.5
"""Our clock runs on from the program's start; after 4 s a time could be in another slot than
Node's.
"""
STALLED_INTERVAL_MS = 30_000
GONE = {-1, -2, -3, -6}
"""Codes after which a run has nothing more to say about its job."""


class TooSlow(Exception):
    """The machine took so long over one program that the two clocks disagree; running it again may
    do.
    """


class Parted(Exception):
    """The sides answered one step differently, or ours broke a promise of its own."""


@dataclass(slots=True)
class Verdict:
    """What running one program showed.

    Attributes:
        parted: What the sides answered differently and in which step, or None.
        entries: What is different afterwards and must not be.
        allowed: How many entries each allowed exception explained.
        operations: How many steps were done.
        jobs: How many runs of jobs were ended.
        repeats: How many of our calls were made twice.
    """

    parted: str | None = None
    entries: list[Entry] = field(default_factory=list)
    allowed: Counter[str] = field(default_factory=Counter)
    operations: int = 0
    jobs: int = 0
    repeats: int = 0

    @property
    def differs(self) -> bool:
        """Whether anything was found."""
        return self.parted is not None or bool(self.entries)


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One start of a job, as both sides know it."""

    handle: int
    their_token: str
    job: FetchedJob


async def verdict(program: Program, lane: Lane, sides: type[Lockstep] | None = None) -> Verdict:
    """Run a program on an empty server; again, should the machine be too slow for it.

    Args:
        program: What to run.
        lane: Where; what it leaves stays there until the next program.
        sides: Another way to take the steps, for the tests of the tests.
    """
    for _ in range(3):
        await lane.client.flushall()
        try:
            return await (sides or Lockstep)(program, lane).run()
        except TooSlow:
            continue
    raise TooSlow(f"three times over {SLOWEST_SECONDS} s: {program}")


class Lockstep:
    """One program on both sides."""

    def __init__(self, program: Program, lane: Lane) -> None:
        self.program = program
        self.client = lane.client
        self.node = lane.node
        self.verdict = Verdict()
        self.link = Link(lane.url)
        self.leases = ThreadLink(lane.url, 5)
        self.store = QueueStore(self.link, OURS, QUEUE, options=declared(program.retention))
        self.now_ms = START_MS
        self.began_ms = int(time.time() * 1000)
        self.runs: list[Run] = []
        self.lost: set[int] = set()
        self.ids: list[str] = []
        self.seq = 0
        self.limited = False
        self.signalled = True

    async def run(self) -> Verdict:
        """Do every step, then compare everything that is left."""
        program, found = self.program, self.verdict
        await self.node.ask(
            "open", self.now_ms, prefix=THEIRS, queue=QUEUE, worker=WORKER, **program.retention
        )
        try:
            for number, step in enumerate(program.steps, 1):
                self.now_ms += TICK_MS
                self.store.clock.offset_ms = self.now_ms - self.began_ms
                try:
                    await getattr(self, f"_{step.operation}")(**step.arguments)
                    await self._work_is_signalled()
                except Parted as parted:
                    found.parted = f"step {number}: {parted}"
                    break
                found.operations += 1
            found.entries = differences(
                await read(self.client, THEIRS), await read(self.client, OURS), found.allowed
            )
            strangers = [key async for key in self.client.scan_iter() if not key.startswith(_KNOWN)]
            if strangers:
                raise AssertionError(f"keys of nobody: {strangers}")
        finally:
            await self.node.ask("close", self.now_ms)
            await self.link.close()
            self.leases.close()
        if time.time() - self.began_ms / 1000 > SLOWEST_SECONDS:
            raise TooSlow
        return found

    # What the steps do; each has the name of a step.

    async def _add(self, jobs: Sequence[dict[str, Any]]) -> None:
        if not jobs:
            return
        theirs = [
            {"name": job["name"], "data": job["data"], "opts": job["opts"] | {"jobId": job["id"]}}
            for job in jobs
        ]
        await self.node.ask("add", self.now_ms, prefix=THEIRS, queue=QUEUE, jobs=theirs)
        known = set(self.ids)
        ours = [new_job(job, f"nonce {len(self.ids) + at}") for at, job in enumerate(jobs)]
        self.ids += [job["id"] for job in jobs]
        created = await self.store.add(ours)
        expected = [
            job.id not in known and job.id not in {one.id for one in ours[:at]}
            for at, job in enumerate(ours)
        ]
        # an id may be free again: its job was finished and not kept
        _same(
            "created",
            [flag for flag, new in zip(created, expected, strict=True) if new],
            [True] * sum(expected),
        )
        # a second try of an id that is somebody else's is one more attempt at it, and counts as one
        again = [job for job, flag in zip(ours, created, strict=True) if flag is True]
        if again:
            before = await self._digest()
            _same("repeated add", await self.store.add(again), [True] * len(again))
            await self._unchanged(before, "add")

    async def _advance(self, ends: Sequence[tuple[int, dict[str, Any]]], want: int) -> None:
        chosen = self._choose(ends)
        theirs = await self.node.ask(
            "advance",
            self.now_ms,
            want=want,
            endings=[
                {"handle": run.handle, "outcome": as_theirs(wanted)} for run, wanted in chosen
            ],
        )
        if want:  # an idle worker has taken the marker
            await self.client.zrem(f"{OURS}:{QUEUE}:marker", "0")
        endings = [Ending(run.job, outcome(run.job, wanted)) for run, wanted in chosen]
        self.seq += 1
        ours = await self.store.advance(WORKER, self.seq, endings, want)
        before = await self._digest()
        again = await self.store.advance(WORKER, self.seq, endings, want)
        await self._unchanged(before, "advance")
        _same("repeated advance", _stable_reply(again), _stable_reply(ours))
        _same("codes", list(ours.codes), theirs["codes"])
        _same(
            "fetched",
            [summary(job) for job in ours.jobs],
            [their_summary(job) for job in theirs["jobs"]],
        )
        self.verdict.jobs += len(chosen)
        over = {
            run.handle
            for (run, _), code in zip(chosen, ours.codes, strict=True)
            if code == 0 or code in GONE
        }
        fetched = [
            Run(their["handle"], their["token"], job)
            for their, job in zip(theirs["jobs"], ours.jobs, strict=True)
        ]
        # BullMQ gives a job it fetches while finishing another the other's token, which may be this
        # job's old one: its late ending would be taken for the new run's
        reused = {(run.job.id, run.their_token) for run in fetched}
        self.runs = [
            run
            for run in self.runs
            if run.handle not in over and (run.job.id, run.their_token) not in reused
        ] + fetched
        if want:  # who finds less than it wants knows why: nothing there, a limit, a pause
            self.signalled = len(ours.jobs) == want

    async def _foreign_add(self, jobs: Sequence[dict[str, Any]]) -> None:
        theirs, ours = await self._by_node("add", queue=QUEUE, jobs=jobs)
        _same("ids", ours, theirs)
        self.ids += theirs

    async def _flow(
        self,
        id: str,  # noqa: A002  # the name of the option in BullMQ
        elsewhere: bool,
        opts: dict[str, Any],
        children: Sequence[dict[str, Any]],
    ) -> None:
        tree = {
            "name": "parent",
            "queueName": ELSEWHERE if elsewhere else QUEUE,
            "data": {},
            "opts": opts | {"jobId": id},
            "children": [
                {
                    "name": "child",
                    "queueName": QUEUE,
                    "data": {},
                    "opts": child["opts"] | {"jobId": child["id"]},
                }
                for child in children
            ],
        }
        await self._by_node("flow", tree=tree)
        self.ids += [child["id"] for child in children] + ([] if elsewhere else [id])

    async def _child(self, pick: int, id: str, opts: dict[str, Any]) -> None:  # noqa: A002  # as above
        """A job that is running gets a child."""
        if not self.runs:
            return
        parent = self.runs[pick % len(self.runs)].job.id
        for prefix in (THEIRS, OURS):
            own = opts | {"jobId": id, "parent": {"id": parent, "queue": f"{prefix}:{QUEUE}"}}
            job = {"name": "child", "data": {}, "opts": own}
            if await self.client.exists(f"{prefix}:{QUEUE}:{parent}"):
                await self.node.ask(
                    "add", self._now(prefix), prefix=prefix, queue=QUEUE, jobs=[job]
                )
        self.ids.append(id)

    async def _extend(self, picks: Sequence[int], lock_ms: int) -> None:
        runs = self._picked(picks)
        if not runs:
            return
        theirs = await self.node.ask(
            "extend", self.now_ms, handles=[run.handle for run in runs], lock_ms=lock_ms
        )
        leases = [(run.job.id, run.job.token) for run in runs]
        ours, _ = await asyncio.to_thread(self.store.extend, self.leases, leases, lock_ms)
        _same("lost locks", {leases[place][0] for place in ours}, set(theirs))

    async def _lose_locks(self, picks: Sequence[int]) -> None:
        """What a worker that died looks like, once its locks have run out."""
        for run in self._picked(picks):
            self.lost.add(run.handle)
            for prefix in (THEIRS, OURS):
                await self.client.delete(f"{prefix}:{QUEUE}:{run.job.id}:lock")

    async def _stalled(self) -> None:
        for prefix in (THEIRS, OURS):
            await self.client.delete(f"{prefix}:{QUEUE}:stalled-check")
        await self.node.ask("stalled", self.now_ms)
        async with asyncio.timeout(5):
            while not await self.client.exists(f"{THEIRS}:{QUEUE}:stalled-check"):  # noqa: ASYNC110  # Node writes it
                await asyncio.sleep(0.001)
        await self.store.check_stalled(STALLED_INTERVAL_MS, 1)
        before = await self._digest()
        _same(
            "a second check", (await self.store.check_stalled(STALLED_INTERVAL_MS, 1)).job_ids, []
        )
        await self._unchanged(before, "check_stalled")

    async def _crash(self, picks: Sequence[int]) -> None:
        """A worker dies with some of its jobs: marked, their locks run out, found."""
        await self._stalled()
        await self._lose_locks(picks)
        await self._stalled()

    async def _pause(self) -> None:
        await self._by_node("pause", queue=QUEUE)

    async def _resume(self) -> None:
        await self._by_node("resume", queue=QUEUE)

    async def _concurrency(self, value: int | None) -> None:
        await self._by_node("concurrency", queue=QUEUE, value=value)
        self.signalled = False  # a limit that is raised wakes nobody, here or there

    async def _rate_limit(self, max: int | None, duration_ms: int) -> None:  # noqa: A002  # as above
        await self._by_node("rate_limit", queue=QUEUE, max=max, duration_ms=duration_ms)
        self.limited = max is not None
        if max is None:
            await self._window_ends()

    async def _window_ends(self) -> None:
        await self.client.delete(f"{THEIRS}:{QUEUE}:limiter", f"{OURS}:{QUEUE}:limiter")
        await self.node.ask("window_ends", self.now_ms)

    async def _jump(self, by_ms: int) -> None:
        self.now_ms += by_ms

    async def _progress(self, pick: int, value: Any) -> None:
        if not self.ids:
            return
        job_id = self.ids[pick % len(self.ids)]
        await self.node.ask(
            "progress", self.now_ms, prefix=THEIRS, queue=QUEUE, id=job_id, value=value
        )
        await self.store.note([Note(job_id, "p", json_text(value))])

    async def _log(self, pick: int, lines: Sequence[str], keep: int) -> None:
        if not self.ids:
            return
        job_id = self.ids[pick % len(self.ids)]
        await self.node.ask(
            "log", self.now_ms, prefix=THEIRS, queue=QUEUE, id=job_id, lines=lines, keep=keep
        )
        await self.store.note([Note(job_id, "l", line, keep) for line in lines])

    # How they do it.

    def _now(self, prefix: str) -> int:
        """The time for Node: frozen in its own key space, running in ours, so that our clock never
        goes back.
        """
        return (
            self.now_ms
            if prefix == THEIRS
            else self.now_ms + int(time.time() * 1000) - self.began_ms
        )

    async def _by_node(self, operation: str, **arguments: Any) -> tuple[Any, Any]:
        """What only other clients do in this version, they do in both key spaces."""
        theirs = await self.node.ask(operation, self.now_ms, prefix=THEIRS, **arguments)
        ours = await self.node.ask(operation, self._now(OURS), prefix=OURS, **arguments)
        return theirs, ours

    def _picked(self, picks: Sequence[int]) -> list[Run]:
        left = list(self.runs)
        return [left.pop(pick % len(left)) for pick in picks[: len(left)]]

    def _choose(
        self, ends: Sequence[tuple[int, dict[str, Any]]]
    ) -> list[tuple[Run, dict[str, Any]]]:
        """Which run ends how. What both sides cannot do the same way is made a plain hand-back."""
        chosen: list[tuple[Run, dict[str, Any]]] = []
        for run, (_, wanted) in zip(self._picked([pick for pick, _ in ends]), ends, strict=False):
            end = dict(wanted)
            if end["kind"] == "rate_limit" and not self.limited:
                end = {
                    "kind": "hand_back"
                }  # Node looks at a manual limit only where there is another
            if run.job.deferred_failure and end["kind"] in {"complete", "fail"}:
                end = {
                    "kind": "fail",
                    "reason": run.job.deferred_failure,
                    "final": True,
                    "delay_ms": 0,
                }
            if end["kind"] == "fail":
                end["traceback"] = f"Error: {end['reason']}\n    at work"
            chosen.append((run, end))
        # runs that lost their job are refused; last, they would keep BullMQ from fetching in the
        # same step
        return sorted(chosen, key=lambda pair: pair[0].handle not in self.lost)

    async def _digest(self) -> bytes:
        """One number for everything in the store but the times at which keys expire."""
        return bytes(await self.client.execute_command("DEBUG", "DIGEST"))  # type: ignore[no-untyped-call]  # redis leaves it untyped

    async def _unchanged(self, before: bytes, call: str) -> None:
        self.verdict.repeats += 1
        if await self._digest() != before:
            raise Parted(f"a repeated {call} changed the store")

    async def _work_is_signalled(self) -> None:
        """Wire 5.4: who waits for the marker must not sleep on while there is work that may be
        taken.
        """
        if not self.signalled:
            return
        base = f"{OURS}:{QUEUE}:"
        async with self.client.pipeline(transaction=False) as pipe:
            pipe.hmget(f"{base}meta", "paused", "concurrency")
            pipe.llen(f"{base}active")
            pipe.zscore(f"{base}marker", "0")
            pipe.exists(f"{base}wait", f"{base}prioritized")
            (paused, concurrency), active, marker, work = await pipe.execute()
        blocked = paused is not None or (concurrency is not None and active >= int(concurrency))
        if work and not blocked and marker is None:
            raise Parted("there is work and nothing blocks it, but no marker wakes an idle worker")


NOT_COMPARED = (
    "a manual rate limit where the queue has none of its own: Corral waits, BullMQ does not (T18)",
    "a second add of an id that belongs to another job, repeated: counted as one more attempt",
    "a late ending under a token that BullMQ has used again: Corral's tokens are never used twice",
    "a queue that declares no retention: Corral's jobs have none in opts, and its default holds",
)
"""Where the sides differ by design, and programs do not go. The first is shown by a story."""

_KNOWN = (
    f"{THEIRS}:".encode(),
    f"{OURS}:".encode(),
    f"corral:{OURS}:{QUEUE}:call:{WORKER}".encode(),
    f"corral:{OURS}:{QUEUE}:attempts".encode(),
    f"corral:{OURS}:{QUEUE}:reasons:".encode(),
)


def _stable_reply(advanced: Advanced) -> tuple[Any, ...]:
    """What a repeated call must answer again.

    The time until more is due depends on the moment of the call.
    """
    return list(advanced.codes), [
        (summary(job), job.token, job.processed_ms) for job in advanced.jobs
    ]


def _same(what: str, ours: Any, theirs: Any) -> None:
    if ours != theirs:
        raise Parted(f"{what}\n    BullMQ  {theirs}\n    Corral  {ours}")
