"""Processors that no worker can call, or open a resource for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from corral import Deps, Job, Payload, Processor, Queue, hookimpl


class Nothing(Payload):
    pass


arities = Queue("arities", Nothing)
resources = Queue("resources", Nothing)
generators = Queue("generators", Nothing)


def with_two(payload: Nothing, other: object) -> None:
    pass


async def with_resource(job: Job[Nothing], resource: object) -> None:
    pass


async def unmarked(deps: Deps) -> AsyncIterator[object]:
    yield object()


def yielding(job: Job[Nothing]) -> Iterator[int]:
    yield 1


@hookimpl
def corral_queues() -> list[Queue[Any]]:
    return [arities, resources, generators]


@hookimpl
def corral_processors() -> list[Processor]:
    return [
        Processor(arities, with_two),
        Processor(resources, with_resource, unmarked),
        Processor(generators, yielding),
    ]
