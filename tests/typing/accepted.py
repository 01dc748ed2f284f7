"""What a user writes, and what every checker takes as it is: a plugin, a producer, a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, assert_type

from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from corral import (
    Answer,
    Cron,
    Deps,
    Enqueued,
    EnqueueInterrupted,
    Entry,
    Fail,
    Fixed,
    Job,
    JobScheduler,
    JobState,
    Payload,
    Processor,
    Queue,
    RateLimited,
    Retention,
    Retry,
    Snooze,
    hookimpl,
    hookspec,
    sql,
    testing,
)
from corral.inspector import JobInspector, of_worker
from corral_emails import EmailJob, emails


class Parcel(Payload):
    grams: int


class Scale:
    async def weigh(self, grams: int) -> str:
        return f"{grams} g"


parcels = Queue("parcels", Parcel, schedule=Cron("5 * * * *"), timeout=timedelta(seconds=5))
assert_type(parcels, Queue[Parcel])


@asynccontextmanager
async def open_scale(deps: Deps) -> AsyncIterator[Scale]:
    scale = await deps.enter(open_shared_scale)
    assert_type(scale, Scale)
    yield scale


@asynccontextmanager
async def open_shared_scale(deps: Deps) -> AsyncIterator[Scale]:
    assert_type(deps.jobs, JobScheduler)
    yield Scale()


async def weigh(job: Job[Parcel], scale: Scale) -> str:
    assert_type(job.payload, Parcel)
    return await scale.weigh(job.payload.grams)


def count(job: Job[Parcel]) -> int:
    return job.payload.grams


def decide(job: Job[Parcel]) -> None:
    wait = timedelta(seconds=1)
    match job.attempt:
        case 1:
            raise Retry("busy", after=wait)
        case 2:
            raise Retry(at_least=wait)
        case 3:
            raise Snooze("not due", after=wait)
        case 4:
            raise RateLimited("429", after=wait)
        case _:
            raise Fail("no such parcel")


async def any_job(job: Job[Any]) -> None:
    job.log(job.id)


@hookimpl
def corral_queues() -> list[Queue]:
    return [parcels, emails]


@hookimpl
def corral_processors() -> list[Processor]:
    return [
        parcels.processed_by(weigh, using=open_scale),
        parcels.processed_by(count),
        emails.processed_by(any_job),
    ]


async def produce(jobs: JobScheduler) -> None:
    mail = EmailJob(
        to="ada@example.org", template="welcome", variables={"name": "Ada", "lines": ["a", 1, None]}
    )
    enqueued = await jobs.enqueue(
        emails, mail, attempts=5, delay=timedelta(seconds=30), job_id="welcome-1"
    )
    assert_type(enqueued, Enqueued)
    await jobs.enqueue(emails, {"to": "ada@example.org", "template": "welcome", "variables": {}})
    await jobs.enqueue(
        "emails",
        {"to": "ada@example.org"},
        backoff=Fixed(timedelta(0)),
        keep_failed=Retention(count=1),
    )
    many = await jobs.enqueue_many(parcels, [Parcel(grams=1), Parcel(grams=2)], priority=1)
    assert_type(many, Sequence[Enqueued])
    await jobs.enqueue_many("parcels", [{"grams": 1}, {"grams": "2", "fragile": True}])
    entry = Entry(
        Parcel(grams=1),
        job_id="parcel-1",
        delay=timedelta(hours=1),
        lifo=True,
        backoff=Fixed(timedelta(1)),
    )
    assert_type(entry, Entry[Parcel])
    await jobs.enqueue_many(
        parcels, [entry, Parcel(grams=2), Entry(Parcel(grams=3), priority=1)], attempts=2
    )
    entries = [Entry(Parcel(grams=grams), job_id=f"parcel-{grams}") for grams in range(3)]
    try:
        await jobs.enqueue_many(parcels, entries)
    except EnqueueInterrupted as error:
        assert_type(error.refused, tuple[str, ...])
    await jobs.enqueue_many("parcels", [Entry({"grams": 1}, job_id="parcel-1"), {"grams": "2"}])
    by_name = [Entry({"grams": grams}, keep_failed=Retention(count=1)) for grams in range(3)]
    await jobs.enqueue_many("parcels", by_name)


@hookspec
def acme_find_user(user_id: str) -> Awaitable[Parcel | None] | Parcel | None:
    """A hook whose first answer counts."""
    return None


@hookspec
def acme_forget_user(user_id: str, rows: int = 1) -> Awaitable[int] | int:
    """A hook whose answers all count."""
    return rows


@hookspec
async def acme_greet_user(user_id: str) -> str | None:
    """A hook that says by `async def` that it is awaited."""
    return None


@hookspec
def acme_user_left(user_id: str) -> Awaitable[None] | None:
    """A hook whose answer does not count."""


async def ask(deps: Deps) -> None:
    assert_type(await deps.ask_first(acme_find_user, user_id="ada"), Parcel | None)
    assert_type(await deps.ask_first(acme_find_user, "ada"), Parcel | None)
    assert_type(await deps.ask_all(acme_find_user, user_id="ada"), list[Answer[Parcel | None]])
    assert_type(await deps.ask_all(acme_forget_user, user_id="ada"), list[Answer[int]])
    assert_type(await deps.ask_first(acme_forget_user, user_id="ada", rows=2), int | None)
    assert_type(await deps.ask_first(acme_greet_user, user_id="ada"), str | None)
    assert_type(await deps.ask_all(acme_greet_user, user_id="ada"), list[Answer[str | None]])
    await deps.ask_all(acme_user_left, user_id="ada")
    assert_type(deps.implementers(acme_user_left), tuple[str, ...])
    assert_type(await deps.enter(of_worker), JobInspector)


@hookimpl
def corral_enqueuing(queue: Queue[Any]) -> Mapping[str, str] | None:
    return {"tenant": queue.name}


@hookimpl
def corral_tables() -> list[MetaData]:
    return [MetaData()]


@asynccontextmanager
async def open_database(deps: Deps) -> AsyncIterator[AsyncEngine]:
    engine = await deps.enter(sql.engine)
    assert_type(engine, AsyncEngine)
    async with engine.begin() as connection:
        await commit(connection, sql.Outbox(deps.jobs))
    async with AsyncSession(engine) as session, session.begin():
        await commit(session, sql.Outbox(deps.jobs))
    yield engine


async def commit(connection: AsyncConnection | AsyncSession, outbox: sql.Outbox) -> None:
    if await sql.Ledger.claim(connection, "parcels", "4711"):
        jobs = outbox.within(connection)
        assert_type(jobs, JobScheduler)
        enqueued = await jobs.enqueue(parcels, Parcel(grams=1), delay=timedelta(hours=1))
        assert_type(enqueued, Enqueued)
        assert_type(enqueued.state, JobState | None)
        assert_type(await jobs.unschedule("parcels", "weekly"), bool)


async def test_weigh() -> None:
    assert await weigh(testing.job(parcels, Parcel(grams=5), attempt=2), Scale()) == "5 g"
    assert_type(testing.job(parcels, {"grams": 5}), Job[Parcel])
    assert_type(replace(testing.job(parcels, {"grams": 5}), attempt=2), Job[Parcel])
    jobs = testing.RecordingJobScheduler(parcels)
    await produce(jobs)
    assert_type(jobs.payloads(parcels), list[Parcel])
