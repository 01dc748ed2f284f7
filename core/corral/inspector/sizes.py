"""How many jobs of a queue are in each state, even if some of its keys are damaged."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from corral.inspector.escapes import escaped
from corral.inspector.limits import Limits, decode_limits
from corral.inspector.queue_access import QueueAccess
from corral.inspector.refusals import DamagedKey
from corral.inspector.stored_job import CONTAINER
from corral.job_state import JobState
from corral.queue import Queue

__all__ = [
    "NO_RETRYING",
    "QueueSizes",
    "Retrying",
    "decode_damaged_keys",
    "decode_sizes",
    "known_size",
    "read_all_sizes",
    "read_counts",
    "read_sizes",
    "state_counts",
]


@dataclass(frozen=True, slots=True)
class Retrying:
    """How many delayed jobs wait for another attempt after a failed one.

    Its text is the count, or `≥ ` and the count if it is a lower bound.

    Attributes:
        count: How many of the 2,000 delayed jobs that are due first have failed attempts.
        is_bound: Whether there are more delayed jobs, which were not looked at.
    """

    count: int = 0
    is_bound: bool = False

    def __str__(self) -> str:
        return f"≥ {self.count}" if self.is_bound else str(self.count)


NO_RETRYING: Final = Retrying()
"""Where a queue could not be read."""


@dataclass(frozen=True, slots=True)
class QueueSizes:
    """How many jobs a queue has, and its limits.

    Attributes:
        counts: How many jobs are in each state; None if the key that holds them is damaged.
        quarantined: How many jobs are in quarantine; None if that key is damaged.
        limits: The queue's limits; none if the key `meta` is damaged.
        damaged: One text for each damaged key of the queue: `<key> is a <type>, not a <type>`.
        retrying: How many of the delayed jobs have failed attempts.
    """

    counts: Mapping[JobState, int | None]
    quarantined: int | None
    limits: Limits
    damaged: tuple[str, ...]
    retrying: Retrying = NO_RETRYING


async def read_sizes(access: QueueAccess, queue: Queue[Any] | str) -> QueueSizes:
    """Read a queue's sizes in one call."""
    return decode_sizes(await access.run("counts", queue))


def decode_sizes(reply: Sequence[Any]) -> QueueSizes:
    """A queue's sizes, from the reply of counts.lua."""
    found, quarantined, limits, damaged, retrying, more = reply
    return QueueSizes(
        state_counts(found),
        known_size(quarantined),
        decode_limits(limits),
        decode_damaged_keys(damaged),
        Retrying(retrying, is_bound=more == 1),
    )


async def read_all_sizes(access: QueueAccess) -> dict[str, QueueSizes]:
    """Read the sizes of each queue of the catalog, one call each; see `QueueAccess.read_each`."""

    def placeholder(_: str, problem: str) -> QueueSizes:
        return QueueSizes(dict.fromkeys(JobState), None, Limits(), (problem,))

    return await access.read_each(lambda name: read_sizes(access, name), placeholder)


async def read_counts(
    access: QueueAccess, queue: Queue[Any] | str, states: Collection[JobState]
) -> dict[JobState, int]:
    """Read how many jobs are in each of some states, in one call.

    Raises:
        DamagedKey: The key that holds the jobs of one of these states is damaged.
    """
    found = await read_sizes(access, queue)
    known = {
        state: count
        for state, count in found.counts.items()
        if count is not None and state in states
    }
    base = escaped(access.base(queue).encode())
    unknown = tuple(f"{base}{CONTAINER[state]} is " for state in states if state not in known)
    if unknown:
        raise DamagedKey(*(each for each in found.damaged if each.startswith(unknown)))
    return known


def state_counts(found: Sequence[int]) -> dict[JobState, int | None]:
    """How many jobs are in each state, from the sizes that sizes.lua returns.

    Jobs that BullMQ 5 has moved to the list `paused` count as waiting (wire § 6.14).
    """
    wait, aside, *others = found
    waiting = wait + max(aside, 0) if wait >= 0 else wait
    return dict(zip(JobState, map(known_size, (waiting, *others)), strict=True))


def known_size(count: int) -> int | None:
    """A count as scripts return it, where a negative one means a damaged key: None."""
    return None if count < 0 else count


def decode_damaged_keys(damaged: Sequence[bytes]) -> tuple[str, ...]:
    """The damage that scripts report, as printable texts."""
    return tuple(map(escaped, damaged))
