"""How many jobs are where, though keys of the queue are damaged."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corral.inspector.calls import Calls
from corral.inspector.escapes import escaped
from corral.inspector.limits import Limits, decode_limits
from corral.inspector.refusals import DamagedKey
from corral.inspector.stored import CONTAINER, STATES, State
from corral.queue import Queue

__all__ = ["Sizes", "all_sizes", "counts", "damaged_in", "known_size", "sizes", "state_counts"]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many jobs a queue has.

    Attributes:
        counts: How many are in each state; None where the key that holds them is damaged.
        quarantined: How many are in quarantine; None where its key is damaged.
        limits: What holds the queue back; none where `meta` is damaged.
        damaged: What is wrong with the queue's own keys, each as `<key> is a <type>, not a <type>`.
    """

    counts: Mapping[State, int | None]
    quarantined: int | None
    limits: Limits
    damaged: tuple[str, ...]


async def sizes(calls: Calls, queue: Queue[Any] | str) -> Sizes:
    """How many jobs there are, in one call."""
    found, quarantined, limits, wrongs = await calls.run("counts", queue)
    return Sizes(
        state_counts(found), known_size(quarantined), decode_limits(limits), damaged_in(wrongs)
    )


async def all_sizes(calls: Calls) -> dict[str, Sizes]:
    """How many jobs there are in each queue of the catalog, in one call for each; see
    `Calls.of_each`.
    """

    def unread(_: str, why: str) -> Sizes:
        return Sizes(dict.fromkeys(STATES), None, Limits(), (why,))

    return await calls.of_each(lambda name: sizes(calls, name), unread)


async def counts(
    calls: Calls, queue: Queue[Any] | str, states: Collection[State]
) -> dict[State, int]:
    """How many jobs are in each of some states, in one call.

    Raises:
        DamagedKey: Of one of them nobody can tell.
    """
    found = await sizes(calls, queue)
    known = {
        state: count
        for state, count in found.counts.items()
        if count is not None and state in states
    }
    base = escaped(calls.base(queue).encode())
    unknown = tuple(f"{base}{CONTAINER[state]} is " for state in states if state not in known)
    if unknown:
        raise DamagedKey(*(each for each in found.damaged if each.startswith(unknown)))
    return known


def state_counts(found: Sequence[int]) -> dict[State, int | None]:
    """How many jobs are in each state, from the sizes that sizes.lua gives.

    What BullMQ 5 has put aside while the queue was paused waits (wire § 6.14).
    """
    wait, aside, *others = found
    waiting = wait + max(aside, 0) if wait >= 0 else wait
    return dict(zip(STATES, map(known_size, (waiting, *others)), strict=True))


def known_size(count: int) -> int | None:
    """A count; None where its key is damaged."""
    return None if count < 0 else count


def damaged_in(wrongs: Sequence[bytes]) -> tuple[str, ...]:
    """What scripts say is damaged, as texts that can be shown."""
    return tuple(map(escaped, wrongs))
