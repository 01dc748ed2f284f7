"""An application, which is no distribution: it may implement hooks, and not declare queues."""

from __future__ import annotations

from corral import Payload, Queue, hookimpl


class Newsletter(Payload):
    pass


@hookimpl
def corral_queues() -> list[Queue]:
    return [Queue("newsletters", Newsletter)]
