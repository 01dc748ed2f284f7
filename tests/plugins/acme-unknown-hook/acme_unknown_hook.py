"""A misspelt hook, and another one."""

from __future__ import annotations

from corral import Payload, Queue, hookimpl


class Greeting(Payload):
    pass


queue = Queue("greetings", Greeting)


@hookimpl
def corral_queues() -> list[Queue]:
    return [queue]


@hookimpl
def corral_proccessors() -> list[object]:
    return []


@hookimpl
def acme_greeted(name: str) -> None:
    pass
