"""`read_health`: whether the workers of a host are at work, by the heartbeats that they left in the
store.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from corral.embedded.server import attach, chosen_store
from corral.errors import StoreUnavailable
from corral.fleet.heartbeats import LIVE_SECONDS, Heartbeat, Heartbeats
from corral.fleet.processes import host_of
from corral.inspector.damage import naming_damage
from corral.inspector.workers import processes_of, state_of
from corral.settings import Settings
from corral.store.connection import Link

__all__ = ["Health", "WorkerHealth", "judged", "read_health"]


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """One worker process, or a parent of several.

    Attributes:
        name: Its name.
        seconds: How long ago it was at work.
        state: `working`, `draining` or `silent`; of a parent: `complete`, `incomplete`, `draining`
        or `silent`.
        processes: How many processes a parent keeps running; 0 for a worker.
        troubles: What it says an operator must know, a sentence each.
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
        told: Why workers are not at work, in one sentence; empty where they are.
        workers: What was looked at.
    """

    told: str
    workers: tuple[WorkerHealth, ...]

    @property
    def is_healthy(self) -> bool:
        """Whether all is well."""
        return not (self.told or self.troubles)

    @property
    def troubles(self) -> tuple[str, ...]:
        """What workers that are at work say an operator must know; a restart mends nothing of it."""
        living = (each for each in self.workers if each.state != "silent")
        return tuple(dict.fromkeys(trouble for each in living for trouble in each.troubles))


def read_health(settings: Settings, worker: str | None = None) -> Health:
    """Look at the workers of this host, or at a named one.

    Args:
        settings: The process's settings: they name the store.
        worker: The name of one worker, or of one parent; None for all of this host.

    Raises:
        StoreUnavailable: There is no store, or it is away.
        DamagedKey: The key of all heartbeats is of the wrong type.
    """
    heartbeats = _heartbeats(settings)
    host = socket.gethostname()
    if worker is None:
        seen = {name: heartbeat for name, heartbeat in heartbeats.items() if host_of(name) == host}
        return judged(seen, f"no worker of host {host!r}")
    seen = {
        name: heartbeat
        for name, heartbeat in heartbeats.items()
        if name == worker or name.startswith(f"{worker}.")
    }
    return judged(seen, f"no worker {worker!r}")


def judged(heartbeats: Mapping[str, Heartbeat], nobody: str) -> Health:
    """Say what heartbeats mean.

    Args:
        heartbeats: By the name of the process.
        nobody: How a sentence begins that says that there is no worker.
    """
    workers = tuple(
        WorkerHealth(
            name,
            round(heartbeat.seconds, 1),
            state_of(name, heartbeats),
            heartbeat.processes,
            heartbeat.troubles,
        )
        for name, heartbeat in sorted(heartbeats.items())
    )
    if not any(each.state in {"working", "draining"} for each in workers if not each.processes):
        return Health(f"{nobody} has fetched within the last {LIVE_SECONDS:g} s", workers)
    told = [
        f"{processes_of(each.name, heartbeats)} of the {each.processes} worker processes of {each.name!r} are at work"
        for each in workers
        if each.state == "incomplete"
    ]
    return Health(told[-1] if told else "", workers)


def _heartbeats(settings: Settings) -> dict[str, Heartbeat]:
    async def read(url: str) -> dict[str, Heartbeat]:
        link = Link(url)
        try:
            async with naming_damage(link, settings.prefix):
                return await Heartbeats(link, settings.prefix).read()
        finally:
            await link.close()

    if settings.redis_url is None and settings.is_development:
        with attach(settings.data_dir) as running:  # never started for a question
            if running is None:
                raise StoreUnavailable(f"no store is running in {str(settings.data_dir)!r}")
            return asyncio.run(read(running))
    with chosen_store(settings) as url:
        return asyncio.run(read(url))
