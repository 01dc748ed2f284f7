"""What a journal shows: which answers producers got, which starts there were, and how faults and
starts lie in time.

All of it is computed from the lines alone. What of it is a fault, `chaos.checker` decides.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from chaos.journal import Line

WORKER_KILLED, PRODUCER_KILLED, FROZEN = "worker killed", "producer killed", "worker frozen"
POWER_LOST, REPLICA_CUT_OFF = "power lost", "replica cut off"
LOSSES = {POWER_LOST, REPLICA_CUT_OFF}
"""Faults after which the store may have forgotten what it has acknowledged; a cut-off replica takes
over at the end.
"""
BLACK_HOLE, CUTS, DELAYS, PARTITION = (
    "black hole",
    "replies cut",
    "requests delayed",
    "worker partitioned",
)
NO_OUTAGES = {
    WORKER_KILLED,
    PRODUCER_KILLED,
    FROZEN,
    BLACK_HOLE,
    CUTS,
    DELAYS,
    PARTITION,
    REPLICA_CUT_OFF,
}
"""Faults of processes and of the network: while any other lasts, the store serves nobody."""
ITERATION = "repeat:"
"""What the ids of a schedule's jobs begin with: no producer enqueues them."""
TOUCHED_SECONDS = 1.0
"""How long after an outage due jobs may start: where the next outage begins before, they may start
after that one.
"""


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers that producers recorded for their jobs.

    Attributes:
        acked: When a job was acknowledged, Unix seconds, by id.
        unknown: Jobs that may have been written, those of killed producers included.
        refused: Jobs that certainly were not written.
    """

    acked: Mapping[str, float]
    unknown: frozenset[str]
    refused: frozenset[str]


@dataclass(slots=True)
class Execution:
    """One start, and what became of it.

    Attributes:
        id: The job.
        pid: The worker's process.
        fence: Of this start.
        began: Unix seconds.
        ended: Unix seconds.
        how: `end`, `raise`, `cancel`, `killed`, or `open` where the journal tells no end.
        has_effect: Whether its effect was written.
    """

    id: str
    pid: int
    fence: tuple[int, ...]
    began: float
    ended: float
    how: str = "open"
    has_effect: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """A fault.

    Attributes:
        name: Which.
        pid: The process it was done to, or 0.
        begin: Unix seconds.
        end: Unix seconds.
    """

    name: str
    pid: int
    begin: float
    end: float


def answers(lines: Sequence[Line]) -> Answers:
    """The answers that producers recorded, from the lines of a journal."""
    acked = {line.id: line.at for line in lines if line.event == "enq.ok"}
    refused = frozenset(line.id for line in lines if line.event == "enq.fail")
    invoked = {line.id for line in lines if line.event == "enq.invoke"}
    return Answers(acked, frozenset(invoked - acked.keys() - refused), refused)


def spans(lines: Sequence[Line]) -> list[Span]:
    """All faults; one that was not ended lasts to the last line."""
    open_: dict[tuple[str, int], float] = {}
    found: list[Span] = []
    for line in lines:
        if line.event == "fault.begin":
            open_[line.id, line.pid] = line.at
        elif line.event == "fault.end":
            found.append(Span(line.id, line.pid, open_.pop((line.id, line.pid)), line.at))
    return [*found, *(Span(name, pid, begin, lines[-1].at) for (name, pid), begin in open_.items())]


def outages(lines: Sequence[Line]) -> list[Span]:
    """The faults in which the store serves nobody."""
    return [each for each in spans(lines) if each.name not in NO_OUTAGES]


def losses(lines: Sequence[Line]) -> list[Span]:
    """The faults in which the store may have forgotten what it did, and what it had done shortly
    before.
    """
    return [each for each in spans(lines) if each.name in LOSSES]


def executions(lines: Sequence[Line]) -> list[Execution]:
    """All starts, in order."""
    found: list[Execution] = []
    running: dict[tuple[int, str, tuple[int, ...]], Execution] = {}
    for line in lines:
        key = (line.pid, line.id, line.fence)
        match line.event:
            case "start":
                running[key] = Execution(line.id, line.pid, line.fence, line.at, lines[-1].at)
                found.append(running[key])
            case "effect" if key in running:
                running[key].has_effect = True
            case "end" | "raise" | "cancel" if key in running:
                ended = running.pop(key)
                ended.ended, ended.how = line.at, line.event
            case "fault.begin" if line.id == WORKER_KILLED:
                for other in [each for each in running if each[0] == line.pid]:
                    ended = running.pop(other)
                    ended.ended, ended.how = line.at, "killed"
    return found


def extra_starts(lines: Sequence[Line]) -> int:
    """How many starts there were beyond the first of each job and one for each time that it failed."""
    starts = Counter(line.id for line in lines if line.event == "start")
    raised = Counter(line.id for line in lines if line.event == "raise")
    return sum(max(0, count - 1 - raised[job]) for job, count in starts.items())


def overlaps(lines: Sequence[Line]) -> dict[str, float]:
    """For how many seconds two starts of a job ran at once, by job; a frozen process does not run."""
    frozen = [each for each in spans(lines) if each.name == FROZEN]
    by_job: defaultdict[str, list[Execution]] = defaultdict(list)
    for each in executions(lines):
        by_job[each.id].append(each)
    found: dict[str, float] = {}
    for job, starts in by_job.items():
        for place, one in enumerate(starts):
            for other in starts[place + 1 :]:
                begin, end = max(one.began, other.began), min(one.ended, other.ended)
                still = [each for each in frozen if each.pid in {one.pid, other.pid}]
                seconds = _without(begin, end, still)
                if seconds > 0:
                    found[job] = found.get(job, 0.0) + seconds
    return found


def _without(begin: float, end: float, gaps: Sequence[Span]) -> float:
    """How long an interval is without the gaps in it, which do not overlap each other."""
    return end - begin - sum(max(0.0, min(end, gap.end) - max(begin, gap.begin)) for gap in gaps)


def kills(lines: Sequence[Line]) -> Counter[str]:
    """What each kill hit, by the number of its test in the reliability page's list: R-01 to R-06."""
    hit: Counter[str] = Counter()
    holds = {(line.pid, line.id): line.where for line in lines if line.event == "hold"}
    answered = {line.id for line in lines if line.event in {"enq.ok", "enq.fail", "enq.unknown"}}
    killed = [each for each in executions(lines) if each.how == "killed"]
    for line in lines:
        if line.event != "fault.begin":
            continue
        if line.id == PRODUCER_KILLED:
            sent = {
                each.id for each in lines if each.event == "enq.invoke" and each.pid == line.pid
            }
            hit.update(["R-06 after send"] if sent - answered else [])
        if line.id == WORKER_KILLED:
            kinds = {
                "R-03 effect" if each.has_effect else "R-02 running"
                for each in killed
                if each.pid == line.pid
            }
            held = {where for (pid, _), where in holds.items() if pid == line.pid}
            kinds |= {name for where, name in HELD.items() if where in held}
            hit.update(kinds or {"R-01 idle"})
    return hit


