"""The server under all peers: one embedded store, seen from outside, with the allocator that a row
asks for.

It says how long a drain took, by the times that BullMQ's data model keeps in each job, and what the
server has used of its CPU. So Corral and BullMQ are measured the same way, and neither of them
counts anything.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from corral.embedded.server import embedded_store

JEMALLOC = "libjemalloc.so.2"
"""The library's file name; Debian has it in the package `libjemalloc2`."""
LIBRARY_FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/local/lib")
STARTS_READ = 1000
"""How many of the first jobs to end are asked when they started: the first to start is among them."""


class Store:
    """A running server.

    Attributes:
        url: Where it listens: a unix socket.
        client: A blocking connection to it.
        pid: Its process id.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = redis.Redis.from_url(url)
        self.pid = int(self.client.info("server")["process_id"])

    def cpu_seconds(self) -> float:
        """What the server has used so far, all its threads together."""
        used = self.client.info("cpu")
        return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])

    def completed(self, queue: str) -> int:
        """How many jobs of a queue (`prefix:name`) are completed."""
        return int(self.client.zcard(f"{queue}:completed"))

    def blocked_clients(self) -> int:
        """How many connections wait for something to do."""
        return int(self.client.info("clients")["blocked_clients"])

    def now_ms(self) -> int:
        """The server's clock."""
        seconds, microseconds = self.client.time()
        return seconds * 1000 + microseconds // 1000

    def drain_seconds(self, queue: str, count: int, since_ms: int | None = None) -> float:
        """From the first start to the end of the job that ended as number `count`, by the jobs' own
        times.

        Args:
            queue: The queue.
            count: How many of its jobs are timed.
            since_ms: The first start, where the jobs do not tell it: they keep the start of their
            last attempt alone.
        """
        done: Any = self.client.zrange(f"{queue}:completed", 0, count - 1, withscores=True)
        if since_ms is not None:
            return max(float(done[-1][1] - since_ms) / 1000, 0.001)
        with self.client.pipeline(transaction=False) as pipe:
            for job, _ in done[:STARTS_READ]:
                pipe.hget(f"{queue}:{job.decode()}", "processedOn")
            first = min(int(started) for started in pipe.execute())
        return max(float(done[-1][1] - first) / 1000, 0.001)

    @property
    def allocator(self) -> str:
        """What gives the server its memory: `mem_allocator`, or the library that was loaded before
        it.
        """
        compiled = str(self.client.info("memory")["mem_allocator"])
        try:
            loaded = Path(f"/proc/{self.pid}/maps").read_text("utf-8")
        except OSError:
            return compiled
        preloaded = re.search(r"/(libjemalloc[^/\s]*)$", loaded, re.MULTILINE)
        return f"{preloaded[1]} (preloaded; built with {compiled})" if preloaded else compiled

    @property
    def writes_file(self) -> bool:
        """Whether the append-only file is on."""
        return bool(int(self.client.info("persistence")["aof_enabled"]))

    @property
    def version(self) -> str:
        """The server's name and version."""
        info = self.client.info("server")
        return f"{info.get('server_name', 'redis')} {info.get('valkey_version', info['redis_version'])}"


@contextmanager
def opened_store(preload: Path | None = None) -> Iterator[Store]:
    """A new embedded store, as `corral dev` starts it.

    Args:
        preload: A library that the server loads before its own, or None.
    """
    with tempfile.TemporaryDirectory(prefix="corral-bench-") as folder:
        before = os.environ.get("LD_PRELOAD")
        if preload is not None:
            os.environ["LD_PRELOAD"] = str(
                preload
            )  # the server inherits it; nothing else is started meanwhile
        try:
            running = embedded_store(Path(folder))
            url = running.__enter__()
        finally:
            if preload is not None:
                os.environ.pop("LD_PRELOAD")
                if before is not None:
                    os.environ["LD_PRELOAD"] = before
        try:
            yield Store(url)
        finally:
            running.__exit__(None, None, None)


def find_jemalloc() -> Path | None:
    """The library on this machine, or None."""
    for folder in map(Path, LIBRARY_FOLDERS):
        found = [folder / JEMALLOC, *folder.glob(f"*/{JEMALLOC}")]
        if usable := [path for path in found if path.exists()]:
            return usable[0]
    return None
