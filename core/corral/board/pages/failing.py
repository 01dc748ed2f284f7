"""Why jobs failed, without their secrets: a reason is masked by the payload of the job whose it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from corral.board.desk import Desk
from corral.board.shown import MASK, texts_shown
from corral.inspector import DamagedKey, FailureGroup, JobNotFound, Summary
from corral.inspector.stored import first_line
from corral.inspector.summary import alike

__all__ = ["MOST", "failures_shown", "summaries_shown", "summary_shown"]

MOST: Final = 6
"""Reasons on a page: a job's payload is read for each."""


async def failures_shown(desk: Desk, queue: str) -> tuple[Sequence[FailureGroup], Sequence[FailureGroup]]:
    """Why jobs failed lately: the reasons that are shown, and the rest, of which only the numbers are.

    A script call, and one for each of `MOST` reasons.
    """
    groups = await desk.inspector.failures(queue)
    most = [replace(each, reason=alike(await _reason(desk, queue, each.last_job_id))) for each in groups[:MOST]]
    return most, [replace(each, reason=MASK) for each in groups[MOST:]]


async def summary_shown(desk: Desk, queue: str) -> Summary:
    """A queue's summary; two script calls."""
    return await _shown(desk, await desk.inspector.summary(queue))


async def summaries_shown(desk: Desk) -> Sequence[Summary]:
    """The summaries of all queues; two script calls for each."""
    return [await _shown(desk, each) for each in await desk.inspector.summaries()]


async def _shown(desk: Desk, summary: Summary) -> Summary:
    failure = summary.last_failure
    if failure is None:
        return summary
    return replace(summary, last_failure=replace(failure, reason=await _reason(desk, summary.queue, failure.job_id)))


async def _reason(desk: Desk, queue: str, job_id: str) -> str:
    """The first line of why a job failed; masked where it is gone, or cannot be read."""
    try:
        job = await desk.inspector.get(queue, job_id)
    except (JobNotFound, DamagedKey):
        return MASK
    return first_line("".join(texts_shown(job, desk.queue(queue), [job.failed_reason or ""])))
