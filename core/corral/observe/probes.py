"""The answers to `/healthz` and `/readyz`, of a worker and of a parent of several.

`/healthz` fails for what a restart of the process cures, and for nothing else: a platform that
restarts what is unhealthy must not restart a fleet because the store is away, full, or holds a
damaged key. `/readyz` fails for these, too. The answers do not need the event loop.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import Final

from corral.deps import REPORTED
from corral.errors import StoreUnavailable
from corral.fleet.processes import HEARTBEAT_SECONDS, LIVE_SECONDS, ProcessRecords
from corral.observe.health import judge_heartbeats
from corral.observe.lag import LoopLag
from corral.store.connection import Link, ThreadLink
from corral.store.replies import ResponseError
from corral.worker.troubles import ENDING, RIGHTS
from corral.worker.worker import BEAT_SECONDS, Worker

__all__ = ["ParentProbes", "WorkerProbes"]

SILENT_SECONDS: Final = LIVE_SECONDS - HEARTBEAT_SECONDS
"""How long a worker may fetch nothing. `corral health` allows as much, plus a heartbeat's age."""
UNENDED_SECONDS: Final = 5.0 - BEAT_SECONDS
"""How long a slot may stay taken whose job has ended. The consumer checks for such slots every 2 s,
and frees them.
"""
WEDGED_SECONDS: Final = 300.0
"""How long a worker may be without a call to the store that ends, with or without success.

Every call ends sooner: 4 MiB through a link of 32 KiB/s take 128 s.
"""
PING_SECONDS: Final = 1.0
"""How long the store may take to answer the PING of a readiness probe."""
AWAY: Final = "the store does not answer"


class WorkerProbes:
    """The state of one worker, for its probes.

    Args:
        worker: The worker.
        lag: The lag of its event loop.
        url: The store.
    """

    def __init__(self, worker: Worker, lag: LoopLag, url: str) -> None:
        self._worker = worker
        self._lag = lag
        self._url = url

    def health_problem(self) -> str:
        """Why the process should be restarted; empty if it works, has nothing to do, or drains."""
        stuck = self._lag.seconds
        without_ending = self._worker.without_ending_seconds
        still = self._worker.seconds_since_last_call
        if stuck > SILENT_SECONDS:
            return f"the event loop has not moved for {stuck:.0f} s: a processor blocks it"
        if without_ending > UNENDED_SECONDS:
            return (
                f"a job's task ended {without_ending:.0f} s ago or earlier,"
                " and its slot is not free"
            )
        if self._worker.is_serving:
            return (
                f"no call to the store has ended for {still:.0f} s"
                if still > WEDGED_SECONDS
                else ""
            )
        return (
            f"the worker has been opening its resources for {still:.0f} s"
            if still > SILENT_SECONDS
            else ""
        )

    def readiness_problem(self) -> str:
        """Why the worker takes no jobs, or a schedule of it does not run; empty if all is well."""
        if self._worker.is_stopping:
            return "the worker drains"
        if not self._worker.is_serving:
            return "the worker opens its resources"
        for (_, kind), sentence in tuple(self._worker.troubles.items()):
            if kind == RIGHTS:
                return sentence
        if self._worker.misses_store or not _answers(self._url):
            return AWAY
        # An ending that cannot be written holds up one job, and no other; what a plugin reports
        # keeps no worker from taking jobs.
        troubles = [
            sentence
            for (_, kind), sentence in self._worker.all_troubles.items()
            if kind not in {ENDING, REPORTED}
        ]
        silent = self._worker.silent_seconds
        fetched_nothing = (
            f"the worker has fetched nothing for {silent:.0f} s" if silent > SILENT_SECONDS else ""
        )
        return self.health_problem() or next(iter(troubles), fetched_nothing)

    def troubles(self) -> tuple[str, ...]:
        """What the worker reports to operators. A restart cures none of it."""
        return tuple(self._worker.all_troubles.values())


class ParentProbes:
    """The state of a parent and its worker processes, by their heartbeats in the store.

    Args:
        name: The parent's name.
        url: The store.
        prefix: The first part of the keys.
        stop: Is set when the parent drains.
    """

    def __init__(self, name: str, url: str, prefix: str, stop: asyncio.Event) -> None:
        self._name = name
        self._link = Link(url)
        self._records = ProcessRecords(self._link, prefix)
        self._stop = stop
        self._problem = "its worker processes start"
        self._blind = ""
        self._blind_until = -math.inf
        self._troubles: tuple[str, ...] = ()
        self._read_at = time.monotonic()

    async def watch(self) -> None:
        """Read the heartbeats again and again, until cancelled."""
        try:
            while True:
                await self._read()
                await asyncio.sleep(HEARTBEAT_SECONDS)
        finally:
            await self._link.close()

    async def _read(self) -> None:
        blind = ""
        try:
            heartbeats = await self._records.read_workers()
        except StoreUnavailable:
            blind = AWAY
        except ResponseError as error:
            blind = f"the heartbeats of its worker processes cannot be read: {error}"
        else:
            own = heartbeats.get(self._name)
            if own is not None and own.seconds > 2 * HEARTBEAT_SECONDS:
                blind = "the store takes no heartbeats: it refuses to write, or answers late"
            seen = {
                name: heartbeat
                for name, heartbeat in heartbeats.items()
                if f"{name}.".startswith(f"{self._name}.")
            }
            found = judge_heartbeats(seen, "no worker process")
            self._problem, self._troubles = found.problem, found.troubles
        self._blind, self._read_at = blind, time.monotonic()
        if blind:
            self._blind_until = self._read_at + LIVE_SECONDS

    def health_problem(self) -> str:
        """Why a process should be restarted; empty if each is at work or drains.

        It is also empty if heartbeats cannot be read, and for a while after that: they are old when
        the store is back.
        """
        now = time.monotonic()
        if self._stop.is_set():
            return ""
        if now - self._read_at > SILENT_SECONDS:
            return f"the parent has not read heartbeats for {now - self._read_at:.0f} s"
        return self._problem if now > self._blind_until else ""

    def readiness_problem(self) -> str:
        """Why the processes take no jobs, or a schedule does not run; empty if all is well."""
        if self._stop.is_set():
            return "the worker processes drain"
        return (
            self.health_problem() or self._blind or self._problem or next(iter(self._troubles), "")
        )

    def troubles(self) -> tuple[str, ...]:
        """What the processes reported to operators with their last heartbeats."""
        return self._troubles


def _answers(url: str) -> bool:
    """Whether the store answers on a new connection: an open one may be dead and not show it."""
    link = ThreadLink(url, PING_SECONDS)
    try:
        link.call("PING")
    except (StoreUnavailable, ResponseError):
        return False
    finally:
        link.close()
    return True
