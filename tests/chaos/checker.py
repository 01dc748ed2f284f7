"""What must hold of a queue when every fault is over and every job has ended, as a function of what
is left.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chaos import history
from chaos.journal import Line

LISTS = ("wait", "paused", "active")
SORTED_SETS = ("prioritized", "delayed", "waiting-children", "completed", "failed")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One queue at rest.

    Attributes:
        places: The ids in each container.
        jobs: The fields of each job, by id.
        locks: The ids of the jobs that are locked.
        counted: What BullMQ's own counts of `completed` and `failed` say.
        events: The length of the event stream.
        max_events: Where it is cut, approximately.
    """

    places: Mapping[str, Sequence[str]]
    jobs: Mapping[str, Mapping[str, str]]
    locks: Collection[str]
    counted: Mapping[str, int] = field(default_factory=dict)
    events: int = 0
    max_events: int = 10_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the faults of a run account for.

    Attributes:
        extra_starts: How often jobs may have started beyond once, and once for each failure, all
        together.
        lost_seconds: How long before one of `history.LOSSES` begins an acknowledgement may be that
            is lost; what is acknowledged while it lasts (until the store is dead or the replica
            takes over) may be lost as well; 0: none may be lost.
        set_back_seconds: How far back the store is set then: what started since may start anew; 0:
        nothing may.
        overlap_seconds: How long two starts of one job may run at once; None: not bounded.
        late_seconds: How late all but one of a hundred due jobs may start; None: not bounded.
    """

    extra_starts: int = 0
    lost_seconds: float = 0.0
    set_back_seconds: float = 0.0
    overlap_seconds: float | None = None
    late_seconds: float | None = None


EARLY_SECONDS = 0.1
"""How early a due job may seem to start: clocks are read by several processes, one of them the
store's.
"""
EVENTS_BEYOND = 100
"""An approximate cut of a stream removes whole nodes, of so many entries."""


async def snapshot(client: Any, base: str) -> Snapshot:
    """Read a queue that nobody works on.

    Args:
        client: An asyncio client that decodes replies.
        base: `<prefix>:<queue>:`.
    """
    places = {name: await client.lrange(base + name, 0, -1) for name in LISTS}
    places |= {name: await client.zrange(base + name, 0, -1) for name in SORTED_SETS}
    keys = [key.removeprefix(base) async for key in client.scan_iter(match=f"{base}*", count=1000)]
    names = [key for key in keys if ":" not in key and key != "meta"]
    kinds = [await client.type(base + name) for name in names]
    ids = [name for name, kind in zip(names, kinds, strict=True) if kind == "hash"]
    jobs = {job: await client.hgetall(base + job) for job in ids}
    ended = ("completed", "failed")
    counted = {
        name: int(await client.hget(f"{base}metrics:{name}", "count") or 0) for name in ended
    }
    return Snapshot(
        places,
        jobs,
        [key.removesuffix(":lock") for key in keys if key.endswith(":lock")],
        counted,
        await client.xlen(f"{base}events"),
        int(await client.hget(f"{base}meta", "opts.maxLenEvents") or 10_000),
    )


def faults(
    left: Sequence[Snapshot],
    enqueued: Collection[str],
    lines: Sequence[Line],
    *,
    excused: Collection[str] = (),
) -> list[str]:
    """What is wrong, one sentence each; nothing where every job ran to its end and no trace of a
    fault is left.

    Args:
        left: The queues.
        enqueued: The ids of the jobs whose enqueue was acknowledged.
        lines: What the processors wrote down.
        excused: Jobs whose starts are not counted.
    """
    known = Counter(job for each in left for job in each.jobs)
    violations = [f"{job} is lost" for job in enqueued if job not in known]
    violations += [f"{job} was never enqueued" for job in known.keys() - set(enqueued)]
    for each in left:
        violations += [*_misplaced(each), *_unfinished(each), *_miscounted(each, lines, excused)]
    return violations


def run_faults(left: Snapshot, lines: Sequence[Line], bounds: Bounds) -> list[str]:
    """What is wrong after a run whose producers recorded the answers they got, one sentence each.

    Args:
        left: The queue. All of its jobs are `fenced`, and none was removed.
        lines: The whole journal.
        bounds: What the run's faults account for.
    """
    answers = history.answers(lines)
    losses = history.losses(lines)
    # jobs of which the store has forgotten that they started, or that they ended
    excused = {line.id for line in lines if _is_forgotten(line.at, losses, bounds.set_back_seconds)}
    expected = {
        job
        for job, at in answers.acked.items()
        if job in left.jobs or not _is_forgotten(at, losses, bounds.lost_seconds)
    }
    known = expected | (answers.unknown & left.jobs.keys())
    return [
        *faults([left], known, [line for line in lines if line.id not in excused], excused=excused),
        *_invented(left, answers, lines),
        *_doubled(lines, excused, bounds),
        *_unfenced(left, lines, excused),
        *_late(left, lines, bounds),
        *_unbounded(left),
        *_dishonest(left),
    ]


def _is_forgotten(moment: float, losses: Sequence[history.Span], seconds: float) -> bool:
    """Whether the store may have forgotten what it did at a moment; `seconds`: for how long before
    a loss it may.
    """
    return seconds > 0 and any(each.begin - seconds < moment <= each.end for each in losses)


def _invented(left: Snapshot, answers: history.Answers, lines: Sequence[Line]) -> Iterator[str]:
    """What producers were certainly refused is nowhere, and nothing runs that no producer wanted to
    write.
    """
    started = {
        line.id
        for line in lines
        if line.event == "start" and not line.id.startswith(history.ITERATION)
    }
    yield from (
        f"{job} was refused and is there" for job in sorted(answers.refused & left.jobs.keys())
    )
    yield from (f"{job} was refused and started" for job in sorted(answers.refused & started))
    invented = started - answers.acked.keys() - answers.unknown - answers.refused
    yield from (f"{job} started and was never enqueued" for job in sorted(invented))


def _doubled(lines: Sequence[Line], excused: Collection[str], bounds: Bounds) -> Iterator[str]:
    extra = history.extra_starts([line for line in lines if line.id not in excused])
    if extra > bounds.extra_starts:
        yield f"{extra} extra starts, and the faults account for {bounds.extra_starts}"
    if bounds.overlap_seconds is not None:
        for job, seconds in history.overlaps(lines).items():
            if seconds > bounds.overlap_seconds and job not in excused:
                yield f"two starts of {job} ran at once for {seconds:.2f} s"


def sink(lines: Sequence[Line]) -> tuple[dict[str, tuple[int, ...]], int]:
    """What a place holds that takes effects in the order of the journal and refuses those of a
    lower fence.

    Returns:
        The fence of each job's effect, and how many effects were refused.
    """
    kept: dict[str, tuple[int, ...]] = {}
    refused = 0
    for line in lines:
        if line.event == "effect":
            if line.fence < kept.get(line.id, ()):
                refused += 1
            else:
                kept[line.id] = line.fence
    return kept, refused


def _unfenced(left: Snapshot, lines: Sequence[Line], excused: Collection[str]) -> Iterator[str]:
    """The result that the store has is of the start whose effect the sink has: one writer has won,
    in both.
    """
    kept, _ = sink(lines)
    for job in left.places["completed"]:
        result = left.jobs.get(job, {}).get("returnvalue")
        if job in kept and job not in excused and result != str(kept[job][-1]):
            yield f"{job} has the result of start {result} and the effect of start {kept[job][-1]}"


def due(left: Snapshot) -> dict[str, float]:
    """When each delayed job was due, Unix seconds, by the store's clock."""
    delays = {
        job: json.loads(fields.get("opts", "{}")).get("delay", 0)
        for job, fields in left.jobs.items()
    }
    return {
        job: (int(left.jobs[job]["timestamp"]) + delay) / 1000
        for job, delay in delays.items()
        if delay
    }


