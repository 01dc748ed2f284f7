"""Two queues, of which one's jobs enqueue one of the other: what a trace goes through.

Installed by the tests beside the core, and loaded by real workers: nothing of the tests may be
imported here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from corral import Deps, Fixed, Job, JobOptions, JobScheduler, Payload, Processor, Queue, hookimpl


class Signup(Payload):
    """Who has signed up.

    Attributes:
        to: Their address.
        fails: How many of the first attempts fail, with a message that quotes the address.
    """

    to: str
    fails: int = 0


OPTIONS = JobOptions(attempts=2, backoff=Fixed(timedelta(0)))
signups = Queue("signups", Signup, options=OPTIONS)
welcome_mails = Queue("welcome-mails", Signup, options=OPTIONS)


@asynccontextmanager
async def open_scheduler(deps: Deps) -> AsyncIterator[JobScheduler]:
    yield deps.jobs


async def welcome(job: Job[Signup], jobs: JobScheduler) -> None:
    if job.attempt <= job.payload.fails:
        raise ConnectionError(f"no answer for {job.payload.to}")
    await jobs.enqueue(welcome_mails, Signup(to=job.payload.to))


def send(job: Job[Signup]) -> None:
    assert job.payload.to


@hookimpl
def corral_queues() -> list[Queue]:
    return [signups, welcome_mails]


@hookimpl
def corral_processors() -> list[Processor]:
    return [signups.processed_by(welcome, using=open_scheduler), welcome_mails.processed_by(send)]
