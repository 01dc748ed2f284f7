"""`Neighbours`: warns of other clients that harm a queue."""

from __future__ import annotations

import re
from typing import Final

from corral.loggers import Logger
from corral.store.queue_store import QueueStore

__all__ = ["Neighbours"]

log = Logger("corral.worker")

FIRST_WITHOUT_PAUSED: Final = 6
"""The first major version of BullMQ that leaves waiting jobs in `wait` while a queue is paused
(wire § 6.14).
"""


class Neighbours:
    """Watches the other clients of one queue, and logs a warning once for each problem.

    The problems: two versions of BullMQ that lose each other's jobs, and a rate limit that only
    another client knows.

    Args:
        store: The queue.
    """

    def __init__(self, store: QueueStore) -> None:
        self._store = store
        self._major: int | None = None
        self._was_limited = False
        self._count = 0
        self._saw_none = False
        self._logged: set[str] = set()

    async def look(self) -> None:
        """Find out which versions of BullMQ use the queue.

        It is a call to the store, to be made from time to time. The store has the version of the
        client that connected last, and no other (wire § 2.3, trap T1). Two versions share a queue
        if that changes, or if there are jobs in the list that only BullMQ 5 needs.

        Raises:
            StoreUnavailable: The store is away.
            ResponseError: The store answered with an error.
        """
        version, aside, limited = await self._store.operate("neighbours")
        self._was_limited = self._was_limited or limited == 1
        found = re.match(rb"bullmq:(\d+)", version)
        if found is None:
            return
        before, self._major = self._major, int(found[1])
        is_new = self._major >= FIRST_WITHOUT_PAUSED
        has_changed = before is not None and (before >= FIRST_WITHOUT_PAUSED) != is_new
        if has_changed or (is_new and aside):
            resume = f"`corral resume {self._store.queue}`"
            self._warn_once(
                "BullMQ 5 and BullMQ 6 share a queue: jobs that 6 adds while the queue is paused"
                " are lost when 5 resumes it",
                f"use one major version of BullMQ per queue; until then, resume it with {resume}",
            )

    def check_count(self, count: int) -> None:
        """Check the counter of a rate limit that a fetch has read: `Advanced.others_count`.

        After a limit for all workers was removed, its counter remains for a while. It neither
        changes nor comes back: this distinguishes it from the counter of another client's limit.
        """
        if not count:
            self._saw_none = True
            return
        comes_anew = self._saw_none and (self._count > 0 or not self._was_limited)
        if comes_anew or (self._count and count != self._count):
            limit = f"`corral limit {self._store.queue} --rate 100/1m`"
            self._warn_once(
                "another client's worker limits the rate of a queue by itself: Corral's workers do"
                " not know its limit",
                f"limit it for all workers: {limit}, or BullMQ's setGlobalRateLimit",
            )
        self._count, self._saw_none = count, False

    def _warn_once(self, sentence: str, hint: str) -> None:
        if sentence not in self._logged:
            self._logged.add(sentence)
            log.warning(sentence, queue=self._store.queue, hint=hint)
