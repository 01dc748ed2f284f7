"""What a worker's `/healthz` and `/readyz` answer, and the parent's of several.

Nothing here needs the event loop.

`/healthz` is red for what a restart of the process cures, and for nothing else: a platform that
restarts what is red must not restart a fleet because the store is away, full, or holds a damaged
key. `/readyz` is red for all of it.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import Final

from corral.errors import StoreUnavailable
from corral.fleet.heartbeats import HEARTBEAT_SECONDS, LIVE_SECONDS, Heartbeats
from corral.observe.health import judged
from corral.observe.lag import LoopLag
from corral.store.connection import Link, ThreadLink
from corral.store.replies import ResponseError
from corral.worker.troubles import ENDING, RIGHTS
from corral.worker.worker import BEAT_SECONDS, Worker

__all__ = ["ParentProbes", "WorkerProbes"]

SILENT_SECONDS: Final = LIVE_SECONDS - HEARTBEAT_SECONDS
"""How long a worker may fetch nothing: `corral health` allows so much, and the age of a heartbeat
on top.
"""
UNENDED_SECONDS: Final = 5.0 - BEAT_SECONDS
"""How long a slot may be seen whose job has ended: the consumer looks for such slots every 2 s, and
frees them.
"""
WEDGED_SECONDS: Final = 300.0
"""How long no call may be answered or fail.

Every call ends sooner: 4 MiB through a link of 32 KiB/s take 128 s.
"""
PING_SECONDS: Final = 1.0
"""How long the store may take to answer a worker that is asked whether it is ready."""
AWAY: Final = "the store does not answer"


class WorkerProbes:
    """One worker's state.

    Args:
        worker: The worker.
        lag: Of its event loop.
        url: The store.
    """

    def __init__(self, worker: Worker, lag: LoopLag, url: str) -> None:
        self._worker = worker
        self._lag = lag
        self._url = url

    def unwell(self) -> str:
        """Why the process should be replaced; empty where it is at work, has nothing to do, or
        drains.
        """
        stuck, unended, still = (
            self._lag.seconds,
            self._worker.unended_seconds,
            self._worker.still_seconds,
        )
        if stuck > SILENT_SECONDS:
            return f"the event loop has not moved for {stuck:.0f} s: a processor blocks it"
        if unended > UNENDED_SECONDS:
            return f"a job's task ended {unended:.0f} s ago or earlier, and its slot is not free"
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

    def unready(self) -> str:
        """Why it takes no jobs now, or a schedule of it does not run; empty where all does."""
        if self._worker.is_stopping:
            return "the worker drains"
        if not self._worker.is_serving:
            return "the worker opens its resources"
        for (_, kind), sentence in tuple(self._worker.troubles.items()):
            if kind == RIGHTS:
                return sentence
        if self._worker.misses_store or not _answers(self._url):
            return AWAY
        # An ending that cannot be written holds up one job, and no other.
        troubles = [told for (_, kind), told in self._worker.all_troubles.items() if kind != ENDING]
        silent = self._worker.silent_seconds
        fetched_nothing = (
            f"the worker has fetched nothing for {silent:.0f} s" if silent > SILENT_SECONDS else ""
        )
        return self.unwell() or next(iter(troubles), fetched_nothing)

    def troubles(self) -> tuple[str, ...]:
        """What an operator must know; a restart mends nothing of it."""
        return tuple(self._worker.all_troubles.values())


class ParentProbes:
    """The state of a parent and its worker processes, by the heartbeats that they leave in the
    store.

    Args:
        name: The parent's.
        url: The store.
        prefix: The first part of the keys.
        stop: Set when it drains.
    """

    def __init__(self, name: str, url: str, prefix: str, stop: asyncio.Event) -> None:
        self._name = name
        self._link = Link(url)
        self._heartbeats = Heartbeats(self._link, prefix)
        self._stop = stop
        self._told = "its worker processes start"
        self._blind = ""
        self._blind_until = -math.inf
        self._troubles: tuple[str, ...] = ()
        self._looked = time.monotonic()

    async def look(self) -> None:
        """Read the heartbeats again and again, until cancelled."""
        try:
            while True:
                await self._look()
                await asyncio.sleep(HEARTBEAT_SECONDS)
        finally:
            await self._link.close()

    async def _look(self) -> None:
        blind = ""
        try:
            heartbeats = await self._heartbeats.read()
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
            found = judged(seen, "no worker process")
            self._told, self._troubles = found.told, found.troubles
        self._blind, self._looked = blind, time.monotonic()
        if blind:
            self._blind_until = self._looked + LIVE_SECONDS

    def unwell(self) -> str:
        """Why not all is well; empty where every process is at work or drains, and where nobody's
        heartbeat can be seen.
        """
        now = time.monotonic()
        if self._stop.is_set():
            return ""
        if now - self._looked > SILENT_SECONDS:
            return f"the parent has not looked for {now - self._looked:.0f} s"
        return (
            self._told if now > self._blind_until else ""
        )  # heartbeats are old when the store is back, too

    def unready(self) -> str:
        """Why the processes take no jobs now, or a schedule does not run; empty where all does."""
        if self._stop.is_set():
            return "the worker processes drain"
        return self.unwell() or self._blind or self._told or next(iter(self._troubles), "")

    def troubles(self) -> tuple[str, ...]:
        """What the processes say an operator must know, as they last said it."""
        return self._troubles


def _answers(url: str) -> bool:
    """Whether the store answers on a new connection: one that is open may have gone without anybody
    knowing.
    """
    link = ThreadLink(url, PING_SECONDS)
    try:
        link.call("PING")
    except (StoreUnavailable, ResponseError):
        return False
    finally:
        link.close()
    return True
