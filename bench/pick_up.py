"""How soon an idle worker starts a job: by the store's own record of when it wrote each event."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.peer import Peer
from bench.rounds import Bench, show_progress, wait_until
from bench.store import Store

KIND = "noop"
JOBS = 150
"""In each round."""


@dataclass(frozen=True, slots=True)
class PickUps:
    """Milliseconds, by percentile (`p50`, `p99`), round by round.

    Attributes:
        ours: Corral's.
        theirs: Those of BullMQ for Node; empty where it is not there.
    """

    ours: dict[str, Sequence[float]]
    theirs: dict[str, Sequence[float]]


def pick_ups(bench: Bench) -> PickUps:
    """Measure both sides, in turns."""
    stage = bench.stage()
    rounds: dict[str, list[list[float]]] = {}
    for number in range(bench.rounds):
        for peer in (stage.corral, *([stage.node] if stage.node else [])):
            show_progress(f"pick-up, round {number + 1}: {peer.name}")
            rounds.setdefault(peer.name, []).append(
                start_milliseconds(stage.store, peer, bench.count(JOBS))
            )
    show_progress("")

    def percentiles(peer: Peer | None) -> dict[str, Sequence[float]]:
        if peer is None:
            return {}
        taken = rounds[peer.name]
        return {f"p{share}": [percentile(each, share) for each in taken] for share in (50, 99)}

    return PickUps(percentiles(stage.corral), percentiles(stage.node))


def percentile(taken: Sequence[float], share: int) -> float:
    """The smallest figure that `share` per cent of all do not exceed."""
    return sorted(taken)[math.ceil(share / 100 * len(taken)) - 1]


def start_milliseconds(store: Store, peer: Peer, count: int) -> list[float]:
    """How long an idle worker takes to start each of so many jobs, one after the other.

    MONITOR says when the store wrote the events `waiting` and `active`, in microseconds.
    """
    store.client.flushdb()
    queue = f"{peer.prefix}:{KIND}"
    peer.ask("start", kind=KIND, concurrency=1)
    took: list[float] = []
    client: Any = store.client  # its monitor has no types
    with client.monitor() as seen:
        for number in range(count):

            def is_idle(done: int = number) -> bool:
                return store.blocked_clients() > 0 and store.completed(queue) >= done

            wait_until(is_idle, f"{peer.name} waits for job {number}")
            peer.ask("add", kind=KIND, count=1, callers=1)
            waiting = _moment(seen, "waiting")
            took.append(1000 * (_moment(seen, "active") - waiting))
    peer.ask("stop")
    return took


def _moment(seen: Any, event: str) -> float:
    """When the store writes the next event of this name, in seconds."""
    while True:
        command = seen.next_command()
        if f" * event {event} " in command["command"]:
            return float(command["time"])
