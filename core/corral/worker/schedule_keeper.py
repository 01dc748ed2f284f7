"""`ScheduleKeeper`: keeps what one queue declares in the store, as long as a worker serves it (wire
§ 6.21).

A schedule that is made once, at start, ends for good when the store comes back empty or one of its
keys is deleted. So it is looked at again after every outage and once per stalled interval. The
repeated look only repairs what is gone: what another release declares, and what an operator has
removed, is left as it is.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from corral.errors import CorralError, StoreUnavailable
from corral.loggers import Logger
from corral.queue import Queue
from corral.store.queue_store import QueueStore
from corral.store.replies import ResponseError
from corral.store.schedules import NewSchedule, Overdue, Schedules, coming_ticks, overdue_ms
from corral.worker.outage import Outage

__all__ = ["ScheduleKeeper", "declared_by"]

log = Logger("corral.worker")

SPREAD_SECONDS = 0.1
"""Keeps a fleet's checks apart."""
AGAIN_SECONDS = 2.0
"""How soon a check is repeated that the store has not answered, or has refused: its memory may be
full for hours.
"""
TROUBLE = "schedule"
"""The kind of our sentences in `Worker.troubles`."""


def declared_by(queue: Queue[Any]) -> NewSchedule | None:
    """The schedule that a queue declares, or None.

    Its payload is empty, and the worker fills in the model's defaults: an older worker's may
    differ.
    """
    if queue.schedule is None:
        return None
    return NewSchedule(queue.name, queue.name, b"{}", queue.options, queue.schedule)


