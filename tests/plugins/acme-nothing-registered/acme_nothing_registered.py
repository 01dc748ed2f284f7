"""An entry point, and nothing behind it: the hook is not marked."""

from __future__ import annotations

from corral import Payload, Queue


class Invoice(Payload):
    pass


def corral_queues() -> list[Queue]:
    return [Queue("invoices", Invoice)]
