"""Sound; the test takes its METADATA away."""

from __future__ import annotations

from corral import Payload, Queue, hookimpl


class Archive(Payload):
    pass


queue = Queue("archives", Archive)


@hookimpl
def corral_queues() -> list[Queue]:
    return [queue]
