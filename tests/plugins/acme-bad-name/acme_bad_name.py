"""A name that is not in kebab-case."""

from __future__ import annotations

from corral import Payload, Queue, hookimpl


class Digest(Payload):
    pass


queue = Queue("Weekly.Digests", Digest)


@hookimpl
def corral_queues() -> list[Queue]:
    return [queue]
