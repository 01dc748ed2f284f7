"""A name whose settings would be those of the core."""

from __future__ import annotations

from corral import Payload, Queue, hookimpl


class Shift(Payload):
    pass


queue = Queue("worker", Shift)


@hookimpl
def corral_queues() -> list[Queue]:
    return [queue]
