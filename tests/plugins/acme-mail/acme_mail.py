"""Claims `emails`, as `corral-emails` does."""

from __future__ import annotations

from corral import Payload, Queue, hookimpl


class EmailJob(Payload):
    pass


emails = Queue("emails", EmailJob)


@hookimpl
def corral_queues() -> list[Queue]:
    return [emails]
