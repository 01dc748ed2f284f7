"""Why jobs failed, with their secrets masked.

A reason may repeat a secret of the job's payload. So the job is read again, and its reason is
masked by its own payload.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from corral.board.board_context import BoardContext
from corral.board.job_view import MASK, masked_texts
from corral.inspector import DamagedKey, FailureGroup, JobNotFound, QueueSummary
from corral.reasons import first_line, generalized_reason

__all__ = ["MAX_REASONS", "read_failure_groups", "read_masked_summaries", "read_masked_summary"]

MAX_REASONS: Final = 6
"""Reasons on a page: one job is read for each."""


async def read_failure_groups(
    context: BoardContext, queue: str
) -> tuple[Sequence[FailureGroup], Sequence[FailureGroup]]:
    """Read why jobs of a queue failed lately, grouped by reason.

    Costs one script call, and one more for each of `MAX_REASONS` groups.

    Returns:
        The groups whose reason is shown, and the others, which are shown as a count only.
    """
    groups = await context.inspector.failures(queue)
    shown = [
        replace(
            each, reason=generalized_reason(await _read_reason(context, queue, each.last_job_id))
        )
        for each in groups[:MAX_REASONS]
    ]
    return shown, [replace(each, reason=MASK) for each in groups[MAX_REASONS:]]


async def read_masked_summary(context: BoardContext, queue: str) -> QueueSummary:
    """Read a queue's summary; costs two script calls."""
    return await _mask_failure(context, await context.inspector.summary(queue))


async def read_masked_summaries(context: BoardContext) -> Sequence[QueueSummary]:
    """Read the summaries of all queues; costs two script calls for each."""
    return [await _mask_failure(context, each) for each in await context.inspector.summaries()]


async def _mask_failure(context: BoardContext, summary: QueueSummary) -> QueueSummary:
    failure = summary.last_failure
    if failure is None:
        return summary
    reason = await _read_reason(context, summary.queue, failure.job_id)
    return replace(summary, last_failure=replace(failure, reason=reason))


async def _read_reason(context: BoardContext, queue: str, job_id: str) -> str:
    """The first line of why a job failed; only a mask if the job is gone or cannot be read."""
    try:
        job = await context.inspector.get(queue, job_id)
    except (JobNotFound, DamagedKey):
        return MASK
    return first_line("".join(masked_texts(job, context.queue(queue), [job.failed_reason or ""])))
