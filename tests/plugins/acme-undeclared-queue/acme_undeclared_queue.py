"""Registers a queue that is no entry point of its distribution."""

from __future__ import annotations

from corral import Payload, Queue, hookimpl


class SecretExport(Payload):
    pass


queue = Queue("secret-exports", SecretExport)


@hookimpl
def corral_queues() -> list[Queue]:
    return [queue]