def late_seconds(left: Snapshot, lines: Sequence[Line]) -> float:
    """Within how many seconds 99 of 100 due jobs started.

    Those that stalled are left out: they had been fetched, and how soon they run again is a bound
    of its own (I11).
    """
    late = history.lateness(lines, due(left))
    return history.percentile([by for job, by in late.items() if "stc" not in left.jobs[job]], 0.99)


def _late(left: Snapshot, lines: Sequence[Line], bounds: Bounds) -> Iterator[str]:
    late = history.lateness(lines, due(left))
    yield from (
        f"{job} started {-by:.2f} s too early" for job, by in late.items() if by < -EARLY_SECONDS
    )
    most = late_seconds(left, lines)
    if bounds.late_seconds is not None and most > bounds.late_seconds:
        yield f"of 100 due jobs, 99 started within {most:.2f} s, not {bounds.late_seconds:g} s"


def _unbounded(left: Snapshot) -> Iterator[str]:
    if left.events > left.max_events + EVENTS_BEYOND:
        yield f"the event stream has {left.events} entries, and is cut at {left.max_events}"


def _dishonest(left: Snapshot) -> Iterator[str]:
    for name, count in left.counted.items():
        if count != len(left.places[name]):
            yield f"{count} jobs are counted as {name}, and there are {len(left.places[name])}"


