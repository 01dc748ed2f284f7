"""Programs: what both sides are made to do. Plain data from a seed, printable, and smaller on
request.

A step names jobs and runs by position, never by what a store answered: whatever is dropped from a
program, the rest still means something. This module knows no store.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Any

BATCHES = (1, 2, 7, 50)
OPERATIONS = 30

SECOND = 1000
TICK_MS = 10 * SECOND
"""How far the clock moves with each step."""
MARGIN_MS = 5 * SECOND
"""Delays are odd multiples of this: nothing falls due within 5 s of a step, however slow the
machine.
"""
PARENT_DELAY_MS = 26 * SECOND
"""A released parent has no place of its own among the jobs of one millisecond (wire 5.2), so it
must not share one.
"""
LONGEST_LIMIT_MS = 60 * SECOND
"""Rate limits live on the server's own clock, so they outlast every program; a step of their own
ends them.
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One operation and its arguments, all of them JSON."""

    operation: str
    arguments: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.operation} {json.dumps(self.arguments, ensure_ascii=False)}"


@dataclass(frozen=True, slots=True)
class Program:
    """What one seed makes.

    Attributes:
        seed: Makes this program again, before it was shrunk.
        batch: How many jobs are added, ended and fetched at once, at most.
        retention: What holds for jobs that carry none: `removeOnComplete` and `removeOnFail`.
        steps: Done in order, the clock moving between them.
    """

    seed: int
    batch: int
    retention: dict[str, dict[str, int]]
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        head = f"seed {self.seed}, batches of {self.batch}, retention {json.dumps(self.retention)}"
        return "\n".join(
            [head, *(f"  {number:2} {step}" for number, step in enumerate(self.steps, 1))]
        )


def generate(seed: int, batch: int) -> Program:
    """The program of a seed: always the same one."""
    rng = Random(seed * 1000 + batch)  # programs must be the same again, not secret
    return _Author(rng, batch).program(seed)


class _Author:
    """Draws one program."""

    def __init__(self, rng: Random, batch: int) -> None:
        self.rng = rng
        self.batch = batch
        self.names = 0
        self.operations: dict[str, tuple[int, Callable[[], dict[str, Any]]]] = {
            # how often, and what
            "add": (26, self.add),
            "advance": (50, self.advance),
            "foreign_add": (9, self.foreign_add),
            "flow": (5, self.flow),
            "child": (6, self.child),
            "extend": (3, self.extend),
            "lose_locks": (4, self.picks),
            "stalled": (5, dict),
            "crash": (6, self.picks),
            "pause": (2, dict),
            "resume": (8, dict),
            "concurrency": (4, self.concurrency),
            "rate_limit": (4, self.rate_limit),
            "window_ends": (7, dict),
            "jump": (5, self.jump),
            "progress": (3, self.progress),
            "log": (3, self.log),
        }

    def program(self, seed: int) -> Program:
        retention = {
            "removeOnComplete": self.rng.choice(
                [{"age": 86400, "count": 1000}, {"count": 4}, {"age": 65}]
            ),
            "removeOnFail": self.rng.choice(
                [{"age": 604800}, {"count": 2}, {"age": 35, "count": 3}]
            ),
        }
        kinds = list(self.operations)
        weights = [self.operations[kind][0] for kind in kinds]
        drawn = self.rng.choices(kinds, weights, k=OPERATIONS - 2)
        steps = [Step(kind, self.operations[kind][1]()) for kind in ["add", "advance", *drawn]]
        return Program(seed, self.batch, retention, tuple(steps))

    def add(self) -> dict[str, Any]:
        return {"jobs": [self.job() for _ in range(self.some())]}

    def job(self) -> dict[str, Any]:
        """A job as Corral adds it, its options under BullMQ's API names."""
        rng = self.rng
        duplicate = self.names and rng.random() < 0.06
        return {
            "id": f"j{rng.randrange(self.names)}" if duplicate else self.name("j"),
            "name": rng.choice(["report", "mail"]),
            "data": rng.choice(
                [{}, {"n": rng.randrange(9)}, {"text": 'a/b "é" \u2028'}, [1, [], None], "x", 0]
            ),
            "opts": self.options(),
        }

    def options(self) -> dict[str, Any]:
        rng = self.rng
        kept = [
            True,
            False,
            0,
            1,
            3,
            {"count": 2},
            {"age": 25},
            {"age": 45, "count": 2},
            {"age": 15, "limit": 1},
        ]
        opts: dict[str, Any] = {}
        if rng.random() < 0.25:
            opts["delay"] = self.delay()
        if rng.random() < 0.25:
            opts["priority"] = rng.choice([1, 2, 2, 3, 2_097_151])
        if rng.random() < 0.15:
            opts["lifo"] = True
        if rng.random() < 0.6:
            opts["attempts"] = rng.choice([1, 2, 3, 4])
        if rng.random() < 0.5:
            opts["backoff"] = rng.choice(
                [
                    {"type": "fixed", "delay": self.delay()},
                    {"type": "exponential", "delay": self.delay()},
                    {"type": "custom"},
                ]
            )
        if rng.random() < 0.3:
            opts["removeOnComplete"] = rng.choice(kept)
        if rng.random() < 0.3:
            opts["removeOnFail"] = rng.choice(kept)
        if rng.random() < 0.1:
            opts["stackTraceLimit"] = rng.choice([0, 1, 2])
        if rng.random() < 0.1:
            opts["keepLogs"] = 2
        return opts

    def advance(self) -> dict[str, Any]:
        ends = [[self.pick(), self.outcome()] for _ in range(self.some(least=0))]
        return {"ends": ends, "want": self.some(least=0)}

    def outcome(self) -> dict[str, Any]:
        rng = self.rng
        kind = rng.choices(
            ["complete", "fail", "fail_for_good", "snooze", "hand_back", "rate_limit"],
            [50, 22, 6, 8, 8, 4],
        )[0]
        if kind == "complete":
            return {"kind": kind, "value": rng.choice([None, 7, "done", {"a": ["é/"]}, [], False])}
        if kind in {"fail", "fail_for_good"}:
            reason = f"boom {rng.randrange(100)}"
            # the delay is for jobs whose backoff is custom: the processor said when to try again
            delay = rng.choice([0, self.delay()])
            final = kind == "fail_for_good"
            return {"kind": "fail", "reason": reason, "final": final, "delay_ms": delay}
        if kind == "snooze":
            return {"kind": kind, "delay_ms": self.delay()}
        return {"kind": kind, "delay_ms": LONGEST_LIMIT_MS}

    def foreign_add(self) -> dict[str, Any]:
        """Jobs that only a Node producer can make: ids from the counter, deduplication."""
        return {"jobs": [self.foreign_job() for _ in range(min(self.some(), 4))]}

    def foreign_job(self) -> dict[str, Any]:
        rng = self.rng
        opts = self.options()
        mode = rng.choice(
            [
                None,
                {},
                {"ttl": 3_600_000},
                {"ttl": 3_600_000, "extend": True},
                {"ttl": 3_600_000, "replace": True},
                {"keepLastIfActive": True},
            ]
        )
        if mode is not None:
            opts["deduplication"] = {"id": rng.choice(["same", "same", "other"]), **mode}
        return {"name": "foreign", "data": {"n": rng.randrange(9)}, "opts": opts}

    def flow(self) -> dict[str, Any]:
        rng = self.rng
        parent = {key: value for key, value in self.options().items() if rng.random() < 0.5}
        if "delay" in parent:
            parent["delay"] = PARENT_DELAY_MS
        children = [
            {"id": self.name("c"), "opts": self.options() | self.policy()}
            for _ in range(rng.randint(1, 3))
        ]
        # a parent in another queue is not worked by anybody: it shows what happens there
        return {
            "id": self.name("p"),
            "elsewhere": rng.random() < 0.3,
            "opts": parent,
            "children": children,
        }

    def child(self) -> dict[str, Any]:
        opts = self.policy() | (self.options() if self.rng.random() < 0.5 else {})
        return {"pick": self.pick(), "id": self.name("c"), "opts": opts}

    def policy(self) -> dict[str, Any]:
        policies = [
            "failParentOnFailure",
            "continueParentOnFailure",
            "ignoreDependencyOnFailure",
            "removeDependencyOnFailure",
        ]
        return {self.rng.choice(policies): True} if self.rng.random() < 0.7 else {}

    def extend(self) -> dict[str, Any]:
        return self.picks() | {"lock_ms": 60_000}

    def picks(self) -> dict[str, Any]:
        return {"picks": [self.pick() for _ in range(self.some())]}

    def concurrency(self) -> dict[str, Any]:
        return {"value": self.rng.choice([None, None, 1, self.some(), self.batch + 1])}

    def rate_limit(self) -> dict[str, Any]:
        limit = self.rng.choice([None, None, 1, self.some(), 2 * self.batch])
        return {"max": limit, "duration_ms": LONGEST_LIMIT_MS}

    def jump(self) -> dict[str, Any]:
        return {"by_ms": self.rng.choice([20, 60, 600, 7200, 86_400]) * SECOND}

    def progress(self) -> dict[str, Any]:
        return {"pick": self.pick(), "value": self.rng.choice([50, {"done": 1}, "half", True])}

    def log(self) -> dict[str, Any]:
        lines = [f"line {self.rng.randrange(9)}" for _ in range(self.rng.randint(1, 3))]
        return {"pick": self.pick(), "lines": lines, "keep": self.rng.choice([0, 2])}

    def name(self, letter: str) -> str:
        name = f"{letter}{self.names}"
        self.names += 1
        return name

    def some(self, least: int = 1) -> int:
        """How many at once: mostly as many as a batch holds."""
        return self.batch if self.rng.random() < 0.5 else self.rng.randint(least, self.batch)

    def pick(self) -> int:
        """Chooses one of whatever there is to choose from when the step is done."""
        return self.rng.randrange(1_000_000)

    def delay(self) -> int:
        return MARGIN_MS * self.rng.choice([1, 3, 5, 9, 121])


