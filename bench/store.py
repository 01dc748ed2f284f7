"""What a job costs the store: `python -m bench.store`.

The server's own CPU time per no-op job, for adding it and for the rest of its life, of Corral's `QueueStore` (raw:
batches of n jobs, no worker around it) and of BullMQ for Node (n callers, and a worker that runs n jobs at once), at
concurrency 1, 10 and 100; medians of three rounds in which the two take turns, and ratios. Nothing is asserted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bench.measure import CONCURRENCIES, QUEUE, ROUNDS, Figures, Store, fresh_store, machine, medians, node_peer
from corral.options import JobOptions, Retention
from corral.outcome import Completed
from corral.store.codec import Ending, FetchedJob, NewJob, encode_options
from corral.store.connection import Link
from corral.store.queue_store import QueueStore

JOBS = {1: 2_000, 10: 10_000, 100: 20_000}
"""By concurrency."""
WARM_UP = 500
PREFIX = "raw"
OPTIONS = JobOptions(attempts=1, keep_completed=Retention(), keep_failed=Retention())
"""As BullMQ's own defaults: one attempt, every job kept."""


async def measure_raw(store: Store, count: int, batch: int) -> Figures:
    """Add and drain through `QueueStore`, so many jobs with each call."""
    store.client.flushdb()
    link = Link(store.url)
    queue = QueueStore(link, PREFIX, QUEUE, options=OPTIONS)
    clock = asyncio.get_running_loop().time
    cpu, began = store.cpu_seconds(), clock()
    opts = encode_options(OPTIONS)
    for first in range(0, count, batch):
        await queue.add([NewJob(f"job-{n}", QUEUE, b'{"n":%d}' % n, opts) for n in range(first, first + batch)])
    between, added = store.cpu_seconds(), clock()
    running: list[FetchedJob] = []
    seq = 0
    while running or not seq:
        seq += 1
        running = list((await queue.advance("bench", seq, [Ending(job, Completed()) for job in running], batch)).jobs)
    ended = clock()
    drained = store.cpu_seconds() - between
    assert store.completed(PREFIX) == count, "every job was drained"
    await link.close()
    return Figures(
        count / (added - began), count / (ended - added), (between - cpu) / count * 1e6, drained / count * 1e6
    )


def main() -> None:
    """Measure and print."""
    with fresh_store() as store, node_peer(store) as node:
        print(machine(store))
        print(f"store CPU in µs per job, no-op jobs, all kept; medians of {ROUNDS}\n")
        sides: dict[str, Callable[[int, int], Figures]] = {
            "Corral": lambda count, batch: asyncio.run(measure_raw(store, count, batch)),
            "BullMQ Node": lambda count, concurrency: node.measure(store, count, concurrency),
        }
        for side in sides.values():
            side(WARM_UP, 10)
        print(f"{'concurrency':>11}  {'':12} {'add':>7} {'drain':>7} {'whole life':>11} {'ratio':>7}")
        for concurrency in CONCURRENCIES:
            rounds: dict[str, list[Figures]] = {name: [] for name in sides}
            for _ in range(ROUNDS):
                for name, side in sides.items():
                    rounds[name].append(side(JOBS[concurrency], concurrency))
            ours = medians(rounds["Corral"])
            for name, taken in rounds.items():
                one = medians(taken)
                line = f"{concurrency:>11}  {name:12} {one.add_us:>7.1f} {one.drain_us:>7.1f} {one.life_us:>11.1f}"
                print(line if name == "Corral" else f"{line} {ours.life_us / one.life_us:>7.2f}")


if __name__ == "__main__":
    main()
