"""Heartbeats of life: one hash, `corral:<prefix>:alive`, in which every worker process says when it
was last at work.

`corral health` reads it from a process of its own. What makes a worker healthy is not decided here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

from corral.fleet.processes import GONE_MS, read_hash, store_time_ms
from corral.store.connection import Link

__all__ = ["HEARTBEAT_SECONDS", "LIVE_SECONDS", "Heartbeat", "Heartbeats"]

MOST_TROUBLES = 10
LONGEST_TROUBLE = 300
"""A heartbeat is read by every probe: it stays short, whatever is wrong."""
HEARTBEAT_SECONDS = 3.0
"""How often a process writes its heartbeat."""
LIVE_SECONDS = 15.0
"""How long a worker may fetch nothing: its block, the time until a dead connection is noticed, and
a heartbeat's age.
"""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What one process said.

    Attributes:
        seconds: How long ago it was at work, by the store's clock.
        draining: Whether it was told to stop.
        processes: How many worker processes it keeps running; 0 where it is a worker itself.
        started_ms: When it gave its first heartbeat, Unix milliseconds; 0 where another version of
        Corral wrote nothing.
        pid: Its process id; 0 as above.
        version: Of Corral; empty as above.
        troubles: What an operator must know, a sentence each: at most `MOST_TROUBLES` of
        `LONGEST_TROUBLE` characters.
    """

    seconds: float
    draining: bool = False
    processes: int = 0
    started_ms: int = 0
    pid: int = 0
    version: str = ""
    troubles: tuple[str, ...] = ()


class Heartbeats:
    """The heartbeats of all processes that share a prefix.

    Args:
        link: The connection.
        prefix: The first part of the queues' keys.
    """

    def __init__(self, link: Link, prefix: str) -> None:
        self._link = link
        self._key = f"corral:{prefix}:alive"
        self._constant = ""

    async def write(self, process: str, heartbeat: Heartbeat) -> None:
        """Write what a process says of itself.

        Raises:
            StoreUnavailable: The store is away.
        """
        now_ms = await store_time_ms(self._link)
        self._constant = self._constant or f"{now_ms} {os.getpid()} {version('corral')}"
        seen_ms = now_ms - int(heartbeat.seconds * 1000)
        told = f"{seen_ms} {heartbeat.draining:d} {heartbeat.processes} {self._constant}"
        if heartbeat.troubles:  # older versions read the six fields before it, and nothing after
            told += f" {json.dumps(_bounded(heartbeat.troubles))}"
        await self._link.call("HSET", self._key, process, told)

    async def remove(self, process: str) -> None:
        """Forget a process that has ended.

        Raises:
            StoreUnavailable: The store is away.
        """
        await self._link.call("HDEL", self._key, process)

    async def read(self) -> dict[str, Heartbeat]:
        """The last heartbeat of every process, by its name; those that have been silent for minutes
        are removed.

        Raises:
            StoreUnavailable: The store is away.
        """
        now_ms = await store_time_ms(self._link)
        heartbeats: dict[str, Heartbeat] = {}
        for name, value in (await read_hash(self._link, self._key)).items():
            fields = value.decode(errors="replace").split(maxsplit=6)
            troubles = fields.pop() if len(fields) == 7 else ""
            *numbers, corral = (*fields, "0", "0", "")[:6]  # three are younger
            if len(numbers) != 5 or not all(
                each.isdecimal() and len(each) < 16 for each in numbers
            ):
                continue  # somebody else's
            seen_ms, draining, processes, started_ms, pid = map(int, numbers)
            if now_ms - seen_ms > GONE_MS:
                await self._link.call("HDEL", self._key, name)
            else:
                seconds = (now_ms - seen_ms) / 1000
                heartbeat = Heartbeat(
                    seconds, bool(draining), processes, started_ms, pid, corral, _troubles(troubles)
                )
                heartbeats[name.decode(errors="replace")] = heartbeat
        return heartbeats


def _bounded(troubles: Sequence[str]) -> list[str]:
    return [each[:LONGEST_TROUBLE] for each in troubles[:MOST_TROUBLES]]


def _troubles(text: str) -> tuple[str, ...]:
    """The sentences at the end of a heartbeat; none where older versions wrote none, or somebody
    else something else.
    """
    try:
        told = json.loads(text) if text else []
    except (ValueError, RecursionError):
        return ()
    return (
        tuple(_bounded([each for each in told if isinstance(each, str)]))
        if isinstance(told, list)
        else ()
    )
