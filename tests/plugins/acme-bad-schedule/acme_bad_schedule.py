"""A schedule that no calendar has."""

from __future__ import annotations

from corral import Cron, Payload, Queue, hookimpl


class Rollover(Payload):
    pass


queue = Queue("rollovers", Rollover, schedule=Cron("61 * * * *"))


@hookimpl
def corral_queues() -> list[Queue]:
    return [queue]
