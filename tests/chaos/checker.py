"""What must hold of a queue when every fault is over and every job has ended, as a function of what is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
    """

    places: Mapping[str, Sequence[str]]
    jobs: Mapping[str, Mapping[str, str]]
    locks: Collection[str]


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
    return Snapshot(places, jobs, [key.removesuffix(":lock") for key in keys if key.endswith(":lock")])


def faults(left: Sequence[Snapshot], enqueued: Collection[str], lines: Sequence[Line]) -> list[str]:
    """What is wrong, one sentence each; nothing where every job ran to its end and no trace of a fault is left.

    Args:
        left: The queues.
        enqueued: The ids that producers were told are written.
        lines: What the processors wrote down.
    """
    known = Counter(job for each in left for job in each.jobs)
    told = [f"{job} is lost" for job in enqueued if job not in known]
    told += [f"{job} was never enqueued" for job in known.keys() - set(enqueued)]
    for each in left:
        told += [*_misplaced(each), *_unfinished(each), *_miscounted(each, lines)]
    return told


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


def _miscounted(left: Snapshot, lines: Sequence[Line]) -> Iterator[str]:
    """A job starts once, and once more for each time that it was found without its worker: never without a reason.

    The store counts a fetch as a start, one whose job was handed back unstarted as well.
    """
    starts = Counter(line.id for line in lines if line.event == "start")
    fences = Counter((line.id, line.fence) for line in lines if line.event == "start" and line.fence)
    yield from (f"{job} started {count} times as {fence}" for (job, fence), count in fences.items() if count > 1)
    ends = {line.id for line in lines if line.event == "end"}
    for job in left.places["completed"]:
        fields = left.jobs.get(job, {})
        counted, stalls = int(fields.get("ats", 0)), int(fields.get("stc", 0))
        if job not in ends:
            yield f"{job} is completed and never ran to its end"
        if counted < 1 + stalls:
            yield f"{job} was fetched {counted} times and stalled {stalls} times"
        if starts[job] > 1 + stalls:  # fewer are in order: a worker may be killed before its processor's first line
            yield f"{job} ran {starts[job]} times and stalled {stalls} times"
