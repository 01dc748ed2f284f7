"""Asks a hook for an argument that it does not have."""

from __future__ import annotations

from corral import Payload, Queue, hookimpl


class Thumbnail(Payload):
    pass


queue = Queue("thumbnails", Thumbnail)


@hookimpl
def corral_queues() -> list[Queue]:
    return [queue]


@hookimpl
def corral_job_ended(job: object, result: object) -> None:
    pass
