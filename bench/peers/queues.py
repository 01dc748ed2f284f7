"""Corral's queues of the benchmark, as a plugin declares them: one for each kind of job.

BullMQ keeps all finished jobs and tries once unless configured otherwise; these queues are configured like that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from corral import Fixed, Job, JobOptions, Payload, Processor, Queue, Retention, hookimpl

KEPT = JobOptions(attempts=1, keep_completed=Retention(), keep_failed=Retention())
SHORT_SECONDS = 0.001
NOTE = "Please leave it with the neighbours if nobody is at home. " * 11


class Numbered(Payload):
    """As small as a payload gets that is not empty."""

    n: int


class Order(Payload):
    """Ten fields of several types, about 1 KB as JSON."""

    order_id: str
    customer_id: int
    email: str
    currency: str
    total_cents: int
    is_express: bool
    placed_at: datetime
    tags: list[str]
    address: dict[str, str]
    note: str


noop = Queue("noop", Numbered, options=KEPT)
order = Queue("order", Order, options=KEPT)
short = Queue("short", Numbered, options=KEPT)
flaky = Queue("flaky", Numbered, options=replace(KEPT, attempts=2, backoff=Fixed(timedelta(0))))
threaded = Queue("threaded", Numbered, options=KEPT)


async def do_nothing(_job: Job[Any]) -> None:
    """What most jobs do."""


async def sleep_shortly(_job: Job[Numbered]) -> None:
    """A millisecond of waiting, as for somebody's answer."""
    await asyncio.sleep(SHORT_SECONDS)


async def fail_once(job: Job[Numbered]) -> None:
    """Fail at the first attempt."""
    if job.attempt == 1:
        raise ConnectionError("the other side is away")


def do_nothing_on_a_thread(_job: Job[Numbered]) -> None:
    """A plain `def`, which the worker runs on a thread."""


def numbered(number: int) -> Numbered:
    """The payload of most jobs."""
    return Numbered(n=number)


def ordered(number: int) -> Order:
    """The payload of `order`."""
    return Order(
        order_id=f"order-{number:08}",
        customer_id=number,
        email="ada@example.com",
        currency="EUR",
        total_cents=12_995,
        is_express=number % 2 == 0,
        placed_at=datetime(2026, 1, 1, 12, 30, tzinfo=UTC),
        tags=["books", "gift", "returning-customer"],
        address={
            "street": "12 Main Street",
            "city": "Springfield",
            "zip": "12345",
            "country": "US",
        },
        note=NOTE,
    )


PAYLOADS: dict[str, Callable[[int], Payload]] = {"order": ordered}
"""By kind, where it is not `numbered`."""


@hookimpl
def corral_queues() -> list[Queue]:
    """Every process."""
    return [noop, order, short, flaky, threaded]


@hookimpl
def corral_processors() -> list[Processor]:
    """Workers."""
    return [
        noop.processed_by(do_nothing),
        order.processed_by(do_nothing),
        short.processed_by(sleep_shortly),
        flaky.processed_by(fail_once),
        threaded.processed_by(do_nothing_on_a_thread),
    ]
