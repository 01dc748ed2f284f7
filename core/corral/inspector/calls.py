"""How the inspector reaches a queue: its name as the catalog knows it, its keys, its scripts."""

from __future__ import annotations

from typing import Any

from corral.catalog import Catalog
from corral.queue import Queue
from corral.store.connection import Link
from corral.store.queue_store import QueueStore
from corral.store.scripts import run, script

__all__ = ["Calls"]


class Calls:
    """One connection, and the keys below a prefix.

    Args:
        catalog: The queues; any other name is refused.
        link: The connection.
        prefix: The first part of the keys.
        offset_ms: Added to the store's time by every script.
    """

    def __init__(self, catalog: Catalog, link: Link, prefix: str, offset_ms: int) -> None:
        self.catalog = catalog
        self.link = link
        self.offset_ms = offset_ms
        self._prefix = prefix

    def name(self, queue: Queue[Any] | str) -> str:
        """The queue's name.

        Raises:
            UnknownQueue: The catalog does not declare it.
        """
        return self.catalog.get(queue).queue.name

    def base(self, queue: Queue[Any] | str) -> str:
        """`<prefix>:<queue>:`, what the queue's keys begin with."""
        return f"{self._prefix}:{self.name(queue)}:"

    def store(self, queue: Queue[Any] | str) -> QueueStore:
        """The queue's own operations."""
        return QueueStore(self.link, self._prefix, self.name(queue), offset_ms=self.offset_ms)

    async def size(self, queue: Queue[Any] | str, container: str) -> int:
        """How many ids are in a container."""
        command = "LLEN" if container in {"wait", "paused", "active"} else "ZCARD"
        return int(await self.link.call(command, self.base(queue) + container))

    async def run(self, name: str, queue: Queue[Any] | str, *arguments: Any) -> Any:
        """Run `lua/<name>.lua` on a queue."""
        return await run(self.link, script(name, __package__), [self.base(queue)], [self.offset_ms, *arguments])
