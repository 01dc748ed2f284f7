"""Returns a queue where a list of queues is wanted."""

from __future__ import annotations

from corral import Payload, Queue, hookimpl


class Refund(Payload):
    pass


@hookimpl
def corral_queues() -> Queue:
    return Queue("refunds", Refund)
