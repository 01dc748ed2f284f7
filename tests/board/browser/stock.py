"""Fills the six queues as on a bad day: jobs in every state, with every kind of trouble."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from board.browser.site import Crew, Site
from corral import Fail, Fixed, Job

__all__ = ["Stock", "filled", "mail"]

QUICK = Fixed(delay=timedelta(milliseconds=20))
REASONS = (
    "451 4.3.2 the queue of this server is full",
    "550 5.1.1 no such mailbox",
    "the template 'welcome' wants the variable 'url'",
)
LONG = "x" * 3000
WORDS = "a sentence that goes on and on, as messages of databases do, " * 40


def mail(number: int, **variables: Any) -> dict[str, Any]:
    """A payload of `emails`."""
    variables = {"name": f"Person {number}", "url": f"https://app.example/{number}", **variables}
    return {"to": f"person{number}@example.com", "template": "welcome", "variables": variables}


@dataclass
class Stock:
    """The jobs in the queues.

    Attributes:
        crew: The worker.
        ids: Of `emails`: `failed`, `completed`, `delayed`, `active`, `prioritized`.
        go_on: Lets the active jobs end.
    """

    crew: Crew
    ids: dict[str, str]
    go_on: asyncio.Event


@asynccontextmanager
async def filled(site: Site, until: Callable[..., Awaitable[None]]) -> AsyncIterator[Stock]:
    """Fill all six queues, with a worker that runs jobs."""
    go_on = asyncio.Event()

    async def emails(job: Job[Any]) -> Any:
        variables = job.payload.variables
        job.log(f"rendered {job.payload.template} for {job.payload.to}")
        if variables.get("holds"):
            job.progress(40)
            await go_on.wait()
        if variables.get("fails") is not None:
            raise (ConnectionError if variables["fails"] == 0 else Fail)(
                REASONS[int(variables["fails"])]
            )
        return {"message_id": f"<{job.id}@example.com>"}

    async def exports(job: Job[Any]) -> None:
        for number in range(30):
            job.log(f"{number * 1000} records of {job.payload.user_id} written")
        job.progress({"records": 29_000, "bytes": 4_812_331, "table": "invoices"})
        await go_on.wait()

    async def billing(job: Job[Any]) -> None:
        if job.payload.type == "invoice.voided":
            raise ValueError(f"no subscriber wants {job.payload.type}")

    async with site.crew(
        emails=emails, data_exports=exports, billing_webhooks_retry=billing
    ) as crew:
        jobs, now = site.jobs, datetime.now(UTC)
        completed = await jobs.enqueue_many("emails", [mail(n) for n in range(40)])
        failed = [
            await jobs.enqueue("emails", mail(100 + n, fails=n % 3), attempts=3, backoff=QUICK)
            for n in range(12)
        ]
        voided = [
            {
                "provider": "stripe",
                "event_id": f"evt_{n}",
                "type": kind,
                "occurred_at": now,
                "body": {"id": f"in_{n}"},
            }
            for n, kind in enumerate(["invoice.paid", "invoice.voided"] * 4)
        ]
        await jobs.enqueue_many("billing-webhooks-retry", voided)
        for n in range(5):
            export = {"user_id": f"user-{n}", "export_id": f"e{n}", "format": "csv"}
            await jobs.enqueue("data-exports", export, job_id=f"export-{n}")
        for n in range(3):
            request = {"user_id": f"user-{n}", "request_id": f"r{n}", "requested_at": now}
            await jobs.enqueue("account-deletions", request, delay=timedelta(days=30))
        await site.inspector.pause("webhooks-outgoing")
        for n in range(24):
            event = {
                "endpoint_id": "https-acme",
                "event_id": f"evt{n}",
                "event_type": "user.created",
                "data": {"n": n},
            }
            await jobs.enqueue("webhooks-outgoing", event, priority=n % 3)
        delayed = await jobs.enqueue("emails", mail(200), delay=timedelta(hours=3))
        active = await jobs.enqueue("emails", mail(300, holds=True))

        async def settled() -> bool:
            client = site.raw
            counts = [
                await client.zcard("bull:emails:failed"),
                await client.zcard("bull:emails:completed"),
                await client.llen("bull:emails:active"),
                await client.llen("bull:data-exports:active"),
                await client.zcard("bull:billing-webhooks-retry:delayed"),
                int(await client.hget(f"bull:emails:{active.id}", "progress") or 0),
            ]
            return counts == [12, 40, 1, 2, 4, 40]

        await until(settled, "every queue is as it is to be", seconds=60, every=0.05)
        ids = {
            "completed": completed[0].id,
            "failed": failed[0].id,
            "delayed": delayed.id,
            "active": active.id,
        }
        try:
            yield Stock(crew, ids, go_on)
        finally:
            go_on.set()

            async def at_rest() -> bool:
                return not any(
                    [await site.raw.llen(f"bull:{queue}:active") for queue in site.inspector.queues]
                )

            await until(at_rest, "nothing is active", seconds=30, every=0.05)
