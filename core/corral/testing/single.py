"""`job`: makes the job that a processor is called with, without a worker or a store.

`progress_of` and `log_of` read what the processor reported with it, and `cancel` cancels it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from corral.errors import UnknownQueue
from corral.job import Job, P, RunState, run_state
from corral.jobs import JobChecks
from corral.queue import Queue

__all__ = ["cancel", "job", "log_of", "progress_of"]

ENQUEUED_AT = datetime(2030, 1, 1, tzinfo=UTC)
"""When `job` says that its job was enqueued. Fixed, so that no test depends on the day."""


def job(
    queue: Queue[P],
    payload: P | Mapping[str, Any],
    *,
    id: str = "test-job",  # noqa: A002  # the name of the attribute it sets
    attempt: int = 1,
    max_attempts: int | None = None,
    starts: int | None = None,
    enqueued_at: datetime = ENQUEUED_AT,
    scheduled_for: datetime | None = None,
    processed_on: datetime | None = None,
    carrier: Mapping[str, str] | None = None,
) -> Job[P]:
    """Make the job that a processor is called with.

    `progress_of` and `log_of` return what the processor reports with it. `cancel` shows the
    processor that its result is no longer wanted.

    Args:
        queue: The queue that it seems to come from.
        payload: An instance of the queue's payload model, or a mapping with the field names of
            JSON or Python.
        id: Unique within the queue; `job.idempotency_key` follows from it.
        attempt: Which attempt this is, from 1.
        max_attempts: By default what the queue declares.
        starts: How often the job was started; by default as often as it was attempted.
        enqueued_at: Aware; 2030-01-01 00:00 UTC by default.
        scheduled_for: When it was due first; by default when it was enqueued.
        processed_on: When this start happened; by default when it was due.
        carrier: What came along with it, as `corral_enqueuing` puts it in.

    Raises:
        PayloadRefused: The payload does not fit the queue's model, or a worker would read another
            one.
        JobRefused: Its size or the queue's options are refused, as a scheduler refuses them.
    """
    checked = JobChecks(_itself, (), proves_all=True).check_job(queue, payload, {})
    scheduled_for = scheduled_for or enqueued_at
    return Job(
        id=id,
        queue=queue,
        name=queue.name,
        payload=cast("P", checked.payload),
        attempt=attempt,
        max_attempts=max(1, queue.options.attempts if max_attempts is None else max_attempts),
        starts=attempt if starts is None else starts,
        _run=RunState(
            enqueued_ms=_unix_ms(enqueued_at),
            processed_ms=_unix_ms(processed_on or scheduled_for),
            scheduled_ms=_unix_ms(scheduled_for),
            carrier_text=json.dumps(dict(carrier)) if carrier else None,
        ),
    )


def progress_of(job: Job[Any]) -> list[Any]:
    """Return the progress that a processor has reported, in order, as its JSON reads.

    Args:
        job: A job made by `job`.
    """
    return [json.loads(text) for kind, text in run_state(job).notes if kind == "progress"]


def log_of(job: Job[Any]) -> list[str]:
    """Return the lines that a processor has added to the job's log, in order.

    Args:
        job: A job made by `job`.
    """
    return [str(text) for kind, text in run_state(job).notes if kind == "log"]


def cancel(job: Job[Any]) -> None:
    """Set `job.cancelled`, as a worker does that shuts down or has lost the job's lock.

    Args:
        job: A job made by `job`.
    """
    run_state(job).cancelled = True


def _itself(queue: Queue[Any] | str) -> Queue[Any]:
    if isinstance(queue, str):
        raise UnknownQueue(queue, hint="hand over the queue itself")
    return queue


def _unix_ms(moment: datetime) -> int:
    """Unix milliseconds of an aware moment."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
