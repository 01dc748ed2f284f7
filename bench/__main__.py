"""Corral beside its peers: `python -m bench`, in one run, on one embedded server.

For Corral (its real producer and its real worker), BullMQ for Node and BullMQ for Python, each in a process of its
own: no-op jobs added and drained per second, and the store's CPU time for one job's whole life, at concurrency 1, 10
and 100; medians of three rounds in which the peers take turns, and ratios. At concurrency n, n callers each add one
job after the other, and the worker runs n jobs at once. Nothing is asserted.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from importlib import metadata

from bench.measure import (
    CONCURRENCIES,
    ROUNDS,
    Figures,
    Peer,
    Store,
    corral_peer,
    fresh_store,
    machine,
    medians,
    node_peer,
    python_peer,
)

JOBS = {1: 2_000, 10: 6_000, 100: 20_000}
"""By concurrency: about a second of work."""
SLOW = {"BullMQ Python": 5}
"""Peers that get so many times fewer jobs, so that a run takes minutes; rates do not depend on it."""
WARM_UP = 500
GOAL_DRAINED_NODE, GOAL_DRAINED_PYTHON, GOAL_CPU_NODE, MUST_DRAINED_NODE = 1.5, 12.0, 0.6, 1.2
"""What concurrency 100 is meant to show, and what it must."""


def told(progress: str) -> None:
    """What is being measured, to whoever watches."""
    if sys.stderr.isatty():
        print(f"\r{progress:60}\r", end="", file=sys.stderr, flush=True)


def run(store: Store, peers: list[Peer]) -> dict[int, dict[str, Figures]]:
    """The medians, by concurrency and peer."""
    for peer in peers:
        peer.measure(store, WARM_UP, 10)
    results: dict[int, dict[str, Figures]] = {}
    for concurrency in CONCURRENCIES:
        rounds: dict[str, list[Figures]] = {peer.name: [] for peer in peers}
        for number in range(ROUNDS):
            for peer in peers:
                told(f"concurrency {concurrency}, round {number + 1}: {peer.name}")
                count = JOBS[concurrency] // SLOW.get(peer.name, 1)
                rounds[peer.name].append(peer.measure(store, count, concurrency))
        results[concurrency] = {name: medians(taken) for name, taken in rounds.items()}
    told("")
    return results


def table(results: dict[int, dict[str, Figures]]) -> list[str]:
    """One line per concurrency and peer; ratios are Corral's figure by the peer's."""
    columns = ("concurrency", "", "added/s", "drained/s", "store µs/job", "added", "drained", "store CPU")
    lines = [f"{'':11}  {'':14} {'':9} {'':10} {'':13} {'Corral is so many times the peer:':>33}"]
    lines += ["{:>11}  {:14} {:>9} {:>10} {:>13} {:>9} {:>10} {:>12}".format(*columns)]
    for concurrency, by_name in results.items():
        ours = by_name["Corral"]
        for name, figures in by_name.items():
            line = f"{concurrency:>11}  {name:14} {figures.added:>9,.0f} {figures.drained:>10,.0f}"
            line += f" {figures.life_us:>13.1f}"
            if figures is not ours:
                line += f" {ours.added / figures.added:>9.2f} {ours.drained / figures.drained:>10.2f}"
                line += f" {ours.life_us / figures.life_us:>12.2f}"
            lines.append(line)
    return lines


def goals(at: dict[str, Figures]) -> list[str]:
    """Whether the goals were met; said, never asserted: a busy machine proves nothing."""
    ours, node, python = at["Corral"], at["BullMQ Node"], at["BullMQ Python"]
    drained = ours.drained / node.drained
    checks = [
        (f"drained ≥ {GOAL_DRAINED_NODE} x BullMQ Node", drained, drained >= GOAL_DRAINED_NODE),
        (f"drained ≥ {MUST_DRAINED_NODE} x BullMQ Node (must hold)", drained, drained >= MUST_DRAINED_NODE),
        (
            f"drained ≥ {GOAL_DRAINED_PYTHON:g} x BullMQ Python",
            ours.drained / python.drained,
            ours.drained >= GOAL_DRAINED_PYTHON * python.drained,
        ),
        (
            f"store CPU ≤ {GOAL_CPU_NODE} x BullMQ Node",
            ours.life_us / node.life_us,
            ours.life_us <= GOAL_CPU_NODE * node.life_us,
        ),
    ]
    return [f"  {'held' if held else 'NOT held':8}  {goal}: {ratio:.2f}" for goal, ratio, held in checks]


def main() -> None:
    """Measure and print."""
    with fresh_store() as store, ExitStack() as stack:
        peers = [stack.enter_context(opened(store)) for opened in (corral_peer, node_peer, python_peer)]
        print(f"{machine(store)}, BullMQ for Python {metadata.version('bullmq')}")
        print(f"no-op jobs, all kept; medians of {ROUNDS}; ratios are Corral's figure by the peer's\n")
        results = run(store, peers)
        print("\n".join(table(results)))
        print("\ngoals at concurrency 100:")
        print("\n".join(goals(results[100])))


if __name__ == "__main__":
    main()
