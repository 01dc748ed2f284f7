"""`read_health`: whether the workers of a host are at work, by their heartbeats in the store."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from corral.embedded.server import attach, open_store
from corral.errors import StoreUnavailable
from corral.fleet.processes import LIVE_SECONDS, ProcessRecord, ProcessRecords, host_of
from corral.inspector.damage import report_damage
from corral.inspector.workers import count_processes, worker_state
from corral.settings import Settings
from corral.store.connection import Link

__all__ = ["Health", "WorkerHealth", "judge_heartbeats", "read_health"]


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """One worker process, or a parent of several.

    Attributes:
        name: Its name.
        seconds: How long ago it was at work.
        state: `working`, `draining` or `silent`; for a parent `complete`, `incomplete`, `draining`
            or `silent`.
        processes: How many processes a parent keeps running; 0 for a worker.
        troubles: What it reports to operators, a sentence each.
    """

    name: str
    seconds: float
    state: str
    processes: int = 0
    troubles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Health:
    """What `corral health` found.

    Attributes:
        problem: Why workers are not at work, in one sentence; empty if they are.
        workers: The processes that were looked at.
    """

    problem: str
    workers: tuple[WorkerHealth, ...]

    @property
    def is_healthy(self) -> bool:
        """Whether workers are at work and report no troubles."""
        return not (self.problem or self.troubles)

    @property
    def troubles(self) -> tuple[str, ...]:
        """What workers that are at work report to operators. A restart cures none of it."""
        living = (each for each in self.workers if each.state != "silent")
        return tuple(dict.fromkeys(trouble for each in living for trouble in each.troubles))


def read_health(settings: Settings, worker: str | None = None) -> Health:
    """Check the workers of this host, or a named one.

    Args:
        settings: The process's settings, which name the store.
        worker: The name of one worker, or of one parent with its workers; None for all of this
            host.

    Raises:
        StoreUnavailable: There is no store, or it is away.
        DamagedKey: The key of all heartbeats is of the wrong type.
    """
    heartbeats = _read_heartbeats(settings)
    host = socket.gethostname()
    if worker is None:
        seen = {name: heartbeat for name, heartbeat in heartbeats.items() if host_of(name) == host}
        return judge_heartbeats(seen, f"no worker of host {host!r}")
    seen = {
        name: heartbeat
        for name, heartbeat in heartbeats.items()
        if name == worker or name.startswith(f"{worker}.")
    }
    return judge_heartbeats(seen, f"no worker {worker!r}")


def judge_heartbeats(heartbeats: Mapping[str, ProcessRecord], absent: str) -> Health:
    """Derive the health of processes from their heartbeats.

    Args:
        heartbeats: The heartbeats by the name of the process.
        absent: The subject of the sentence that no worker is at work: `no worker of host 'web-1'`.
    """
    workers = tuple(
        WorkerHealth(
            name,
            round(heartbeat.seconds, 1),
            worker_state(name, heartbeats),
            heartbeat.processes,
            heartbeat.troubles,
        )
        for name, heartbeat in sorted(heartbeats.items())
    )
    if not any(each.state in {"working", "draining"} for each in workers if not each.processes):
        return Health(f"{absent} has fetched within the last {LIVE_SECONDS:g} s", workers)
    incomplete = [
        f"{count_processes(each.name, heartbeats)} of the {each.processes} worker processes"
        f" of {each.name!r} are at work"
        for each in workers
        if each.state == "incomplete"
    ]
    return Health(incomplete[-1] if incomplete else "", workers)


def _read_heartbeats(settings: Settings) -> dict[str, ProcessRecord]:
    async def read(url: str) -> dict[str, ProcessRecord]:
        link = Link(url)
        try:
            async with report_damage(link, settings.prefix):
                return await ProcessRecords(link, settings.prefix).read_workers()
        finally:
            await link.close()

    if settings.redis_url is None and settings.is_development:
        with attach(settings.data_dir) as running:  # a store is not started for a check
            if running is None:
                raise StoreUnavailable(f"no store is running in {str(settings.data_dir)!r}")
            return asyncio.run(read(running))
    with open_store(settings) as url:
        return asyncio.run(read(url))
