"""Has the name of another distribution's module."""

from __future__ import annotations

from corral import Payload, Queue, hookimpl


class Shared(Payload):
    pass


@hookimpl
def corral_queues() -> list[Queue]:
    return [Queue("shared-one", Shared)]