def tick_faults(lines: Sequence[Line], period_ms: int) -> list[str]:
    """What is wrong with a schedule that ran all the time: a tick twice, a tick missing, a tick off
    its time.

    A tick's job that is fetched again, because its lock was lost, is an extra start as any other
    job's.

    Args:
        lines: The journal.
        period_ms: Between ticks.
    """
    started = (
        line for line in lines if line.event == "start" and line.id.startswith(history.ITERATION)
    )
    starts = Counter((line.id, line.fence) for line in started)
    ticks = sorted({int(job.rpartition(":")[2]) for job, _ in starts})
    found = [f"{job} started {count} times" for (job, _), count in starts.items() if count > 1]
    gaps = [later - earlier for earlier, later in itertools.pairwise(ticks)]
    found += [
        f"{gap} ms lie between two ticks, not {period_ms}" for gap in gaps if gap != period_ms
    ]
    return found if ticks else ["the schedule never ran"]


def _misplaced(left: Snapshot) -> Iterator[str]:
    places = Counter(job for ids in left.places.values() for job in ids)
    yield from (f"{job} is in no place" for job in left.jobs if job not in places)
    yield from (f"{job} is in a place and has no fields" for job in places if job not in left.jobs)
    yield from (f"{job} is in {count} places" for job, count in places.items() if count > 1)
    yield from (f"{job} is locked" for job in left.locks)


def _unfinished(left: Snapshot) -> Iterator[str]:
    for name, ids in left.places.items():
        if name != "completed":
            yield from (f"{job} is in {name}" for job in ids)


def _miscounted(left: Snapshot, lines: Sequence[Line], excused: Collection[str]) -> Iterator[str]:
    """A job starts once, and once more for each time that it failed or was found without its
    worker: no more.

    The store counts a fetch as a start, one whose job was handed back unstarted as well.
    """
    starts = Counter(line.id for line in lines if line.event == "start")
    fences = Counter(
        (line.id, line.fence) for line in lines if line.event == "start" and line.fence
    )
    yield from (
        f"{job} started {count} times as {fence}"
        for (job, fence), count in fences.items()
        if count > 1
    )
    raised = Counter(line.id for line in lines if line.event == "raise")
    ends = {line.id for line in lines if line.event == "end"}
    for job in left.places["completed"]:
        if job in excused:
            continue
        fields = left.jobs.get(job, {})
        counted, stalls = int(fields.get("ats", 0)), int(fields.get("stc", 0))
        if job not in ends:
            yield f"{job} is completed and never ran to its end"
        if counted < 1 + stalls:
            yield f"{job} was fetched {counted} times and stalled {stalls} times"
        # Fewer are in order: a worker may be killed before its processor's first line.
        if starts[job] > 1 + stalls + raised[job]:
            yield f"{job} ran {starts[job]} times and stalled {stalls} times"
