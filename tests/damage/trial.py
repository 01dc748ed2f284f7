"""One case at one concurrency: a worker on a damaged queue, watched from the layout to the end.

A `Watch` takes a snapshot of all queues that are worked on, again and again, and right after every
error that a script replies with: before its worker hears of it. So an id that is in no place
between an error and its repair is seen.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Protocol

import pytest

from corral.store.connection import Link
from corral.store.replies import NoScriptError, ResponseError
from corral.tasks import end_tasks
from damage.judge import (
    QUARANTINE,
    Fault,
    Snapshot,
    final_faults,
    misplaced,
    read_left,
    take_snapshots,
)
from damage.layout import GOOD, INNOCENTS, Layout
from damage.matrix import ROLES

__all__ = ["AS_ASKED", "Gate", "Hand", "Trial", "Watch", "watching"]

TICK_SECONDS = 0.01
"""Between two snapshots."""
AS_ASKED = "as the data says"
"""Part of the reason of a job that fails by itself."""
KEPT = {b"meta": "hash", b"repeat": "zset", b"id": "string"}
"""Keys that no ending takes away; an id of their name must not either."""
PARENT = b"1"
LOUD_LINES = 100
"""Warnings of one trial, of some thirty jobs: more is a flood."""


class Hand(Protocol):
    """A worker: ours, or BullMQ's."""

    async def start(self, trial: Trial) -> None:
        """Begin to work on the queue."""

    async def holds(self) -> Counter[str]:
        """The jobs whose processors wait at the gate."""

    async def open(self) -> None:
        """Let the processors go that wait at the gate."""

    def tells(self, key: str) -> bool:
        """Whether it reports this key as damaged; with an empty text, whether it reports any."""

    async def stop(self) -> list[str]:
        """Stop; what went wrong with the worker, in sentences."""


class Gate:
    """Where processors wait until the test has done its damage, and until then: until the victim is
    among them.

    Args:
        slots: How many processors run at once.
        victim: The job that must be among them; the first of the others leave before it is.
        closed: Whether anybody waits.
    """

    def __init__(self, slots: int, victim: str, *, closed: bool) -> None:
        self.inside: dict[str, asyncio.Event] = {}
        self._slots = slots
        self._victim = victim
        self._closed = closed

    async def enter(self, job: str) -> bool:
        """Wait; whether this job left before the gate was opened."""
        if not self._closed:
            return False
        event = self.inside[job] = asyncio.Event()
        if len(self.inside) >= self._slots and self._victim not in self.inside:
            next(iter(self.inside.values())).set()
        try:
            await event.wait()
        finally:
            del self.inside[job]
        return self._closed

    def open(self) -> None:
        """Let everybody go."""
        self._closed = False
        for event in self.inside.values():
            event.set()


