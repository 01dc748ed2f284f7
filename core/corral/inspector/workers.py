"""Who works, and at what: from the heartbeats of our workers, and from the connections of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from corral.catalog.record import parsed as parsed_record
from corral.errors import StoreUnavailable
from corral.fleet.heartbeats import LIVE_SECONDS, Heartbeat, Heartbeats
from corral.fleet.processes import ProcessRecords, host_of, store_time_ms
from corral.inspector.calls import Calls
from corral.inspector.stored import moment, number
from corral.loggers import Logger
from corral.store.clients import WorkerConnection, worker_connections
from corral.store.replies import ResponseError

__all__ = ["Running", "WorkerSeen", "processes_of", "state_of", "workers"]

log = Logger("corral.inspector")

LOOKS = 100
"""How many active jobs of a queue are looked at."""


@dataclass(frozen=True, slots=True)
class Running:
    """A job that is active.

    Attributes:
        queue: Its queue.
        job_id: Its id.
        name: BullMQ's job name.
        since: When it started.
        lock_for: How long its worker's lock still lives; None without one.
    """

    queue: str
    job_id: str
    name: str
    since: datetime | None
    lock_for: timedelta | None


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """A worker, or a parent of several.

    Attributes:
        name: Its name; empty where a worker of others has none.
        host: Where it runs: a host's name, or a network address; empty where that is not known.
        pid: Its process id there, or None.
        queues: What it works off.
        version: Corral's version, or the name and version of the client library of others; empty
        where not known.
        since: When it started, or connected.
        seen: When it was last at work; of others, when it last said anything.
        state: `working`, `draining` or `silent`; of a parent `complete`, `incomplete`, `draining`
            or `silent`; of others `connected`, or `unseen` where only the jobs it holds are known.
        kind: `corral`, or `other`: whatever else holds jobs or calls itself a worker of BullMQ.
        jobs: What it runs.
        troubles: What it says an operator must know, a sentence each.
    """

    name: str
    host: str
    pid: int | None
    queues: Sequence[str]
    version: str
    since: datetime | None
    seen: datetime | None
    state: str
    kind: Literal["corral", "other"]
    jobs: Sequence[Running]
    troubles: tuple[str, ...] = ()


async def workers(calls: Calls) -> Sequence[WorkerSeen]:
    """Who works, and at what: ours first, by name."""
    now_ms = await store_time_ms(calls.link)
    now = moment(now_ms) or datetime.now(UTC)
    async with calls.naming():
        heartbeats = await Heartbeats(calls.link, calls.prefix).read()
        records = await ProcessRecords(calls.link, calls.prefix, "").others()
    connections = await _connections(calls)
    active = await calls.of_each(lambda queue: _held(calls, queue), lambda _queue, _why: [])
    held = [job for jobs in active.values() for job in jobs]

    seen = [_ours(name, heartbeats, records.get(name, b""), now) for name in sorted(heartbeats)]
    others: dict[tuple[str, str], WorkerSeen] = {}
    for each in (each for each in connections if each.name not in heartbeats):
        key = each.name, each.host if each.name else each.address
        known = others.get(key) or _other(each, now)
        others[key] = replace(known, queues=sorted({*known.queues, each.queue}))
    return _with_jobs([*seen, *(others[key] for key in sorted(others))], held)


def state_of(name: str, heartbeats: Mapping[str, Heartbeat]) -> str:
    """The state of one of our workers, or parents of several, by the heartbeats of all; see
    `WorkerSeen`.
    """
    heartbeat = heartbeats[name]
    if heartbeat.seconds > LIVE_SECONDS:
        return "silent"
    if heartbeat.draining or not heartbeat.processes:
        return "draining" if heartbeat.draining else "working"
    return "complete" if processes_of(name, heartbeats) >= heartbeat.processes else "incomplete"


def processes_of(name: str, heartbeats: Mapping[str, Heartbeat]) -> int:
    """How many worker processes of a parent are at work."""
    return sum(
        heartbeat.seconds <= LIVE_SECONDS
        for child, heartbeat in heartbeats.items()
        if child.startswith(f"{name}.")
    )


def _ours(
    name: str, heartbeats: Mapping[str, Heartbeat], record: bytes, now: datetime
) -> WorkerSeen:
    heartbeat = heartbeats[name]
    records = parsed_record(record)
    since_ms = heartbeat.started_ms or min((each.time for each in records.values()), default=0)
    return WorkerSeen(
        name=name,
        host=host_of(name),
        pid=heartbeat.pid or None,
        queues=sorted(queue for queue, each in records.items() if each.role == "worker"),
        version=heartbeat.version,
        since=moment(since_ms or None),
        seen=now - timedelta(seconds=heartbeat.seconds),
        state=state_of(name, heartbeats),
        kind="corral",
        jobs=(),
        troubles=heartbeat.troubles,
    )


async def _connections(calls: Calls) -> Sequence[WorkerConnection]:
    """The connections of workers; none where the store does not tell this user of connections."""
    try:
        return await worker_connections(calls.link, calls.prefix, calls.catalog.entries)
    except (ResponseError, StoreUnavailable) as error:
        if "CLIENT LIST" not in calls.refused:
            calls.refused.add("CLIENT LIST")
            log.warning(
                "workers of other clients are not shown: the store refuses CLIENT LIST",
                error=str(error),
            )
        return []


def _other(each: WorkerConnection, now: datetime) -> WorkerSeen:
    since, said = now - timedelta(seconds=each.age), now - timedelta(seconds=each.idle)
    return WorkerSeen(
        each.name,
        each.host,
        None,
        [each.queue],
        each.library,
        since,
        said,
        "connected",
        "other",
        (),
    )


@dataclass(frozen=True, slots=True)
class _Held:
    """An active job, and what is stored of who runs it."""

    job: Running
    processed_by: str
    token: str


async def _held(calls: Calls, queue: str) -> Sequence[_Held]:
    held = []
    for *texts, lock_ms in await calls.run("running", queue, LOOKS):
        job_id, name, processed_on, processed_by, token = (
            each.decode(errors="replace") for each in texts
        )
        lock_for = timedelta(milliseconds=lock_ms) if lock_ms >= 0 else None
        job = Running(queue, job_id, name, moment(number(processed_on)), lock_for)
        held.append(_Held(job, processed_by, token))
    return held


def _with_jobs(seen: Sequence[WorkerSeen], held: Sequence[_Held]) -> Sequence[WorkerSeen]:
    """Give every active job to who runs it; who is not seen otherwise is seen by it."""
    jobs: list[list[Running]] = [[] for _ in seen]
    unseen: dict[str, list[Running]] = {}
    for each in held:
        place = _place(each, seen)
        (unseen.setdefault(each.processed_by, []) if place is None else jobs[place]).append(
            each.job
        )
    found = [replace(worker, jobs=theirs) for worker, theirs in zip(seen, jobs, strict=True)]
    for name, theirs in sorted(unseen.items()):
        queues = sorted({job.queue for job in theirs})
        found.append(WorkerSeen(name, "", None, queues, "", None, None, "unseen", "other", theirs))
    return found


def _place(held: _Held, seen: Sequence[WorkerSeen]) -> int | None:
    """Who runs a job: who wrote its name into it, or into the lock as ours do; one without a name,
    if there is one.
    """
    for name in filter(None, (held.processed_by, held.token.rpartition(":")[0])):
        for place, worker in enumerate(seen):
            if worker.name == name and (worker.kind == "corral" or held.job.queue in worker.queues):
                return place
    nameless = [
        place for place, each in enumerate(seen) if not each.name and held.job.queue in each.queues
    ]
    return nameless[0] if len(nameless) == 1 and not held.processed_by else None
