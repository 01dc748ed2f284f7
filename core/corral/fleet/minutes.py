"""Wait and run times of the last day, by minutes: workers add them up, and the board draws them.

BullMQ counts how many jobs finished in a minute (wire § 6.23), but not how long they took. These
figures cover the runs of Corral's own workers. The hash has one field for each minute of a day, so
it never grows. The figures may be too low: a worker that does not know whether the store has its
sums does not send them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from corral.errors import ConfigurationError
from corral.store.clock import Clock
from corral.store.connection import Link
from corral.store.keys import minutes_key, queue_base
from corral.store.scripts import run, script

__all__ = ["KEPT_MINUTES", "Minute", "Sums", "add_minutes", "read_minutes"]

KEPT_MINUTES: Final = 1440
"""A day, which is the most that a page shows."""
MINUTE_MS: Final = 60_000
_LIVES_MS: Final = KEPT_MINUTES * MINUTE_MS + MINUTE_MS
"""How long the hash lives after its last write: a day, and the minute that was written."""


@dataclass(slots=True)
class Sums:
    """What is added to a minute.

    Attributes:
        jobs: How many runs ended in it.
        first_starts: How many of these runs were the first start of their job.
        wait_ms: How long the jobs of the first starts had waited since they were due, in total.
        run_ms: How long the processors of all runs ran, in total.
        longest_run_ms: How long the longest run took.
    """

    jobs: int = 0
    first_starts: int = 0
    wait_ms: int = 0
    run_ms: int = 0
    longest_run_ms: int = 0


@dataclass(frozen=True, slots=True)
class Minute:
    """The runs that ended in one minute.

    Attributes:
        at: When the minute began (aware, UTC), by the store's clock.
        jobs: How many runs ended: attempts, and starts that spent none.
        wait_ms: How long jobs had waited from their due time to their first start, in total.
        run_ms: How long the processors ran, in total.
        longest_run_ms: How long the longest run took.
        first_starts: How many runs `wait_ms` is the sum of. Only first starts count: the store does
            not say since when a job has waited for its next attempt.
    """

    at: datetime
    jobs: int = 0
    wait_ms: int = 0
    run_ms: int = 0
    longest_run_ms: int = 0
    first_starts: int = 0

    @property
    def mean_wait_ms(self) -> float | None:
        """How long a job waited on average; None where no job started for the first time."""
        return self.wait_ms / self.first_starts if self.first_starts else None

    @property
    def mean_run_ms(self) -> float | None:
        """How long a run took on average; None where no run ended."""
        return self.run_ms / self.jobs if self.jobs else None


async def add_minutes(link: Link, prefix: str, queue: str, minutes: Mapping[int, Sums]) -> None:
    """Add to a queue's minutes.

    Args:
        link: The connection.
        prefix: The first part of the queue's keys.
        queue: Its name.
        minutes: What to add, by minute: Unix milliseconds of the store's clock, divided by
            60,000.

    Raises:
        StoreUnavailable: The store is away; where its `outcome` is `"unknown"`, the sums may have
        been added.
    """
    arguments = [KEPT_MINUTES, _LIVES_MS]
    for minute, sums in minutes.items():
        arguments += [
            minute,
            sums.jobs,
            sums.first_starts,
            sums.wait_ms,
            sums.run_ms,
            sums.longest_run_ms,
        ]
    await run(
        link,
        script("add_minutes", __package__),
        [minutes_key(queue_base(prefix, queue))],
        arguments,
    )


async def read_minutes(
    link: Link, prefix: str, queue: str, count: int = 60, *, clock: Clock | None = None
) -> tuple[Minute, ...]:
    """The last minutes of a queue, in one round trip.

    Args:
        link: The connection.
        prefix: The first part of the queue's keys.
        queue: Its name.
        count: How many minutes, from 1 to `KEPT_MINUTES`; the last of them is not over yet.
        clock: What is added to the store's time, in tests.

    Returns:
        `count` minutes, the newest last; all figures of a minute in which no run ended are zero.

    Raises:
        ConfigurationError: `count` is out of bounds.
        StoreUnavailable: The store is away.
    """
    if not 1 <= count <= KEPT_MINUTES:
        raise ConfigurationError(
            f"the history of a queue has 1 to {KEPT_MINUTES} minutes, not {count}"
        )
    offset_ms = clock.offset_ms if clock else 0
    key = minutes_key(queue_base(prefix, queue))
    now, slots = await run(
        link, script("minutes", __package__), [key], [offset_ms, count, KEPT_MINUTES]
    )
    return tuple(_minute(now - count + 1 + place, slot) for place, slot in enumerate(slots))


def _minute(minute: int, slot: bytes | None) -> Minute:
    at = datetime.fromtimestamp(minute * MINUTE_MS / 1000, UTC)
    of, *sums = map(int, slot.split()) if slot else (-1,)
    if of != minute:  # the place still holds the minute of another day
        return Minute(at)
    jobs, first_starts, wait_ms, run_ms, longest_run_ms = sums
    return Minute(at, jobs, wait_ms, run_ms, longest_run_ms, first_starts)
