"""`Ticks`: when the cron schedules of a queue come next, told to the store before it has to know.

What is declared is known from the start, what other clients made from the first iteration that was
fetched.
"""

from __future__ import annotations

import time

from corral.loggers import Logger
from corral.schedule import Cron, Every
from corral.store.late import Late
from corral.store.queue_store import QueueStore
from corral.store.schedules import Schedules, coming_ticks, encode_ticks

__all__ = ["Ticks"]

log = Logger("corral.worker")

REMEMBERED = 100
"""How many expressions are told with each call at most; iterations of others cost a call of their
own.
"""


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

    def store_time(self, now_ms: int) -> None:
        """The store has told its time: ticks are counted by it."""
        if self._known:
            self._behind_ms = int(time.time() * 1000) - now_ms

    def coming(self) -> bytes:
        """The ticks, as `QueueStore.advance` takes them."""
        if self._known:
            now_ms = int(time.time() * 1000) - self._behind_ms
            if now_ms >= self._stale_at_ms:
                self._count(now_ms)
        return self._encoded

    async def advance(self, late: Late) -> bool:
        """Make the next iteration of one that was fetched without it, and know its schedule from
        now on.

        Returns:
            False where its expression cannot be read: the iteration is for others, or its schedule
            would end.

        Raises:
            StoreUnavailable: The store is away, or refuses to write.
        """
        try:
            advanced = await self._schedules.advance(late)
        except ValueError as error:
            if late.schedule_id not in self._unread:
                self._unread.add(late.schedule_id)
                log.warning(
                    "schedule left to other clients: its cron expression cannot be read here",
                    queue=self._queue,
                    schedule=late.schedule_id,
                    error=str(error),
                )
            return False
        if len(self._known) < REMEMBERED:
            self._known.setdefault((late.pattern, late.tz), [])
            self._stale_at_ms = 0
        return advanced

    def _count(self, now_ms: int) -> None:
        self._known = {rule: coming_ticks(*rule, now_ms) for rule in self._known}
        self._encoded = encode_ticks(self._known)
        # Counted again in time: the store may be a tick ahead of what we think.
        self._stale_at_ms = min(ticks[len(ticks) // 2] for ticks in self._known.values())
