"""`Ticks`: the next times of a queue's cron schedules, which each call passes to the store.

The store cannot parse cron expressions, and needs the next time to create the next iteration. The
schedule that the queue declares is known from the start, other clients' schedules from their first
iteration that was fetched.
"""

from __future__ import annotations

import time

from corral.loggers import Logger
from corral.schedule import Cron, Every
from corral.store.codec import PendingSuccessor
from corral.store.queue_store import QueueStore
from corral.store.schedules import Schedules, coming_ticks, encode_ticks

__all__ = ["Ticks"]

log = Logger("corral.worker")

REMEMBERED = 100
"""Expressions that are sent with each call, at most. Iterations of others cost another call."""


class Ticks:
    """The coming ticks of one queue's cron schedules.

    Args:
        store: The queue.
        declared: The queue's own schedule.
    """

    def __init__(self, store: QueueStore, declared: Cron | Every | None) -> None:
        self._queue = store.queue
        self._schedules = Schedules(store)
        self._known: dict[tuple[str, str], list[int]] = {}
        self._encoded = encode_ticks({})
        self._stale_at_ms = 0
        self._behind_ms = 0
        self._unread: set[str] = set()
        if isinstance(declared, Cron):
            self._known[declared.expression, declared.tz] = []

    def set_store_time(self, now_ms: int) -> None:
        """Set the store's clock, by which ticks are computed: Unix milliseconds."""
        if self._known:
            self._behind_ms = int(time.time() * 1000) - now_ms

    def coming(self) -> bytes:
        """Return the ticks, as `QueueStore.advance` takes them."""
        if self._known:
            now_ms = int(time.time() * 1000) - self._behind_ms
            if now_ms >= self._stale_at_ms:
                self._compute(now_ms)
        return self._encoded

    async def make_successor(self, pending: PendingSuccessor) -> bool:
        """Make the next iteration of one that was fetched without it; remember its schedule.

        Args:
            pending: The iteration that has no successor yet.

        Returns:
            False if its cron expression cannot be parsed. Another client must then run it: run by
            us, without a next iteration, it would be the last one.

        Raises:
            StoreUnavailable: The store is away, or refuses to write.
        """
        try:
            advanced = await self._schedules.make_successor(pending)
        except ValueError as error:
            if pending.schedule_id not in self._unread:
                self._unread.add(pending.schedule_id)
                log.warning(
                    "schedule left to other clients: its cron expression cannot be parsed here",
                    queue=self._queue,
                    schedule=pending.schedule_id,
                    error=str(error),
                )
            return False
        if len(self._known) < REMEMBERED:
            self._known.setdefault((pending.pattern, pending.tz), [])
            self._stale_at_ms = 0
        return advanced

    def _compute(self, now_ms: int) -> None:
        self._known = {rule: coming_ticks(*rule, now_ms) for rule in self._known}
        self._encoded = encode_ticks(self._known)
        # Computed again early: the store's clock may be a tick ahead of our estimate.
        self._stale_at_ms = min(ticks[len(ticks) // 2] for ticks in self._known.values())
