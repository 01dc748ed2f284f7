"""Why jobs failed, without their secrets: a reason is masked by the payload of the job whose it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from corral.board.context import BoardContext
from corral.board.job_view import MASK, texts_shown
from corral.inspector import DamagedKey, FailureGroup, JobNotFound, Summary
from corral.inspector.stored import first_line
from corral.inspector.summary import alike

__all__ = ["MOST", "failures_shown", "summaries_shown", "summary_shown"]

MOST: Final = 6
"""Reasons on a page: a job's payload is read for each."""


async def failures_shown(
    context: BoardContext, queue: str
) -> tuple[Sequence[FailureGroup], Sequence[FailureGroup]]:
    """Why jobs failed lately: the reasons that are shown, and the rest, of which only the numbers
    are.

    A script call, and one for each of `MOST` reasons.
    """
    groups = await context.inspector.failures(queue)
    most = [
        replace(each, reason=alike(await _reason(context, queue, each.last_job_id)))
        for each in groups[:MOST]
    ]
    return most, [replace(each, reason=MASK) for each in groups[MOST:]]


async def summary_shown(context: BoardContext, queue: str) -> Summary:
    """A queue's summary; two script calls."""
    return await _shown(context, await context.inspector.summary(queue))


async def summaries_shown(context: BoardContext) -> Sequence[Summary]:
    """The summaries of all queues; two script calls for each."""
    return [await _shown(context, each) for each in await context.inspector.summaries()]


async def _shown(context: BoardContext, summary: Summary) -> Summary:
    failure = summary.last_failure
    if failure is None:
        return summary
    return replace(
        summary,
        last_failure=replace(failure, reason=await _reason(context, summary.queue, failure.job_id)),
    )


async def _reason(context: BoardContext, queue: str, job_id: str) -> str:
    """The first line of why a job failed; masked where it is gone, or cannot be read."""
    try:
        job = await context.inspector.get(queue, job_id)
    except (JobNotFound, DamagedKey):
        return MASK
    return first_line("".join(texts_shown(job, context.queue(queue), [job.failed_reason or ""])))