Differs = Callable[[Program], Awaitable[bool]]


async def shrink(program: Program, differs: Differs, *, most_runs: int = 400) -> Program:
    """A smaller program that still differs: fewer steps, then less in each of them, then plainer
    jobs.

    Args:
        program: One that differs.
        differs: Runs a program.
        most_runs: How many smaller programs are tried at most.
    """
    left = most_runs

    async def still(smaller: Program) -> bool:
        nonlocal left
        left -= 1
        return left >= 0 and await differs(smaller)

    async def less(items: list[Any], rebuilt: Callable[[list[Any]], Program]) -> list[Any]:
        """Drop what is not needed: large pieces first, then smaller ones."""
        size = max(len(items) // 2, 1)
        while size and left > 0:
            at = len(items)
            while at > 0 and left > 0:
                fewer = items[: max(at - size, 0)] + items[at:]
                if await still(rebuilt(fewer)):
                    items = fewer
                at -= size
            size //= 2
        return items

    steps = await less(list(program.steps), lambda steps: replace(program, steps=tuple(steps)))
    program = replace(program, steps=tuple(steps))
    for at, name in [
        (at, name) for at, step in enumerate(program.steps) for name in step.arguments
    ]:
        items = program.steps[at].arguments[name]
        if isinstance(items, list):
            rebuilt = partial(_with, program, at, name)
            program = rebuilt(await less(items, rebuilt))
        if isinstance(items, list) and name == "jobs":
            items = program.steps[at].arguments[name]
            for index, job in enumerate(items):
                options = partial(_with_options, program, at, index)
                program = options(await less(list(job["opts"]), options))
    return program


def _with(program: Program, at: int, name: str, value: Any) -> Program:
    step = program.steps[at]
    cut = Step(step.operation, step.arguments | {name: value})
    return replace(program, steps=(*program.steps[:at], cut, *program.steps[at + 1 :]))


def _with_options(program: Program, at: int, index: int, names: list[str]) -> Program:
    jobs = list(program.steps[at].arguments["jobs"])
    jobs[index] = jobs[index] | {"opts": {name: jobs[index]["opts"][name] for name in names}}
    return _with(program, at, "jobs", jobs)