HELD = {"fetched": "R-04 unstarted", "failing": "R-05 failing"}


def recoveries(lines: Sequence[Line]) -> list[float]:
    """Seconds from each fault until work went on.

    After a killed worker: until each of its jobs is started again, as far as it is. After an
    outage: until anybody starts a job. After a black hole: until each worker that was at work
    starts a job again, or until the journal ends.
    """
    starts = [line for line in lines if line.event == "start"]
    found: list[float] = []
    for each in spans(lines):
        if each.name == WORKER_KILLED:
            found += _restarts(lines, starts, each)
        elif each.name == BLACK_HOLE:
            alive = {line.pid for line in starts if line.at < each.begin}
            for pid in alive:
                after = [line.at for line in starts if line.pid == pid and line.at > each.begin]
                found.append((after[0] if after else lines[-1].at) - each.begin)
        elif each.name not in NO_OUTAGES:
            found += [line.at - each.end for line in starts if line.at > each.end][:1]
    return found


def acceptances(lines: Sequence[Line]) -> list[float]:
    """Seconds from the end of each outage until a producer's job was acknowledged."""
    acked = [line.at for line in lines if line.event == "enq.ok"]
    return [
        min(after) - each.end
        for each in outages(lines)
        if (after := [at for at in acked if at > each.end])
    ]


def _restarts(lines: Sequence[Line], starts: Sequence[Line], kill: Span) -> Iterator[float]:
    held = {each.id for each in executions(lines) if each.how == "killed" and each.pid == kill.pid}
    held |= {line.id for line in lines if line.event == "hold" and line.pid == kill.pid}
    for job in held:
        yield from [
            line.at - kill.begin for line in starts if line.id == job and line.at > kill.begin
        ][:1]


def lateness(lines: Sequence[Line], due: Mapping[str, float]) -> dict[str, float]:
    """How late each job started, in seconds, by job; negative: too early.

    Args:
        lines: The journal.
        due: When jobs were due, Unix seconds. What is due in an outage is due at its end.
    """
    first: dict[str, float] = {}
    for line in lines:
        if line.event == "start":
            first.setdefault(line.id, line.at)
    away = sorted(outages(lines), key=lambda each: each.begin)
    found: dict[str, float] = {}
    for job, moment in due.items():
        if job not in first:
            continue
        can_start = moment
        for each in away:
            if each.begin - TOUCHED_SECONDS <= can_start < each.end:
                can_start = min(each.end, max(can_start, first[job]))
        found[job] = first[job] - can_start
    return found


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so large a share is not above; 0 of none."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)] if values else 0.0
