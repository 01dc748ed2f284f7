"""`ScheduleKeeper`: keeps the schedule that a queue declares in the store (wire § 6.21).

A schedule that was installed once, at start, would end for good if the store came back empty or one
of its keys were deleted. So a worker checks it after every outage and once per stalled interval.
These checks only repair what is gone: a schedule that another release declares, or that an operator
has removed, is left as it is.
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
"""Jitter that keeps a fleet's checks apart."""
AGAIN_SECONDS = 2.0
"""How soon a check is repeated that the store has not answered, or has refused.

A store whose memory is full may refuse for hours.
"""
TROUBLE = "schedule"
"""The kind of our sentences in `Worker.troubles`."""


def declared_by(queue: Queue[Any]) -> NewSchedule | None:
    """Return the schedule that a queue declares, or None.

    Its payload is empty: each worker fills in its own model's defaults, which differ by release.
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
        self._may_doubt = True
        self._problem = ""
        self._overdue: list[str] = []
        self._logged: set[str] = set()

    async def install(self) -> None:
        """Install the schedule that the queue declares, when a worker starts.

        If the queue declares none any more, and one is installed, this is logged. A schedule that
        cannot be installed, because its keys are damaged, does not stop the worker.

        Raises:
            StoreUnavailable: The store is away, or refuses to write.
        """
        try:
            await self._install()
        except StoreUnavailable:
            raise
        except (ResponseError, CorralError, ValueError) as error:
            self._report_problem(error)
        self._installed.set()

    def check_soon(self) -> None:
        """Check soon whether the schedule is still there: the queue has no job now or later.

        If the check finds it, as in a paused queue, calls are ignored until the next regular check.
        """
        if self._declared and self._may_doubt:
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
        """Check after every outage and once per interval until cancelled; wait for `install` first.

        Args:
            outage: Causes a check when an outage has ended.
            interval_seconds: The time between two checks.
            troubles: Gets a sentence under `(queue, "schedule")` as long as there is a problem that
                an operator must solve.
            repaired: Counts repaired schedules, by queue.
            checked: Called at each check.
        """
        await self._installed.wait()
        loop = asyncio.get_running_loop()
        outage.on_end(lambda: loop.call_soon_threadsafe(self._due.set))
        seconds = interval_seconds
        while True:
            self._list_problems(troubles)
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds + random.random() * SPREAD_SECONDS):  # noqa: S311  # no secret
                    await self._due.wait()
            was_early = self._due.is_set()
            self._due.clear()
            checked()
            try:
                was_repaired = await self._check()
            except StoreUnavailable:  # the consumer logs it; the end of the outage wakes us
                seconds = min(AGAIN_SECONDS, interval_seconds)
            else:
                repaired[self._store.queue] += was_repaired
                self._may_doubt = was_repaired or not was_early
                seconds = interval_seconds

    async def _install(self) -> None:
        if self._declared is None:
            if await self._schedules.get(self._store.queue):
                log.warning(
                    "schedule is not declared any more and still runs: `corral schedules prune`"
                    " removes it",
                    queue=self._store.queue,
                )
            return
        change, next_ms = await self._schedules.ensure(self._declared, "start")
        fields = {"queue": self._store.queue, "next": _iso_time(next_ms)}
        if change == "removed":
            self._warn_removed()
        elif change == "resumed":
            log.warning(
                "schedule had ended: another client ran its tick and made no next one; resumed",
                **fields,
            )
        elif change != "untouched":
            log.info(f"schedule {change}", **fields)

    async def _check(self) -> bool:
        """Check once; return whether the schedule was gone and was repaired."""
        was_repaired = False
        try:
            was_repaired = self._declared is not None and await self._repair(self._declared)
            self._overdue = [
                self._warn_overdue(each)
                for each in await self._schedules.overdue()
                if _is_lost(each)
            ]
        except StoreUnavailable:
            raise
        except (ResponseError, CorralError, ValueError) as error:
            self._report_problem(error)
        else:
            self._problem = ""
        return was_repaired

    async def _repair(self, declared: NewSchedule) -> bool:
        change, next_ms = await self._schedules.ensure(declared, "check")
        fields = {"queue": self._store.queue, "next": _iso_time(next_ms)}
        if change == "removed":
            self._warn_removed()
        elif change == "different":
            self._warn_once(
                "schedule differs from the one that is declared here, and is left as it is: another"
                " release may have installed it; the next worker that starts decides",
                **fields,
            )
        elif change == "made":
            log.warning("schedule was gone from the store: made again", **fields)
        elif change == "resumed":
            log.warning(
                "schedule would not have run any more, because its next run was gone: resumed",
                **fields,
            )
        return change in {"made", "resumed"}

    def _warn_removed(self) -> None:
        self._warn_once(
            "schedule was removed by an operator and stays removed: `corral schedules restore`"
            " brings it back",
            queue=self._store.queue,
        )

    def _report_problem(self, error: Exception) -> None:
        self._problem = f"the schedules of queue {self._store.queue!r} cannot be kept: {error}"
        self._warn_once(
            "schedules cannot be kept: jobs still run, but no schedule is repaired",
            error=str(error),
        )

    def _warn_overdue(self, overdue: Overdue) -> str:
        """Log that a schedule is overdue, and return a sentence for operators."""
        tick = _iso_time(overdue.tick_ms)
        fields = {"queue": self._store.queue, "schedule": overdue.id, "due": tick}
        if overdue.gone:
            self._warn_once(
                "schedule has no next run: its last one is gone, or ended without one", **fields
            )
            return (
                f"schedule {overdue.id!r} of queue {self._store.queue!r} has no next run since"
                f" {tick}: schedule it again, or end it with unschedule(queue, id)"
            )
        fields["expression"] = overdue.pattern
        self._warn_once(
            "schedule is overdue: only another client can read its cron expression, and none has",
            **fields,
        )
        return (
            f"schedule {overdue.id!r} of queue {self._store.queue!r} was due at {tick}, and its"
            f" cron expression {overdue.pattern!r} can only be read by another client"
        )

    def _warn_once(self, event: str, **fields: Any) -> None:
        """Log a warning once per schedule and error in this process."""
        about = f"{event} {fields.get('schedule', '')} {fields.get('error', '')}"
        if about not in self._logged:
            self._logged.add(about)
            log.warning(event, **{"queue": self._store.queue, **fields})

    def _list_problems(self, troubles: MutableMapping[tuple[str, str], str]) -> None:
        """Write the present problems into `troubles`, or remove those that are solved."""
        sentences = [*filter(None, [self._problem]), *self._overdue]
        if sentences:
            troubles[self._store.queue, TROUBLE] = "; ".join(sentences)
        else:
            troubles.pop((self._store.queue, TROUBLE), None)


def _is_lost(overdue: Overdue) -> bool:
    """Whether no next run will come: the last one is gone, or we cannot parse its expression."""
    if overdue.gone:
        return True
    try:
        coming_ticks(overdue.pattern, overdue.tz, int(time.time() * 1000), 1)
    except ValueError:
        return overdue.late_ms >= overdue_ms(overdue)
    return False


def _iso_time(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat()