class ScheduleKeeper:
    """Keeps one queue's schedules.

    Args:
        store: The queue in the store.
        queue: Its declaration.
    """

    def __init__(self, store: QueueStore, queue: Queue[Any]) -> None:
        self._store = store
        self._schedules = Schedules(store)
        self._declared = declared_by(queue)
        self._installed = asyncio.Event()
        self._due = asyncio.Event()
        self._doubtful = True
        self._broken = ""
        self._late: list[str] = []
        self._told: set[str] = set()

    async def install(self) -> None:
        """Install what the queue declares, or say that what is installed is declared no longer,
        when a worker starts.

        A schedule that cannot be installed, because its keys are damaged, keeps nobody from working
        off the queue.

        Raises:
            StoreUnavailable: The store is away, or refuses to write.
        """
        try:
            await self._install()
        except StoreUnavailable:
            raise
        except (ResponseError, CorralError, ValueError) as error:
            self._breaks(error)
        self._installed.set()

    def doubt(self) -> None:
        """Nothing waits and nothing is to come: look soon whether the schedule is still there.

        Where it was, as in a paused queue, only the next regular look counts again.
        """
        if self._declared and self._doubtful:
            self._due.set()

    async def keep(
        self,
        outage: Outage,
        *,
        interval_seconds: float,
        troubles: MutableMapping[tuple[str, str], str],
        repaired: Counter[str],
        checked: Callable[[], object],
    ) -> None:
        """Check after every outage and once per interval, until cancelled; begins when `install` is
        done.

        Args:
            outage: Wakes it when one has ended.
            interval_seconds: The time between two checks.
            troubles: Has a sentence under `(queue, "schedule")` while something is wrong that an
            operator must know.
            repaired: How often a schedule was repaired, by queue.
            checked: Told of each check.
        """
        await self._installed.wait()
        loop = asyncio.get_running_loop()
        outage.on_end(lambda: loop.call_soon_threadsafe(self._due.set))
        seconds = interval_seconds
        while True:
            self._tell(troubles)
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds + random.random() * SPREAD_SECONDS):  # noqa: S311  # no secret
                    await self._due.wait()
            doubted = self._due.is_set()
            self._due.clear()
            checked()
            try:
                mended = await self._check()
            except StoreUnavailable:  # the consumer tells, and wakes us when it is back
                seconds = min(AGAIN_SECONDS, interval_seconds)
            else:
                repaired[self._store.queue] += mended
                self._doubtful = mended or not doubted
                seconds = interval_seconds

    async def _install(self) -> None:
        if self._declared is None:
            if await self._schedules.get(self._store.queue):
                log.warning(
                    "schedule is not declared any more and still runs: `corral schedules prune` removes it",
                    queue=self._store.queue,
                )
            return
        word, next_ms = await self._schedules.ensure(self._declared, "start")
        told = {"queue": self._store.queue, "next": _moment(next_ms)}
        if word == "removed":
            self._tell_removed()
        elif word == "resumed":
            log.warning(
                "schedule had ended: another client ran its tick and made no next one; resumed",
                **told,
            )
        elif word != "untouched":
            log.info(f"schedule {word}", **told)

    async def _check(self) -> bool:
        """Look once; returns whether the schedule was gone and is there again."""
        mended = False
        try:
            mended = self._declared is not None and await self._repair(self._declared)
            self._late = [
                self._sentence(each) for each in await self._schedules.overdue() if _is_lost(each)
            ]
        except StoreUnavailable:
            raise
        except (ResponseError, CorralError, ValueError) as error:
            self._breaks(error)
        else:
            self._broken = ""
        return mended

    async def _repair(self, declared: NewSchedule) -> bool:
        word, next_ms = await self._schedules.ensure(declared, "check")
        told = {"queue": self._store.queue, "next": _moment(next_ms)}
        if word == "removed":
            self._tell_removed()
        elif word == "different":
            self._warn_once(
                "schedule is not as it is declared here, and is left so: another release may have installed it; the"
                " next worker that starts decides",
                **told,
            )
        elif word == "made":
            log.warning("schedule was gone from the store: made again", **told)
        elif word == "resumed":
            log.warning(
                "schedule would not have run any more, because its next run was gone: resumed",
                **told,
            )
        return word in {"made", "resumed"}

    def _tell_removed(self) -> None:
        self._warn_once(
            "schedule was removed by an operator and stays removed: `corral schedules restore` brings it back",
            queue=self._store.queue,
        )

    def _breaks(self, error: Exception) -> None:
        self._broken = f"the schedules of queue {self._store.queue!r} cannot be kept: {error}"
        self._warn_once(
            "schedules cannot be kept, jobs are worked off all the same", error=str(error)
        )

    def _sentence(self, overdue: Overdue) -> str:
        tick = _moment(overdue.tick_ms)
        told = {"queue": self._store.queue, "schedule": overdue.id, "due": tick}
        if overdue.gone:
            self._warn_once(
                "schedule has no next run: its last one is gone, or ended without one", **told
            )
            return (
                f"schedule {overdue.id!r} of queue {self._store.queue!r} has no next run since {tick}:"
                " schedule it again, or end it with unschedule()"
            )
        told["expression"] = overdue.pattern
        self._warn_once(
            "schedule is overdue: only another client can read its cron expression, and none has",
            **told,
        )
        return (
            f"schedule {overdue.id!r} of queue {self._store.queue!r} was due at {tick}, and its cron expression"
            f" {overdue.pattern!r} can only be read by another client"
        )

    def _warn_once(self, event: str, **told: Any) -> None:
        """Log a warning the first time that it is true of a schedule, for as long as the process
        lives.
        """
        about = f"{event} {told.get('schedule', '')} {told.get('error', '')}"
        if about not in self._told:
            self._told.add(about)
            log.warning(event, **{"queue": self._store.queue, **told})

    def _tell(self, troubles: MutableMapping[tuple[str, str], str]) -> None:
        sentences = [*filter(None, [self._broken]), *self._late]
        if sentences:
            troubles[self._store.queue, TROUBLE] = "; ".join(sentences)
        else:
            troubles.pop((self._store.queue, TROUBLE), None)


def _is_lost(overdue: Overdue) -> bool:
    """Whether no next run will be made: the last one is gone, or its expression is another client's
    to read.
    """
    if overdue.gone:
        return True
    try:
        coming_ticks(overdue.pattern, overdue.tz, int(time.time() * 1000), 1)
    except ValueError:
        return overdue.late_ms >= overdue_ms(overdue)
    return False


def _moment(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat()
