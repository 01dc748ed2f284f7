"""The rows of the table, section by section: what is measured, beside which goal. How, the modules
below say.

Goals are BullMQ for Node's figure times a number, unless they have a unit of their own. Floors, as
far as they are known, were found by a prototype and by counting instructions; a native module would
be needed to reach them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.backlog import drain_rates
from bench.commands import CommandFigures, measure_commands
from bench.frameworks import OURS, measure_frameworks
from bench.peer import ONE_AT_A_TIME
from bench.pick_up import pick_ups
from bench.rounds import Bench, Figures, Load, Taken
from bench.table import Goal, Group, Row, best_of

NODE = "BullMQ for Node"
FRAMEWORKS_GOAL = Goal(11, is_least=True)
FLAT = Goal(0.9, is_least=True)
"""Of the rate with few jobs waiting; the rounds of one length differ by as much."""

AT_100 = Load(20_000, callers=100)
AT_10 = Load(8_000, concurrency=10)
AT_1 = Load(2_500, callers=1, concurrency=1, is_pinned=True)
AT_100_JEMALLOC = Load(20_000, has_jemalloc=True)
ORDERS = Load(12_000, kind="order")
SHORT = Load(12_000, kind="short")
FLAKY = Load(8_000, kind="flaky", is_retried=True)
THREADED = Load(6_000, kind="threaded", is_ours_alone=True)
BULK = Load(30_000, concurrency=0)


def least(bound: float) -> Goal:
    """At least so many times the peer's figure."""
    return Goal(bound, is_least=True)


def most(bound: float, unit: str) -> Goal:
    """At most so much, whatever the peer needs."""
    return Goal(bound, is_least=False, of_ratio=False, unit=unit)


@dataclass(frozen=True, slots=True)
class LoadRow:
    """A row about one figure of a load; `key`, `name`, `goal` and `floor` are those of `Row`.

    Attributes:
        load: What is measured.
        figure: Which of its figures.
        case: The case of `bench.instructions` that stands beside it.
    """

    key: str
    name: str
    load: Load
    figure: Callable[[Figures], float]
    goal: Goal | None = None
    floor: str = ""
    case: str = ""

    def row(self, bench: Bench) -> Row:
        """Measure it."""
        taken: Taken = bench.take(self.load)
        return Row(
            key=self.key,
            name=self.name,
            ours=[self.figure(each) for each in taken.ours],
            theirs=[self.figure(each) for each in taken.theirs],
            goal=self.goal,
            floor=self.floor,
            instructions=bench.instructions.get(self.case),
            note=taken.note,
        )


def drained(figures: Figures) -> float:
    """Jobs drained per second."""
    return figures.drained


def added(figures: Figures) -> float:
    """Jobs added per second."""
    return figures.added


DRAIN = (
    LoadRow("drain 100", "no-op, concurrency 100", AT_100, drained, least(2.4), "~4x", "drain 50"),
    LoadRow(
        "drain 100 jemalloc",
        "  the same, jemalloc in the store",
        AT_100_JEMALLOC,
        drained,
        least(2.2),
    ),
    LoadRow("drain 10", "no-op, concurrency 10", AT_10, drained, least(1.4), "", "drain 10"),
    LoadRow("drain 1", "no-op, concurrency 1, pinned", AT_1, drained, least(1.0), "", "drain 1"),
    LoadRow("drain 1 KB", "validated 1 KB of ten fields, 100", ORDERS, drained, least(2.0)),
    LoadRow("drain 1 ms", "1 ms of waiting, 100", SHORT, drained, least(1.3)),
    LoadRow("drain flaky", "fails once, retried at once, 100", FLAKY, drained),
    LoadRow("drain def", "no-op as a `def` on a thread, 100", THREADED, drained),
)
ADD = (
    LoadRow("add bulk", "1,000 with each call", BULK, added, least(2.4), "~100 k/s", "add 500"),
    LoadRow(
        "add 100",
        "100 callers, one at a time each",
        AT_100,
        added,
        least(1.4),
        "~100 k/s",
        "add 50",
    ),
    LoadRow("add 1", "one at a time, pinned", AT_1, added, least(0.9), "", "add 1"),
    LoadRow("add 1 KB", "1,000 of 1 KB with each call", ORDERS, added),
)
CPU = (
    LoadRow(
        "store CPU",
        "store, a job's whole life at 100",
        AT_100,
        lambda figures: figures.life_us,
        Goal(0.42, is_least=False),
        "0.25x",
    ),
    LoadRow(
        "worker CPU",
        "worker, the same without adding it",
        AT_100,
        lambda figures: figures.worker_us,
        None,
        "~9 µs",
    ),
)


