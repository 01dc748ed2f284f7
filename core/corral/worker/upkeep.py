"""What a worker does for its queues besides running jobs.

It looks for jobs whose worker died (wire § 6.12), and removes finished jobs of ours whose retention
is over.
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

__all__ = ["recover_stalled"]

log = Logger("corral.worker")

SPREAD_SECONDS = 0.1
"""Keeps a fleet's checks apart.

More would delay recovery beyond max(2 x interval, lock + interval).
"""


async def recover_stalled(
    store: QueueStore,
    settings: WorkerSettings,
    outage: Outage,
    counted: Counter[str],
    on_damage: Callable[[Sequence[Damage], str], object],
    *,
    look_further: Callable[[], Awaitable[object]],
) -> None:
    """Check at once, and then whenever a check is allowed, until cancelled; remove finished jobs
    that are due, too.

    Args:
        store: The queue.
        settings: The time between two checks, whoever makes them; how often a job may stall before
        it is failed.
        outage: Told when the store is away.
        counted: How many jobs were found, by queue.
        on_damage: Called with what was put into the quarantine, and the error of a key that an
        operator must repair.
        look_further: Called after each check, for what else is to be looked at now and then; what
            it fails with is left to the next check.
    """
    backoff, interval_ms = Backoff(outage), int(settings.stalled_interval_seconds * 1000)
    while True:
        try:
            stalled = await store.check_stalled(interval_ms, settings.max_stalled)
        except StoreUnavailable as error:
            await backoff.failed(error)
            continue
        except ResponseError as error:
            backoff.answered()
            on_damage((), str(error))
            await backoff.wait()
            continue
        backoff.succeeded()
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