class Trial:
    """A case on its queue, and what was seen of it.

    Args:
        layout: The case, not yet laid out.
        slots: The concurrency.
        seconds: How long anything may take.
    """

    def __init__(self, layout: Layout, slots: int, seconds: float) -> None:
        self.layout = layout
        self.case = case = layout.case
        self.slots = slots
        self.seconds = seconds
        self.faults: dict[tuple[str, bytes], Fault] = {}
        self.snapshot = Snapshot({})
        self.ran: Counter[str] = Counter()
        self._looked = asyncio.Event()
        near = ROLES if case.near is None else case.near
        self.innocents = [
            job.encode() for job in (*INNOCENTS, *(role for role in ROLES if role not in near))
        ]
        self.hurt = {role.encode(): self._names for role in near}
        self.key_words: list[bytes] = []
        self.ghosts: list[bytes] = []
        self.ignored: list[bytes] = []
        if case.intruder is not None:
            odd = case.intruder.id
            if case.ghost:
                self.ghosts.append(odd)
            elif case.key_word:
                self.key_words.append(odd)
            elif case.intruder.completes:
                self.innocents.append(odd)
            elif case.intruder.own == "job":
                self.hurt[odd] = []
            else:
                self.ignored.append(odd)

    @property
    def name(self) -> str:
        """The case's id and the concurrency."""
        return f"{self.case.id}@{self.slots}"

    @property
    def _names(self) -> list[str]:
        """What the reason of a job that was hurt must contain one of; nothing where a field was
        damaged.
        """
        if not self.case.replaces or self.case.more:
            return []
        key = self.case.key
        return [self.layout.key(key) if key.startswith("^") else key, AS_ASKED]

    @property
    def lost(self) -> int:
        """How many innocent jobs were in no place, or in two, at any moment."""
        return len(
            {
                job
                for kind, job in self.faults
                if kind in {"lost", "doubled"} and job in self.innocents
            }
        )

    @property
    def unfinished(self) -> int:
        """How many innocent jobs did not complete, those that were lost apart."""
        return len({job for kind, job in self.faults if kind == "stuck" and job in self.innocents})

    @property
    def completed(self) -> bool:
        """Whether all innocent jobs completed, and nothing was seen of any of them that must not
        be.
        """
        return not any(job in self.innocents for _, job in self.faults)

    @property
    def sentences(self) -> list[str]:
        """What is wrong, a line per kind: the first of its faults, and which jobs have the same."""
        kinds: dict[str, list[Fault]] = {}
        for fault in self.faults.values():
            kinds.setdefault(fault.kind, []).append(fault)
        return [
            f"{self.name}: {kind}: {first.text}"
            + (f"; and {len(same)} more: {_ids(same)}" if same else "")
            for kind, (first, *same) in kinds.items()
        ]

    def fault(self, kind: str, text: str, job: bytes = b"") -> None:
        """Note what is wrong; the first of a kind, per job."""
        self.faults.setdefault((kind, job), Fault(kind, job, text))

    def saw(self, own: Snapshot, up: Snapshot) -> None:
        """Judge one moment.

        Args:
            own: The queue.
            up: The parent's queue.
        """
        self.snapshot = own
        for fault in (*misplaced(own, [*self.innocents, *self.hurt]), *misplaced(up, [PARENT])):
            self.faults.setdefault((fault.kind, fault.job), fault)
        self._looked.set()

    async def until(self, condition: Callable[[], bool]) -> bool:
        """Wait for what a snapshot shows; whether it came."""
        deadline = time.monotonic() + self.seconds
        while (left := deadline - time.monotonic()) > 0:
            self._looked.clear()
            try:
                await asyncio.wait_for(self._looked.wait(), left)
            except TimeoutError:
                break
            if condition():
                return True
        return False

    def _settled(self) -> bool:
        """Whether everything has ended, well or not: what is in no place has ended, too."""
        ended = {"completed", "failed", QUARANTINE}
        places = self.snapshot.places
        jobs = (*self.innocents, *self.hurt, *self.key_words, *self.ghosts)
        return all(set(places.get(job, ())) <= ended for job in jobs)

    def _done(self, jobs: tuple[str, ...]) -> bool:
        return all(self.snapshot.places.get(job.encode()) == ("completed",) for job in jobs)

    async def run(self, hand: Hand, watch: Watch) -> None:
        """From the layout to the verdict."""
        await self.layout.lay_out()
        try:
            with watch.watched(self):
                try:
                    await hand.start(self)
                    await self._play(hand)
                finally:
                    for text in await hand.stop():
                        self.fault("worker", text)
            await self._judge()
        finally:
            await self.layout.clear()

    async def _play(self, hand: Hand) -> None:
        case, layout = self.case, self.layout
        if case.when == "held":
            await self._hold(hand)
            await layout.harm()
            await hand.open()
        if case.stops:
            if not await self.until(lambda: hand.tells(layout.key(case.key))):
                self.fault("unreported", f"the worker does not tell that {case.key} is damaged")
            await layout.repair()
        elif case.when == "held" and case.aside[0] in {"prioritized", "delayed"}:
            await self._give_back()
        await self.until(self._settled)
        await layout.add_good()
        if not await self.until(lambda: self._done(GOOD)):
            self.fault("worker", "jobs that were added in the end are not completed")
        if case.stops and not await self.until(lambda: not hand.tells("")):
            self.fault("unreported", f"the worker still tells that {case.key} is damaged")

    async def _give_back(self) -> None:
        """The jobs in what the test took away can only run once they are back."""
        deadline = time.monotonic() + self.seconds
        while not await self.layout.give_back():
            if time.monotonic() > deadline:
                return self.fault("worker", f"{self.case.key} is never put aside")
            self._looked.clear()
            await asyncio.wait_for(self._looked.wait(), self.seconds)
        return None

    def _may_start(self) -> bool:
        """Whether there are jobs that wait for a slot; the next iteration of the schedule is an
        hour away.
        """
        ready = {"wait", "prioritized", "delayed"}
        return any(
            ready.intersection(self.snapshot.places.get(job, ()))
            for job in (*self.innocents, *self.hurt)
        )

    async def _hold(self, hand: Hand) -> None:
        deadline = time.monotonic() + self.seconds
        while time.monotonic() < deadline:
            inside = await hand.holds()
            if self.case.victim in inside and (len(inside) == self.slots or not self._may_start()):
                return
            self._looked.clear()
            await asyncio.wait_for(self._looked.wait(), self.seconds)
        self.fault("worker", f"{self.case.victim} was not started")

    def heard(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Judge what the worker has logged.

        Args:
            lines: Those that name this trial's queue.
        """
        loud = [line for line in lines if line["log_level"] in {"warning", "error"}]
        if len(loud) > LOUD_LINES:
            self.fault("said", f"{len(loud)} warnings, such as {loud[-1]}")
        if (
            self.case.key.endswith((":lock", "active"))
            or self.ignored
            or any("stalled" in line["event"] for line in lines)
        ):
            return
        for line in lines:
            if "lock lost" in line["event"] and line["job_id"].encode() in self.innocents:
                self.fault("said", f"nobody had taken its lock: {line}", line["job_id"].encode())

    async def _judge(self) -> None:
        layout, case = self.layout, self.case
        left = await read_left(layout.client, layout.base, case.aside[0])
        sentences = final_faults(
            left,
            innocents=self.innocents,
            hurt=self.hurt,
            key_words=self.key_words,
            ghosts=self.ghosts,
            ignored=self.ignored,
        )
        up = await read_left(layout.client, layout.up, case.aside[1])
        sentences += final_faults(up, waiting=[PARENT])
        for fault in sentences:
            self.faults.setdefault((fault.kind, fault.job), fault)
        damaged = {name.encode() for name, _ in ((case.key, case.damage), *case.more)}
        for key, kind in KEPT.items():
            if key not in damaged and left.kinds.get(key) != kind:
                self.fault("taken", f"{key.decode()} is {left.kinds.get(key, 'gone')}", key)
        for job in (*self.key_words, *self.ghosts):
            if self.ran[job.decode(errors="replace")]:
                self.fault("ran", f"{job!r} was run", job)


def _ids(faults: Sequence[Fault]) -> str:
    return " ".join(fault.job.decode(errors="replace")[:20] for fault in faults)


class Watch:
    """Looks at all queues that are worked on.

    Args:
        client: An asyncio client that does not decode replies.

    Attributes:
        looks: How many snapshots were taken.
        errors: How many of them because a script had replied with an error.
    """

    def __init__(self, client: Any) -> None:
        self.looks = self.errors = 0
        self._client = client
        self._trials: list[Trial] = []

    @contextmanager
    def watched(self, trial: Trial) -> Iterator[None]:
        """Watch a trial that is laid out, until the context ends."""
        self._trials.append(trial)
        try:
            yield
        finally:
            self._trials.remove(trial)

    async def look(self) -> None:
        """Take one snapshot of all queues."""
        if not self._trials:
            return
        trials, queues = list(self._trials), []
        for trial in trials:
            layout = trial.layout
            queues += zip((layout.base, layout.up), trial.case.aside, strict=True)
        snapshots = await take_snapshots(self._client, queues)
        self.looks += 1
        for trial, own, up in zip(trials, snapshots[::2], snapshots[1::2], strict=True):
            if trial in self._trials:  # it may have ended while the script was on its way
                trial.saw(own, up)

    async def go_on(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(TICK_SECONDS)


@asynccontextmanager
async def watching(client: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watch]:
    """A `Watch` that looks as long as the context lasts, and after each error that a script replies
    with.
    """
    watch = Watch(client)
    call = Link.call

    async def call_and_look(link: Link, *command: Any, **how: Any) -> Any:
        try:
            return await call(link, *command, **how)
        except NoScriptError:
            raise  # nothing was run
        except ResponseError:
            watch.errors += 1
            await watch.look()
            raise

    with monkeypatch.context() as patching:
        patching.setattr(Link, "call", call_and_look)
        looking = asyncio.create_task(watch.go_on(), name="the watch of these trials")
        try:
            yield watch
        finally:
            await end_tasks([looking])
            if not looking.cancelled():
                looking.result()
