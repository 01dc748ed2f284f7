"""What a user may write by mistake.

Each line that ends in `# error:` must be refused, and no other line.
"""

# ruff: noqa: B018, F401, I001  # mistakes are what this file is for
from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from corral_emails import EmailJob, emails
from corral_emails import emial  # error: no queue of this name

from corral import Deps, Entry, Job, JobScheduler, Payload, Processor, Queue, RateLimited, Retry
from corral import hookspec, sql, testing
from corral import Nope  # error: no such name on the surface


class Parcel(Payload):
    grams: int


class Scale:
    pass


class Oven:
    pass


parcels = Queue("parcels", Parcel)
mail = EmailJob(to="ada@example.org", template="welcome", variables={})
parcel = Parcel(grams=1)


@asynccontextmanager
async def open_scale(deps: Deps) -> AsyncIterator[Scale]:
    yield Scale()


@asynccontextmanager
async def open_oven(deps: Deps) -> AsyncIterator[Oven]:
    yield Oven()


async def weigh(job: Job[Parcel], scale: Scale) -> None:
    job.payload.ounces  # error: the payload has no such field
    job.payload = parcel  # error: a job is read-only
    job.attempt = 2  # error: a job is read-only, whichever field
    job.run  # error: the framework's part of a job
    job.enqueued_ms  # error: times are datetimes
    Retry("busy")  # error: no wait
    Retry("busy", after=timedelta(1), at_least=timedelta(1))  # error: two kinds of wait
    RateLimited(timedelta(1))  # error: the wait has a name


def count(job: Job[Parcel]) -> None:
    pass


Parcel(gram=1)  # error: a misspelt field
Parcel(grams="heavy")  # error: a field of another type
EmailJob(to="ada@example.org", variables={})  # error: a field is missing
Queue("parcels")  # error: a queue without a payload model
Queue("parcels", Scale)  # error: a payload model that is none
Queue("parcels", Parcel, timeout=5)  # error: a duration without a unit

emails.processed_by(count)  # error: a processor of another queue's payload
emails.processed_by(weigh, using=open_scale)  # error: another queue's payload, with a resource
parcels.processed_by(weigh, using=open_oven)  # error: another resource than the processor takes
parcels.processed_by(weigh)  # error: the resource is missing
parcels.processed_by(count, using=open_scale)  # error: a resource that the processor does not take
parcels.processed_by(weigh, using=Scale)  # error: a resource that nobody opens


def corral_processors() -> list[Processor]:
    return [count]  # error: a function that is bound to no queue


async def produce(jobs: JobScheduler) -> None:
    await jobs.enqueue(emails, parcel)  # error: a payload of another queue
    await jobs.enqueue("emails", mail)  # error: by name, a payload is a mapping
    await jobs.enqueue(emails, ["ada@example.org"])  # error: a payload that is neither
    await jobs.enqueue(emails, mail, atempts=5)  # error: a misspelt option
    await jobs.enqueue(emails, mail, delay=5)  # error: a duration without a unit
    await jobs.enqueue_many(emails, [mail, parcel])  # error: one of them belongs to another queue
    await jobs.enqueue_many("emails", [mail])  # error: by name they are mappings
    mixed = [Entry(mail), Entry(parcel)]
    await jobs.enqueue_many(emails, mixed)  # error: an entry of another queue's payload
    await jobs.enqueue_many("emails", [Entry(mail)])  # error: an entry with a model, by name
    Entry(mail, delay=5)  # error: a duration without a unit, in an entry
    Entry(mail, atempts=5)  # error: a misspelt option, in an entry
    Entry(mail, "welcome-1")  # error: an option without its name
    await jobs.unschedule("weekly")  # error: a schedule without its queue
    (await jobs.enqueue(emails, mail)).state.value  # error: the state may be unknown
    await jobs.enqueue(emails, mail, delay=timedelta(seconds=5))


testing.job(emails, parcel)  # error: a job of a payload of another queue


async def commit(outbox: sql.Outbox, connection: AsyncConnection) -> None:
    within = outbox.within(connection)
    await within.enqueue(emails, parcel)  # error: another queue's payload, in the outbox
    await outbox.enqueue(parcels, parcel)  # error: no transaction


@hookspec
def acme_find_user(user_id: str) -> Parcel | None:
    """A hook whose first answer counts."""


async def ask(deps: Deps) -> None:
    await deps.ask_first(acme_find_user)  # error: an argument of the hook is missing
    await deps.ask_first(acme_find_user, user_id=1)  # error: an argument of another type
    await deps.ask_all(acme_find_user, user="ada")  # error: a misspelt argument
    await deps.ask_all("acme_find_user", user_id="ada")  # error: a name, not the specification
    oven: Oven | None = await deps.ask_first(acme_find_user, "ada")  # error: another answer
    assert oven is None
    deps.hook.acme_find_user(user_id="ada")  # error: a hook is asked by its specification
    deps.inspector.queues  # error: the inspector is entered as a resource
