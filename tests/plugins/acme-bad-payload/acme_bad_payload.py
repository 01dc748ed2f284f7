"""A payload with a value that JSON does not have."""

from __future__ import annotations

from collections.abc import Callable

from corral import Payload, Queue, hookimpl


class Callback(Payload):
    then: Callable[[], None]


@hookimpl
def corral_queues() -> list[Queue]:
    return [Queue("callbacks", Callback)]
