"""Declares two queues that a reader takes for one."""

from __future__ import annotations

from corral import Payload, Queue, hookimpl


class LateFee(Payload):
    pass


@hookimpl
def corral_queues() -> list[Queue]:
    return [Queue("late-fees", LateFee), Queue("late_fees", LateFee)]
