"""The queue of the benchmark, as a plugin declares one: jobs that do nothing, and are all kept.

BullMQ keeps all finished jobs and tries once unless told otherwise, so this queue says the same.
"""

from __future__ import annotations

from corral import Job, JobOptions, Payload, Processor, Queue, Retention, hookimpl


class Numbered(Payload):
    """A job's payload: as small as one gets that is not empty."""

    n: int


noop = Queue("noop", Numbered, options=JobOptions(attempts=1, keep_completed=Retention(), keep_failed=Retention()))


async def do_nothing(job: Job[Numbered]) -> None:
    """What all peers' jobs do."""


@hookimpl
def corral_queues() -> list[Queue]:
    """Every process."""
    return [noop]


@hookimpl
def corral_processors() -> list[Processor]:
    """Workers."""
    return [noop.processed_by(do_nothing)]
