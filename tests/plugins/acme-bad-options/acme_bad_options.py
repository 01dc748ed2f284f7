"""Options under which no job could be enqueued."""

from __future__ import annotations

from corral import JobOptions, Payload, Queue, hookimpl


class Parcel(Payload):
    pass


queue = Queue("parcels", Parcel, options=JobOptions(priority=-1), concurrency=0)


@hookimpl
def corral_queues() -> list[Queue]:
    return [queue]
