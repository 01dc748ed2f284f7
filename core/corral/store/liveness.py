"""Signs of life: one hash, `corral:<prefix>:alive`, in which every worker process says when it was last at work.

`corral health` reads it from a process of its own. What makes a worker healthy is not decided here.
"""

from __future__ import annotations

from dataclasses import dataclass

from corral.store.connection import Link
from corral.store.processes import GONE_MS, read_hash, store_time_ms

__all__ = ["LIVE_SECONDS", "Sign", "Signs"]

LIVE_SECONDS = 15.0
"""How long a worker may fetch nothing: its block, the time until a dead connection is noticed, and a sign's age."""


@dataclass(frozen=True, slots=True)
class Sign:
    """What one process said.

    Attributes:
        seconds: How long ago it was at work, by the store's clock.
        draining: Whether it was told to stop.
        processes: How many worker processes it keeps running; 0 where it is a worker itself.
    """

    seconds: float
    draining: bool = False
    processes: int = 0


class Signs:
    """The signs of all processes that share a prefix.

    Args:
        link: The connection.
        prefix: The first part of the queues' keys.
    """

    def __init__(self, link: Link, prefix: str) -> None:
        self._link = link
        self._key = f"corral:{prefix}:alive"

    async def write(self, process: str, sign: Sign) -> None:
        """Write what a process says of itself.

        Raises:
            StoreUnavailable: The store is away.
        """
        seen_ms = await store_time_ms(self._link) - int(sign.seconds * 1000)
        await self._link.call("HSET", self._key, process, b"%d %d %d" % (seen_ms, sign.draining, sign.processes))

    async def remove(self, process: str) -> None:
        """Forget a process that has ended.

        Raises:
            StoreUnavailable: The store is away.
        """
        await self._link.call("HDEL", self._key, process)

    async def read(self) -> dict[str, Sign]:
        """The last sign of every process, by its name; those that have been silent for minutes are removed.

        Raises:
            StoreUnavailable: The store is away.
        """
        now_ms = await store_time_ms(self._link)
        signs: dict[str, Sign] = {}
        for name, value in (await read_hash(self._link, self._key)).items():
            seen_ms, draining, processes = map(int, value.split())
            if now_ms - seen_ms > GONE_MS:
                await self._link.call("HDEL", self._key, name)
            else:
                signs[name.decode(errors="replace")] = Sign((now_ms - seen_ms) / 1000, bool(draining), processes)
        return signs
