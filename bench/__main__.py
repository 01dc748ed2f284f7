"""Corral beside its peers: `python -m bench`, in one run, on one embedded server.

For Corral (its real producer and its real worker), BullMQ for Node and BullMQ for Python, each in a process of its
own: no-op jobs added and drained per second, and the store's CPU time for one job's whole life, at concurrency 1, 10
and 100; medians of three rounds in which the peers take turns, and ratios. At concurrency n, n callers each add one
job after the other, and the worker runs n jobs at once. Then how soon an idle worker starts a job, and what one
command costs the client. Nothing is asserted.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from contextlib import ExitStack
from importlib import metadata

import redis.asyncio

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
from corral.store.connection import Link

JOBS = {1: 2_000, 10: 6_000, 100: 20_000}
"""By concurrency: about a second of work."""
SLOW = {"BullMQ Python": 5}
"""Peers that get so many times fewer jobs, so that a run takes minutes; rates do not depend on it."""
WARM_UP = 500
PICK_UPS = 300
ROUND_TRIPS = 5_000
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


def pick_ups(store: Store, peers: list[Peer]) -> list[str]:
    """How soon an idle worker starts a job."""
    lines = ["an idle worker starts a job after, in ms:"]
    for peer in peers:
        told(f"pick-up: {peer.name}")
        took = sorted(peer.pick_ups(store, PICK_UPS))
        p50, p99 = (1000 * took[int(share * len(took))] for share in (0.5, 0.99))
        lines.append(f"  {peer.name:14} {p50:6.2f} (median) {p99:6.2f} (99 of 100)")
    told("")
    return lines


async def round_trips(url: str) -> list[str]:
    """What one command costs the client, over our connection and over the client library's."""
    ours, theirs = Link(url), redis.asyncio.Redis.from_url(url, single_connection_client=True)
    calls = {"ours": lambda: ours.call("GET", "none"), "redis-py's": lambda: theirs.get("none")}
    lines = ["a round trip of GET costs the client, in µs of CPU:"]
    for name, call in calls.items():
        taken: list[float] = []
        for _ in range(ROUNDS + 1):
            began = time.process_time()
            for _ in range(ROUND_TRIPS):
                await call()
            taken.append((time.process_time() - began) / ROUND_TRIPS * 1e6)
        lines.append(f"  {name:14} {statistics.median(taken[1:]):6.1f}")
    await ours.close()
    await theirs.aclose()
    return lines


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
        print("\n" + "\n".join(pick_ups(store, peers)))
        print("\n" + "\n".join(asyncio.run(round_trips(store.url))))


if __name__ == "__main__":
    main()
