"""What a worker does for its queues besides running jobs.

It finds jobs whose worker died (wire § 6.12), and removes Corral's finished jobs whose retention is
over.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from corral.errors import StoreUnavailable
from corral.loggers import Logger
from corral.settings import WorkerSettings
from corral.store.codec import Damage
from corral.store.queue_store import QueueStore
from corral.store.replies import ResponseError
from corral.worker.outage import Backoff, Outage

__all__ = ["keep_recovering_stalled"]

log = Logger("corral.worker")

SPREAD_SECONDS = 0.1
"""Jitter that keeps a fleet's checks apart.

More would delay recovery beyond max(2 x interval, lock + interval).
"""


async def keep_recovering_stalled(
    store: QueueStore,
    settings: WorkerSettings,
    outage: Outage,
    counted: Counter[str],
    on_damage: Callable[[Sequence[Damage], str], object],
    *,
    look_further: Callable[[], Awaitable[object]],
) -> None:
    """Put stalled jobs back, at once and then whenever a check is allowed, until cancelled.

    Each check also removes finished jobs that are due.

    Args:
        store: The queue.
        settings: The time between two checks, which all workers share; and how often a job may
            stall before it is failed.
        outage: Receives failures of the store.
        counted: Counts the jobs that were found, by queue.
        on_damage: Called with the jobs that were put into the quarantine, and the error of a key
            that an operator must repair.
        look_further: Called after each check, for other checks that are made from time to time. An
            error of the store in it is ignored, and the next check calls it again.
    """
    backoff, interval_ms = Backoff(outage), int(settings.stalled_interval_seconds * 1000)
    while True:
        try:
            stalled = await store.check_stalled(interval_ms, settings.max_stalled)
        except StoreUnavailable as error:
            await backoff.wait_after(error)
            continue
        except ResponseError as error:
            backoff.report_answer()
            on_damage((), str(error))
            await backoff.wait()
            continue
        backoff.report_success()
        if stalled.quarantined:
            on_damage(stalled.quarantined, "")
        counted[store.queue] += len(stalled.job_ids)
        for job_id in stalled.job_ids:
            log.warning("job stalled: its worker is gone", queue=store.queue, job_id=job_id)
        with suppress(StoreUnavailable, ResponseError):
            await store.remove_due()
            await look_further()
        spread = random.random() * SPREAD_SECONDS  # noqa: S311  # keeps workers apart, no secret
        await asyncio.sleep(stalled.wait_ms / 1000 + spread)
