"""The workers and the jobs that they run.

Corral's workers are known by their heartbeats, other clients' workers by their connections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from corral.catalog.record import parsed as parsed_record
from corral.errors import StoreUnavailable
from corral.fleet.processes import (
    LIVE_SECONDS,
    ProcessRecord,
    ProcessRecords,
    host_of,
    store_time_ms,
)
from corral.inspector.queue_access import QueueAccess
from corral.inspector.stored_job import datetime_from_ms, parse_number
from corral.loggers import Logger
from corral.store.clients import WorkerConnection, worker_connections
from corral.store.replies import ResponseError

__all__ = ["RunningJob", "WorkerStatus", "count_processes", "read_workers", "worker_state"]

log = Logger("corral.inspector")

LOOKS = 100
"""How many active jobs of each queue are read."""


@dataclass(frozen=True, slots=True)
class RunningJob:
    """An active job.

    Attributes:
        queue: Its queue's name.
        job_id: Its id.
        name: BullMQ's job name.
        since: When it started.
        lock_for: How long until its worker's lock expires; None if it has no lock.
    """

    queue: str
    job_id: str
    name: str
    since: datetime | None
    lock_for: timedelta | None


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker, or the parent process of several workers.

    Attributes:
        name: Its name; empty if it is another client's worker without a name.
        host: A host's name or a network address; empty if not known.
        pid: Its process id on that host, or None.
        queues: The names of the queues that it serves.
        version: Corral's version; of another client, the name and version of its library; empty if
            not known.
        since: When it started; of another client, when it connected.
        seen: When it last fetched or ran jobs; of another client, when it last used its connection.
        state: `working`, `draining` or `silent`; of a parent `complete`, `incomplete`, `draining`
            or `silent`; of another client `connected`, or `unseen` if only its jobs are known.
        kind: `corral`, or `other`: any other client that holds jobs or is connected as a worker.
        jobs: The jobs that it runs.
        troubles: Problems that it reports to the operator, one sentence each.
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
    jobs: Sequence[RunningJob]
    troubles: tuple[str, ...] = ()


async def read_workers(access: QueueAccess) -> Sequence[WorkerStatus]:
    """Read all workers and their jobs: Corral's workers first, by name."""
    now_ms = await store_time_ms(access.link)
    now = datetime_from_ms(now_ms) or datetime.now(UTC)
    async with access.report_damage():
        records = await ProcessRecords(access.link, access.prefix).read()
    heartbeats = {name: record for name, record in records.items() if record.gives_heartbeats}
    connections = await _read_connections(access)
    active = await access.read_each(
        lambda queue: _read_active_jobs(access, queue), lambda _queue, _problem: []
    )
    jobs = [job for found in active.values() for job in found]

    own = [_corral_worker(name, heartbeats, now) for name in sorted(heartbeats)]
    others: dict[tuple[str, str], WorkerStatus] = {}
    for each in (each for each in connections if each.name not in heartbeats):
        key = each.name, each.host if each.name else each.address
        known = others.get(key) or _other_worker(each, now)
        others[key] = replace(known, queues=sorted({*known.queues, each.queue}))
    return _assign_jobs([*own, *(others[key] for key in sorted(others))], jobs)


def worker_state(name: str, heartbeats: Mapping[str, ProcessRecord]) -> str:
    """The state of a Corral worker or parent, from the heartbeats of all; see `WorkerStatus`."""
    heartbeat = heartbeats[name]
    if heartbeat.seconds > LIVE_SECONDS:
        return "silent"
    if heartbeat.draining or not heartbeat.processes:
        return "draining" if heartbeat.draining else "working"
    return "complete" if count_processes(name, heartbeats) >= heartbeat.processes else "incomplete"


def count_processes(name: str, heartbeats: Mapping[str, ProcessRecord]) -> int:
    """How many worker processes of a parent have a recent heartbeat."""
    return sum(
        heartbeat.seconds <= LIVE_SECONDS
        for child, heartbeat in heartbeats.items()
        if child.startswith(f"{name}.")
    )


