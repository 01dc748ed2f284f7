"""A timeout for what runs on a thread."""

from __future__ import annotations

from datetime import timedelta

from corral import Job, Payload, Processor, Queue, hookimpl


class Render(Payload):
    pass


queue = Queue("renders", Render, timeout=timedelta(minutes=1))


@hookimpl
def corral_queues() -> list[Queue]:
    return [queue]


def process(job: Job[Render]) -> None:
    pass


@hookimpl
def corral_processors() -> list[Processor]:
    return [queue.processed_by(process)]
