"""Who else uses this prefix: one hash, `corral:<prefix>:catalog`, in which every process keeps a
field while it lives.

What a field means is the catalog's business; here it is bytes.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from corral.errors import StoreUnavailable
from corral.store.codec import fields_of
from corral.store.connection import Link
from corral.store.replies import ResponseError

__all__ = [
    "GONE_MS",
    "ProcessRecords",
    "eviction_policy",
    "host_of",
    "process_name",
    "read_hash",
    "store_time_ms",
]

REFRESH_SECONDS = 60.0
AGAIN_SECONDS = 1.0
"""How soon a field is written again that the store has not taken."""
GONE_MS = 180_000
"""A process that has not refreshed its field for so long is dead: its field is removed by the next
that starts.
"""


def process_name() -> str:
    """A name that no other process has, and that says where it runs: `<host>-<process
    id>-<random>`.

    A process that keeps others running calls them `<its own name>.<number>`.
    """
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


def host_of(process: str) -> str:
    """The host in the name of a process."""
    return process.rsplit("-", 2)[0]


async def store_time_ms(link: Link) -> int:
    """The store's time, Unix milliseconds.

    Raises:
        StoreUnavailable: The store is away.
    """
    seconds, microseconds = await link.call("TIME")
    return int(seconds) * 1000 + int(microseconds) // 1000


async def read_hash(link: Link, key: str) -> dict[bytes, bytes]:
    """The fields of a hash.

    Raises:
        StoreUnavailable: The store is away.
    """
    return fields_of(await link.call("HGETALL", key))


class ProcessRecords:
    """The fields of all processes.

    Args:
        link: The connection.
        prefix: The first part of the queues' keys.
        process: This process's own name.
    """

    def __init__(self, link: Link, prefix: str, process: str) -> None:
        self._link = link
        self._key = f"corral:{prefix}:catalog"
        self._process = process

    async def others(self) -> dict[str, bytes]:
        """What the other living processes wrote, by process; the fields of dead ones are removed.

        Raises:
            StoreUnavailable: The store is away.
        """
        now_ms = await store_time_ms(self._link)
        living: dict[str, bytes] = {}
        for name, value in (await read_hash(self._link, self._key)).items():
            seen, _, record = value.partition(b" ")
            process = name.decode(errors="replace")
            if not seen.isdigit() or now_ms - int(seen) > GONE_MS:
                await self._link.call("HDEL", self._key, name)
            elif process != self._process:
                living[process] = record
        return living

    async def write(self, record: bytes) -> None:
        """Write this process's own field, with the time.

        Raises:
            StoreUnavailable: The store is away.
        """
        await self._link.call(
            "HSET", self._key, self._process, b"%d %s" % (await store_time_ms(self._link), record)
        )

    async def keep(
        self,
        record: Callable[[int], bytes],
        on_others: Callable[[dict[str, bytes]], None],
        look: asyncio.Event | None = None,
    ) -> None:
        """Write the field, tell what the others run, and refresh it until cancelled; then remove
        it.

        A store that is away, or whose hash is damaged, is nobody's problem here: the next round
        writes it.

        Args:
            record: Makes the field of the store's time at start, Unix milliseconds.
            on_others: Told once.
            look: Set when the field may be gone, with the rest of the store: it is written again
            where it is.
        """
        look = look or asyncio.Event()
        written: bytes | None = None
        refreshed = -math.inf
        try:
            while True:
                look.clear()
                seconds = AGAIN_SECONDS
                with suppress(StoreUnavailable, ResponseError):
                    if written is None:
                        started = record(await store_time_ms(self._link))
                        on_others(await self.others())
                        written = started
                    is_due = time.monotonic() - refreshed >= REFRESH_SECONDS
                    if is_due or not await self._link.call("HEXISTS", self._key, self._process):
                        await self.write(written)
                        refreshed = time.monotonic()
                    seconds = refreshed + REFRESH_SECONDS - time.monotonic()
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await look.wait()
        finally:
            with suppress(StoreUnavailable, ResponseError):
                await self._link.call("HDEL", self._key, self._process)
            await self._link.close()


async def eviction_policy(link: Link) -> str:
    """The store's `maxmemory-policy`, or an empty text where it does not tell.

    Raises:
        StoreUnavailable: The store is away.
    """
    info = await link.call("INFO", "memory")
    found = re.search(rb"maxmemory_policy:([\w-]+)", info)
    return found[1].decode() if found else ""
