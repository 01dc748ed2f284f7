"""`StoreAddress`: the store, and the prefix of the queues in it."""

from __future__ import annotations

from dataclasses import dataclass, field

from corral.options import JobOptions
from corral.store.clock import Clock
from corral.store.connection import Link
from corral.store.queue_store import QueueStore

__all__ = ["StoreAddress"]


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """The store, and the prefix of the queues in it.

    Attributes:
        url: The store's URL; it may contain a password, and is not shown in a repr.
        prefix: The first part of the keys.
        clock: Moves the store's time in tests; shared by all whose time moves together.
    """

    url: str = field(repr=False)
    prefix: str
    clock: Clock | None = None

    def queue(self, name: str, *, options: JobOptions | None = None, lane: int = 0) -> QueueStore:
        """One queue, through a connection of its own, which opens with the first call.

        Args:
            name: The queue's name.
            options: As for `QueueStore`.
            lane: As for `QueueStore`.
        """
        return QueueStore(
            Link(self.url), self.prefix, name, options=options, lane=lane, clock=self.clock
        )
