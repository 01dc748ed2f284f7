"""What a worker's `/healthz` and `/readyz` answer, and the parent's of several. Nothing here needs the event loop."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from redis.exceptions import ResponseError

from corral.app.alive import SIGN_SECONDS
from corral.app.health import judged
from corral.errors import StoreUnavailable
from corral.observe.lag import LoopLag
from corral.store.connection import Link, ThreadLink
from corral.store.liveness import LIVE_SECONDS, Signs
from corral.worker.troubles import LACKS, RIGHTS
from corral.worker.worker import Worker

__all__ = ["ParentProbes", "WorkerProbes"]

SILENT_SECONDS: Final = LIVE_SECONDS - SIGN_SECONDS
"""How long a worker may fetch nothing: `corral health` allows so much, and the age of a sign on top."""
BLOCKED_SECONDS: Final = 2.0
"""How long an event loop must stand still to be the reason why nothing was fetched."""
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
        """Why the process should be replaced; empty where it is at work, has nothing to do, or drains."""
        stuck, silent = self._lag.seconds, self._worker.silent_seconds
        if max(stuck, silent) <= SILENT_SECONDS:
            return ""
        if stuck > BLOCKED_SECONDS:
            return f"the event loop has not moved for {stuck:.0f} s: a processor blocks it"
        doing = "fetched nothing" if self._worker.is_serving else "been opening its resources"
        return f"the worker has {doing} for {silent:.0f} s"

    def unready(self) -> str:
        """Why it takes no jobs now; empty where it does."""
        if self._worker.is_stopping:
            return "the worker drains"
        if not self._worker.is_serving:
            return "the worker opens its resources"
        for (_, kind), sentence in tuple(self._worker.troubles.items()):
            if kind == RIGHTS:
                return sentence
        if self._worker.misses_store or not _answers(self._url):
            return AWAY
        return self.unwell()

    def troubles(self) -> tuple[str, ...]:
        """What an operator must know. A restart mends nothing of it, so no probe is red for it."""
        return tuple(self._worker.troubles.values())


class ParentProbes:
    """The state of a parent and its worker processes, by the signs of life that they leave in the store.

    Args:
        name: The parent's.
        url: The store.
        prefix: The first part of the keys.
        stop: Set when it drains.
    """

    def __init__(self, name: str, url: str, prefix: str, stop: asyncio.Event) -> None:
        self._name = name
        self._link = Link(url)
        self._signs = Signs(self._link, prefix)
        self._stop = stop
        self._told = "its worker processes start"
        self._troubles: tuple[str, ...] = ()
        self._looked = time.monotonic()

    async def look(self) -> None:
        """Read the signs again and again, until cancelled."""
        try:
            while True:
                await self._look()
                await asyncio.sleep(SIGN_SECONDS)
        finally:
            await self._link.close()

    async def _look(self) -> None:
        try:
            signs = await self._signs.read()
        except StoreUnavailable:
            told = AWAY
        except ResponseError as error:
            told = f"the signs of life of its worker processes cannot be read: {error}"
        else:
            seen = {name: sign for name, sign in signs.items() if f"{name}.".startswith(f"{self._name}.")}
            found = judged(seen, "no worker process")
            told, self._troubles = found.told, found.troubles
        self._told, self._looked = told, time.monotonic()

    def unwell(self) -> str:
        """Why not all is well; empty where every process is at work, or drains."""
        if self._stop.is_set():
            return ""
        silent = time.monotonic() - self._looked
        return self._told if silent <= SILENT_SECONDS else f"the parent has not looked for {silent:.0f} s"

    def unready(self) -> str:
        """Why the processes take no jobs now; empty where they do."""
        if self._stop.is_set():
            return "the worker processes drain"
        return self.unwell() or next((each for each in self._troubles if LACKS in each), "")

    def troubles(self) -> tuple[str, ...]:
        """What the processes say an operator must know, as they last said it."""
        return self._troubles


def _answers(url: str) -> bool:
    """Whether the store answers on a new connection: one that is open may have gone without anybody knowing."""
    link = ThreadLink(url, PING_SECONDS)
    try:
        link.call("PING")
    except (StoreUnavailable, ResponseError):
        return False
    finally:
        link.close()
    return True