def _corral_worker(
    name: str, heartbeats: Mapping[str, ProcessRecord], now: datetime
) -> WorkerStatus:
    heartbeat = heartbeats[name]
    records = parsed_record(heartbeat.catalog)
    since_ms = heartbeat.started_ms or min((each.time for each in records.values()), default=0)
    return WorkerStatus(
        name=name,
        host=host_of(name),
        pid=heartbeat.pid or None,
        queues=sorted(queue for queue, each in records.items() if each.role == "worker"),
        version=heartbeat.version,
        since=datetime_from_ms(since_ms or None),
        seen=now - timedelta(seconds=heartbeat.seconds),
        state=worker_state(name, heartbeats),
        kind="corral",
        jobs=(),
        troubles=heartbeat.troubles,
    )


async def _read_connections(access: QueueAccess) -> Sequence[WorkerConnection]:
    """Read the connections of workers; none if the store's user may not run CLIENT LIST."""
    try:
        return await worker_connections(access.link, access.prefix, access.catalog.entries)
    except (ResponseError, StoreUnavailable) as error:
        if "CLIENT LIST" not in access.refused:
            access.refused.add("CLIENT LIST")
            log.warning(
                "workers of other clients are not shown: the store refuses CLIENT LIST",
                error=str(error),
            )
        return []


def _other_worker(each: WorkerConnection, now: datetime) -> WorkerStatus:
    since, last_used = now - timedelta(seconds=each.age), now - timedelta(seconds=each.idle)
    return WorkerStatus(
        each.name,
        each.host,
        None,
        [each.queue],
        each.library,
        since,
        last_used,
        "connected",
        "other",
        (),
    )


@dataclass(frozen=True, slots=True)
class _ActiveJob:
    """An active job, and what the store knows about the worker that runs it."""

    job: RunningJob
    processed_by: str
    token: str


async def _read_active_jobs(access: QueueAccess, queue: str) -> Sequence[_ActiveJob]:
    found = []
    for *texts, lock_ms in await access.run("active_jobs", queue, LOOKS):
        job_id, name, processed_on, processed_by, token = (
            each.decode(errors="replace") for each in texts
        )
        lock_for = timedelta(milliseconds=lock_ms) if lock_ms >= 0 else None
        job = RunningJob(
            queue, job_id, name, datetime_from_ms(parse_number(processed_on)), lock_for
        )
        found.append(_ActiveJob(job, processed_by, token))
    return found


def _assign_jobs(
    workers: Sequence[WorkerStatus], active: Sequence[_ActiveJob]
) -> Sequence[WorkerStatus]:
    """Add each active job to the worker that runs it.

    A worker that is known only by its jobs is added to the result, in state `unseen`.
    """
    jobs: list[list[RunningJob]] = [[] for _ in workers]
    unseen: dict[str, list[RunningJob]] = {}
    for each in active:
        index = _find_worker(each, workers)
        (unseen.setdefault(each.processed_by, []) if index is None else jobs[index]).append(
            each.job
        )
    found = [replace(worker, jobs=theirs) for worker, theirs in zip(workers, jobs, strict=True)]
    for name, theirs in sorted(unseen.items()):
        queues = sorted({job.queue for job in theirs})
        found.append(
            WorkerStatus(name, "", None, queues, "", None, None, "unseen", "other", theirs)
        )
    return found


def _find_worker(active: _ActiveJob, workers: Sequence[WorkerStatus]) -> int | None:
    """The index of the worker that runs a job, or None.

    It is the worker whose name is in the job's field `pb`, or in the lock's token (Corral's tokens
    begin with the name). If there is no name, it is the only worker of the queue without a name.
    """
    for name in filter(None, (active.processed_by, active.token.rpartition(":")[0])):
        for index, worker in enumerate(workers):
            if worker.name == name and (
                worker.kind == "corral" or active.job.queue in worker.queues
            ):
                return index
    nameless = [
        index
        for index, worker in enumerate(workers)
        if not worker.name and active.job.queue in worker.queues
    ]
    return nameless[0] if len(nameless) == 1 and not active.processed_by else None
