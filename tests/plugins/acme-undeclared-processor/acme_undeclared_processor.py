"""Processes another object than the queue that it declares."""

from __future__ import annotations

from corral import Job, Payload, Processor, Queue, hookimpl


class Import(Payload):
    pass


queue = Queue("imports", Import)


@hookimpl
def corral_queues() -> list[Queue]:
    return [queue]


async def process(job: Job[Import]) -> None:
    pass


@hookimpl
def corral_processors() -> list[Processor]:
    return [Queue("imports", Import).processed_by(process)]
