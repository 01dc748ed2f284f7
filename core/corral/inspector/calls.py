"""How the inspector reaches a queue: its name as the catalog knows it, its keys, its scripts."""

from __future__ import annotations

from typing import Any

from corral.catalog import Catalog
from corral.inspector.stored import CONTAINER, State
from corral.queue import Queue
from corral.store.clock import Clock
from corral.store.connection import Link
from corral.store.queue_store import QueueStore
from corral.store.scripts import run, script

__all__ = ["Calls"]


class Calls:
    """One connection, and the keys below a prefix.

    Attributes:
        catalog: The queues.
        link: The connection.
        clock: What every script adds to the store's time.
        prefix: The first part of the keys.

    Args:
        catalog: The queues; any other name is refused.
        link: The connection.
        prefix: The first part of the keys.
        clock: What every script adds to the store's time.
    """

    def __init__(self, catalog: Catalog, link: Link, prefix: str, clock: Clock | None) -> None:
        self.catalog = catalog
        self.link = link
        self.clock = clock or Clock()
        self.prefix = prefix

    def name(self, queue: Queue[Any] | str) -> str:
        """The queue's name.

        Raises:
            UnknownQueue: The catalog does not declare it.
        """
        return self.catalog.get(queue).queue.name

    def base(self, queue: Queue[Any] | str) -> str:
        """`<prefix>:<queue>:`, what the queue's keys begin with."""
        return f"{self.prefix}:{self.name(queue)}:"

    def store(self, queue: Queue[Any] | str) -> QueueStore:
        """The queue's own operations."""
        return QueueStore(self.link, self.prefix, self.name(queue), clock=self.clock)

    async def counts(self, queue: Queue[Any] | str) -> dict[State, int]:
        """How many jobs are in each state; what BullMQ 5 has put aside while it was paused waits (wire § 6.14)."""
        found = await self.store(queue).counts()
        aside = await self.size(queue, "paused")
        return {state: found[name] + (aside if state == "waiting" else 0) for state, name in CONTAINER.items()}

    async def size(self, queue: Queue[Any] | str, container: str) -> int:
        """How many ids are in a container."""
        command = "LLEN" if container in {"wait", "paused", "active"} else "ZCARD"
        return int(await self.link.call(command, self.base(queue) + container))

    async def run(self, name: str, queue: Queue[Any] | str, *arguments: Any) -> Any:
        """Run `lua/<name>.lua` on a queue."""
        return await run(self.link, script(name, __package__), [self.base(queue)], [self.clock.offset_ms, *arguments])
