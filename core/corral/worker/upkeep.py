"""What a worker does for its queues besides running jobs.

It ensures their declared schedules (wire § 6.21) and looks for jobs whose worker died (wire § 6.12).
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import structlog
from redis.exceptions import ResponseError

from corral.errors import StoreUnavailable
from corral.queue import Queue
from corral.settings import WorkerSettings
from corral.store.queue_store import QueueStore
from corral.store.schedules import NewSchedule, Schedules
from corral.worker.outage import Backoff, Outage

__all__ = ["ensure_schedule", "recover_stalled"]

log = structlog.get_logger("corral.worker")

SPREAD_SECONDS = 0.1
"""Keeps a fleet's checks apart. More would delay recovery beyond max(2 x interval, lock + interval)."""


async def ensure_schedule(store: QueueStore, queue: Queue[Any]) -> None:
    """Install what the queue declares, or say that what is installed is declared no longer.

    Args:
        store: The queue in the store.
        queue: Its declaration.

    Raises:
        StoreUnavailable: The store is away, or refuses to write.
    """
    schedules = Schedules(store)
    if queue.schedule is None:
        if await schedules.get(queue.name):
            log.warning(
                "schedule is not declared any more and still runs: `corral schedules prune` removes it",
                queue=queue.name,
            )
        return
    # The payload of a schedule is empty, and the worker fills in the model's defaults: an older worker's may differ.
    new = NewSchedule(queue.name, queue.name, b"{}", queue.options, queue.schedule)
    word, next_ms = await schedules.ensure(new)
    told = {"queue": queue.name, "next": datetime.fromtimestamp(next_ms / 1000, UTC).isoformat()}
    if word == "resumed":
        log.warning("schedule had ended: another client ran its tick and made no next one; resumed", **told)
    elif word != "untouched":
        log.info(f"schedule {word}", **told)


async def recover_stalled(store: QueueStore, settings: WorkerSettings, outage: Outage, counted: Counter[str]) -> None:
    """Check at once, and then whenever a check is allowed, until cancelled.

    Args:
        store: The queue.
        settings: The time between two checks, whoever makes them; how often a job may stall before it is failed.
        outage: Told when the store is away.
        counted: How many jobs were found, by queue.
    """
    backoff, interval_ms = Backoff(outage), int(settings.stalled_interval_seconds * 1000)
    while True:
        try:
            stalled = await store.check_stalled(interval_ms, settings.max_stalled)
        except (StoreUnavailable, ResponseError) as error:
            await backoff.failed(error)
            continue
        backoff.succeeded()
        counted[store.queue] += len(stalled.job_ids)
        for job_id in stalled.job_ids:
            log.warning("job stalled: its worker is gone", queue=store.queue, job_id=job_id)
        spread = random.random() * SPREAD_SECONDS  # noqa: S311  # keeps workers apart, no secret
        await asyncio.sleep(stalled.wait_ms / 1000 + spread)
