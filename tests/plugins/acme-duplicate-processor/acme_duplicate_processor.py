"""Two processors for one queue."""

from __future__ import annotations

from corral import Job, Payload, Processor, Queue, hookimpl


class Transcript(Payload):
    pass


queue = Queue("transcripts", Transcript)


@hookimpl
def corral_queues() -> list[Queue]:
    return [queue]


async def process(job: Job[Transcript]) -> None:
    pass


@hookimpl
def corral_processors() -> list[Processor]:
    return [queue.processed_by(process), queue.processed_by(process)]