def drain_section(bench: Bench) -> Group:
    """How fast jobs that wait are worked off."""
    return Group(f"drain, jobs/s (peer: {NODE})", [each.row(bench) for each in DRAIN])


def add_section(bench: Bench) -> Group:
    """How fast jobs are written."""
    return Group(f"add, jobs/s (peer: {NODE})", [each.row(bench) for each in ADD])


def cpu_section(bench: Bench) -> Group:
    """What a job costs both processes."""
    return Group(f"CPU, µs per no-op job (peer: {NODE})", [each.row(bench) for each in CPU])


def pick_up_section(bench: Bench) -> Group:
    """How soon an idle worker starts a job."""
    taken = pick_ups(bench)
    goals = {"p50": most(1.0, " ms"), "p99": most(2.5, " ms")}
    rows = [
        Row(f"pick-up {name}", name, taken.ours[name], taken.theirs.get(name, ()), goal)
        for name, goal in goals.items()
    ]
    return Group(f"an idle worker starts a job after, ms (peer: {NODE})", rows)


def backlog_section(bench: Bench) -> Group:
    """Whether a long queue is a slow one: each rate beside that of the shortest."""
    rates = drain_rates(bench)
    (shortest, first), *longer = rates.items()
    rows = [Row(f"backlog {shortest}", f"{shortest:,} wait all the time", first)]
    rows += [
        Row(f"backlog {length}", f"{length:,} wait all the time", taken, first, FLAT)
        for length, taken in longer
    ]
    notes = [
        "append-only file off; no-op, concurrency 100; all rounds at one length, then the next"
    ]
    return Group("drain of a long queue, jobs/s (peer: Corral at the shortest)", rows, notes)


def command_section(bench: Bench) -> Group:
    """What processes cost before they do anything."""
    taken: CommandFigures = measure_commands(bench)
    if taken.note:
        return Group("commands", [], [f"not measured: {taken.note}"])
    rows = [
        Row(
            "worker MiB",
            "idle worker with six plugins, RSS in MiB",
            taken.worker_mib,
            (),
            most(70, " MiB"),
        ),
        Row(
            "worker ready",
            "`corral worker`: all six queues wait, s",
            taken.ready_seconds,
            (),
            most(0.5, " s"),
        ),
        Row("enqueue", "`corral enqueue`, s", taken.enqueue_seconds, (), most(0.2, " s")),
    ]
    return Group("commands (Corral alone)", rows)


def framework_section(bench: Bench) -> Group:
    """The fastest Python peers, drained in the same rounds."""
    if bench.is_alone:
        return Group("Python frameworks", [], ["not measured: Corral alone was asked for"])
    taken, notes = measure_frameworks(bench)
    ours = taken.pop(OURS)
    best = best_of(taken)
    best_at_100 = best_of(
        {name: rates for name, rates in taken.items() if name not in ONE_AT_A_TIME}
    )
    rows = [Row("", f"beside {name}", ours, rates) for name, rates in taken.items()]
    rows += [
        Row("best Python", f"the fastest: {best}", ours, taken[best], FRAMEWORKS_GOAL),
        Row(
            "best Python at 100",
            f"of 100 at once: {best_at_100}",
            ours,
            taken[best_at_100],
            FRAMEWORKS_GOAL,
        ),
    ]
    return Group("drain no-op at 100, jobs/s (peer: other Python frameworks)", rows, notes)


Section = Callable[[Bench], Group]
SECTIONS: dict[str, Section] = {
    "drain": drain_section,
    "add": add_section,
    "cpu": cpu_section,
    "pick-up": pick_up_section,
    "backlog": backlog_section,
    "commands": command_section,
    "python": framework_section,
}
"""By the name that `--only` takes, in the order of the table."""
