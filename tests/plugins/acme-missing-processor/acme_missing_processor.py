"""Declares a queue that nobody processes."""

from __future__ import annotations

from corral import Payload, Queue, hookimpl


class Reminder(Payload):
    pass


queue = Queue("reminders", Reminder)


@hookimpl
def corral_queues() -> list[Queue]:
    return [queue]
