"""A worker by hand, for what happens to a schedule between two calls."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

from corral import Cron, Every, JobOptions, Retention
from corral.outcome import Completed, Outcome
from corral.store.codec import Ending, FetchedJob
from corral.store.connection import Link
from corral.store.queue_store import QueueStore
from corral.store.schedules import NewSchedule, Schedules

NAME = "reports"


class Hand:
    """A worker by hand: it moves the store's time and does one call after the other.

    Attributes:
        store: The queue; its `offset_ms` is what moves.
        schedules: Its schedules.
    """

    def __init__(self, url: str) -> None:
        self.store = QueueStore(Link(url), "bull", NAME)
        self.schedules = Schedules(self.store)
        self._seq = 0

    async def ensure(
        self, when: Cron | Every, schedule_id: str = NAME, *, why: Any = "asked", **different: Any
    ) -> str:
        new = NewSchedule(
            schedule_id, NAME, b"{}", JobOptions(keep_completed=Retention(count=5)), when
        )
        return (await self.schedules.ensure(replace(new, **different), why))[0]

    async def tick(self, schedule_id: str = NAME) -> int:
        """The current tick, Unix ms."""
        (stored,) = (each for each in await self.schedules.list() if each.id == schedule_id)
        return stored.next_ms

    def move_to(self, moment_ms: float) -> None:
        # Not a millisecond earlier, though both clocks are rounded down: a call takes less than
        # one.
        self.store.clock.offset_ms = math.ceil(moment_ms - time.time() * 1000) + 1

    @property
    def now_ms(self) -> float:
        """The time, as far as it was moved."""
        return time.time() * 1000 + self.store.offset_ms

    async def fetch(self, want: int = 10) -> list[FetchedJob]:
        """Fetch what there is, as a worker does that knows no ticks beforehand."""
        self._seq += 1
        reply = await self.store.advance("hand", self._seq, [], want)
        for pending in reply.pending_successors:
            assert await self.schedules.make_successor(pending)
        return list(reply.jobs)

    async def complete(self, *jobs: FetchedJob) -> None:
        assert set(await self.end(Completed(), *jobs)) <= {0}

    async def end(self, outcome: Outcome, *jobs: FetchedJob) -> list[int]:
        """End jobs; returns the codes."""
        self._seq += 1
        return list(
            (
                await self.store.advance(
                    "hand", self._seq, [Ending(job, outcome) for job in jobs], 0
                )
            ).codes
        )

    async def run_due(self) -> list[int]:
        """Run what is due; returns the ticks."""
        jobs = await self.fetch()
        await self.complete(*jobs)
        return [job.scheduled_ms for job in jobs]
