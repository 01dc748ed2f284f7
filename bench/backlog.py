"""How fast Corral drains a queue in which a thousand, a hundred thousand and a million jobs wait.

The append-only file is off: filling would write a gigabyte of it. The lengths come one after the
other, so that a million jobs are added once; all rounds of a length are taken before the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from bench.rounds import Bench, show_progress, wait_until
from bench.store import Store

KIND = "noop"
LENGTHS = (1_000, 100_000, 1_000_000)
DRAINED = 15_000
"""So many jobs of each round are timed, and at least the length still waits when the last of them
ends.
"""
CONCURRENCY = 100
BULK = 1_000
SPARE = 2_000
"""Jobs that a worker may end beyond those that are timed, before it has stopped."""


def drain_rates(bench: Bench) -> dict[int, Sequence[float]]:
    """Jobs per second, by how many wait all the time, round by round."""
    stage = bench.stage()
    store, corral = stage.store, stage.corral
    store.client.config_set("appendonly", "no")
    store.client.flushdb()
    queue = f"{corral.prefix}:{KIND}"
    timed = bench.count(DRAINED)
    rates: dict[int, Sequence[float]] = {}
    try:
        for length in map(bench.count, LENGTHS):
            taken: list[float] = []
            for number in range(bench.rounds):
                show_progress(f"{length:,} waiting, round {number + 1}")
                missing = length + timed + SPARE - waiting(store, queue)
                corral.ask("add_bulk", kind=KIND, count=max(missing, 0), size=BULK)
                forget_completed(store, queue)
                corral.ask("start", kind=KIND, concurrency=CONCURRENCY)
                wait_until(lambda: store.completed(queue) >= timed, f"{timed} jobs are drained")
                corral.ask("stop")
                taken.append(timed / store.drain_seconds(queue, timed))
            rates[length] = taken
    finally:
        store.client.flushdb()
        store.client.config_set("appendonly", "yes")
        wait_until(
            lambda: not is_rewriting(store), "the append-only file is begun"
        )  # until then, it refuses to stop
        show_progress("")
    return rates


def is_rewriting(store: Store) -> bool:
    """Whether the server has still to write the beginning of its append-only file."""
    state = store.client.info("persistence")
    return bool(state["aof_rewrite_in_progress"] or state["aof_rewrite_scheduled"])


def waiting(store: Store, queue: str) -> int:
    """How many jobs wait."""
    return int(store.client.llen(f"{queue}:wait"))


def forget_completed(store: Store, queue: str) -> None:
    """Leave no completed job of an earlier round among those that are timed."""
    while done := cast("list[bytes]", store.client.zrange(f"{queue}:completed", 0, BULK - 1)):
        store.client.unlink(*(f"{queue}:{job.decode()}" for job in done))
        store.client.zrem(f"{queue}:completed", *done)
