"""`QueueFigures`: what a scrape reads about a queue, with one script in one round trip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corral.fleet.processes import LIVE_SECONDS
from corral.store.clock import Clock
from corral.store.connection import Link, ThreadLink
from corral.store.keys import CONTAINERS, process_key, queue_base
from corral.store.scripts import run, run_blocking, script

__all__ = ["QueueFigures", "read_queue_figures", "read_queue_figures_blocking"]


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """A queue at one moment. A figure whose key is damaged is None, or missing from `sizes`.

    Attributes:
        sizes: How many jobs are in each container, by the container's name.
        completed: How many jobs were ever completed. Cleaning and removing jobs do not lower it
            (wire § 6.23).
        failed: How many jobs ever failed for good.
        is_paused: Whether the queue is paused, so that no job starts.
        oldest_seconds: For how long the job that runs next could have been running; 0 if none
            waits.
        workers: How many worker processes are at work, for any queue.
        quarantined: How many ids workers have put into the quarantine.
        failed_attempts: How many attempts have failed in runs of Corral's workers; it starts at 0
            again if none fails for two weeks.
        retrying: How many of the 2,000 delayed jobs that are due first have failed attempts.
    """

    sizes: Mapping[str, int]
    completed: int | None
    failed: int | None
    is_paused: bool | None
    oldest_seconds: float | None
    workers: int
    quarantined: int | None
    failed_attempts: int | None
    retrying: int | None


async def read_queue_figures(
    link: Link, prefix: str, queue: str, *, clock: Clock | None = None
) -> QueueFigures:
    """Read the figures of a queue.

    Args:
        link: The connection.
        prefix: The first part of the queue's keys.
        queue: The queue's name.
        clock: Shifts the store's time, in tests.

    Raises:
        StoreUnavailable: The store is away.
    """
    arguments = [clock.offset_ms if clock else 0, int(LIVE_SECONDS * 1000)]
    return _decoded(
        await run(link, script("figures", __package__), _keys(prefix, queue), arguments)
    )


def read_queue_figures_blocking(link: ThreadLink, prefix: str, queue: str) -> QueueFigures:
    """Read the figures of a queue from a thread; see `read_queue_figures`.

    Raises:
        StoreUnavailable: The store is away.
    """
    return _decoded(
        run_blocking(
            link,
            script("figures", __package__),
            _keys(prefix, queue),
            [0, int(LIVE_SECONDS * 1000)],
        )
    )


def _keys(prefix: str, queue: str) -> list[str]:
    return [queue_base(prefix, queue), process_key(prefix)]


def _decoded(reply: Any) -> QueueFigures:
    sizes, finished, paused, oldest_ms, workers, quarantined, retrying = reply
    completed, failed, attempts = map(_known, finished)
    held = {name: size for name, size in zip(CONTAINERS, sizes, strict=True) if size >= 0}
    is_paused = None if paused < 0 else paused == 1
    oldest_seconds = None if oldest_ms < 0 else oldest_ms / 1000
    return QueueFigures(
        held,
        completed,
        failed,
        is_paused,
        oldest_seconds,
        workers,
        _known(quarantined),
        attempts,
        _known(retrying),
    )


def _known(count: int) -> int | None:
    return None if count < 0 else count
