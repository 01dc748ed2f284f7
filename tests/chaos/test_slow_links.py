"""Slow links, throttled each way and per connection: each job runs once, no outage is logged and no
stall charged.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import pytest

from chaos.acme_chaos import chaos
from chaos.fixtures import is_at_length
from chaos.processes import producer
from chaos.scene import Scene

pytestmark = pytest.mark.asyncio

KIB, MIB = 1024, 1024 * 1024
LARGEST = MIB - 200
"""A payload may have a mebibyte, and the filler is not all of it."""
SECONDS = 420.0
"""How long a row may take: its bytes go through three times (added, fetched, and again while others
do), on the slowest link at 64 s each.
"""


@dataclass(frozen=True)
class Row:
    """So many jobs of so many bytes each, through connections of so many bytes per second."""

    rate: int
    size: int
    count: int
    concurrency: int

    def __str__(self) -> str:
        return f"{self.rate / KIB:,.0f} KiB/s, {self.count} jobs of {self.size / KIB:,.0f} KiB, {self.concurrency} at once"


def rows(rate: int, most: int) -> list[Row]:
    """All sizes at all concurrencies, at most so many bytes in each row."""
    sizes = (KIB, 32 * KIB, 256 * KIB, LARGEST)
    return [
        Row(rate, size, min(max(most // size, 1), 2000), at_once)
        for size in sizes
        for at_once in (1, 10, 500)
    ]


MATRIX = {
    "64 KiB/s": rows(64 * KIB, 4 * MIB),
    "1 MB/s": rows(1_000_000, 4 * MIB),
    "100 MB/s": rows(100_000_000, 16 * MIB),
}
AT_ONCE = {"64 KiB/s": 12, "1 MB/s": 4, "100 MB/s": 1}
"""How many rows run side by side. They wait for bytes, but their proxies share one event loop."""
SHORT = {
    "64 KiB/s": [
        Row(64 * KIB, 32 * KIB, 8, 10),
        Row(64 * KIB, 256 * KIB, 1, 1),
        Row(64 * KIB, KIB, 200, 500),
    ],
    "1 MB/s": [Row(1_000_000, LARGEST, 3, 10)],
}


MEASURED = MATRIX if is_at_length() else SHORT


@pytest.mark.parametrize("link", MEASURED)
async def test_every_job_runs_once(
    stage: Callable[[], AbstractAsyncContextManager[Scene]],
    link: str,
    figure: Callable[[str], None],
) -> None:
    starting = (
        asyncio.Lock()
    )  # workers that all start at once leave no time to each other's proxies
    turns = asyncio.Semaphore(AT_ONCE[link])
    async with asyncio.TaskGroup() as side_by_side:
        message = [
            side_by_side.create_task(_worked_off(stage, row, starting, turns))
            for row in MEASURED[link]
        ]
    for each in message:
        figure(each.result())


async def _worked_off(
    stage: Callable[[], AbstractAsyncContextManager[Scene]],
    row: Row,
    starting: asyncio.Lock,
    turns: asyncio.Semaphore,
) -> str:
    async with turns, stage() as scene, scene.proxy() as proxy, producer(proxy.url) as jobs:
        async with starting:
            worker = await scene.hire(url=proxy.url, concurrency=row.concurrency)
        proxy.bytes_per_second = row.rate
        began = time.monotonic()
        work = {"filler": "x" * row.size}
        enqueued = [each.id for each in await jobs.enqueue_many(chaos, [work] * row.count)]
        added = time.monotonic() - began
        await scene.completed(enqueued, seconds=SECONDS, every=0.5)
        took = time.monotonic() - began
        assert scene.each_started_once(enqueued)
        assert await scene.stalls(enqueued) == {}
        warned = [line["event"] for line in worker.log if line["level"] != "info"]
        assert [
            event
            for event in warned
            if not event.startswith(("no worker serves", "catalog is open"))
        ] == []
        return f"{row}: added in {added:.1f} s, all done after {took:.1f} s"
