"""`StoreAddress`: where queues are kept."""

from __future__ import annotations

from dataclasses import dataclass, field

from corral.options import JobOptions
from corral.store.clock import Clock
from corral.store.connection import Link
from corral.store.queue_store import QueueStore

__all__ = ["StoreAddress"]


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """Where queues are kept.

    Attributes:
        url: The store; it may hold a password.
        prefix: The first part of the keys.
        clock: Moves the store's time, in tests; shared by those whose time is moved together.
    """

    url: str = field(repr=False)
    prefix: str
    clock: Clock | None = None

    def queue(self, name: str, *, options: JobOptions | None = None, lane: int = 0) -> QueueStore:
        """One queue, by a connection of its own that is made when it is first needed.

        Args:
            name: The queue's name.
            options: As for `QueueStore`.
            lane: As for `QueueStore`.
        """
        return QueueStore(
            Link(self.url), self.prefix, name, options=options, lane=lane, clock=self.clock
        )
