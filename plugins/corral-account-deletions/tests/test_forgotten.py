"""The promise: afterwards no table and no job of any queue holds the address, and nobody else has
lost anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import redis
from sqlalchemy import select, update

from corral import Every, Job, Payload, Queue, Retention
from corral.sql import Outbox, outbox

pytestmark = pytest.mark.asyncio

ADA = "ada@example.org"
NADA = "nada@example.org"
"""Somebody else, whose address ends like Ada's."""
DAY = timedelta(days=1)


class Note(Payload):
    user_id: str | int | None = None
    to: str | None = None
    says: str | None = None
    quantity: int | None = None


notes = Queue("notes", Note)


async def note(job: Job[Note]) -> Any:
    """Write what the payload says to every place where a job can leave text."""
    payload = job.payload
    if payload.says == "fails":
        raise LookupError(f"nobody is called {payload.to}")
    if payload.says is not None:
        job.log(f"wrote to {payload.says}")
        job.progress({"now": payload.says})
    return {"wrote": payload.says}


NOTES = notes.processed_by(note)


def stored(url: str) -> str:
    """Everything that is in the store, in small letters."""
    found: dict[str, Any] = {}
    with redis.Redis.from_url(url, decode_responses=True, encoding_errors="replace") as store:
        reads: dict[str, Callable[[str], Any]] = {
            "hash": store.hgetall,
            "list": lambda key: store.lrange(key, 0, -1),
            "zset": lambda key: store.zrange(key, 0, -1, withscores=True),
            "set": store.smembers,
            "stream": store.xrange,
            "string": store.get,
        }
        for key in store.scan_iter():
            found[key] = reads[store.type(key)](key)
    return repr(found).casefold()


def left_out(text_: str) -> str:
    """A dump without the other one's address, so that what is left of Ada's shows."""
    return text_.replace(NADA, "")


async def test_no_table_and_no_job_holds_the_address_and_others_keep_theirs(
    accounts: Any, erasing: None
) -> None:
    kit = accounts.kit
    async with kit.connect(notes) as jobs:
        for number, (who, user_id) in enumerate(
            [(ADA, "ada-4711"), (NADA, "nada-1"), ("bob@example.org", "bob-1")]
        ):
            await jobs.enqueue(
                "emails",
                {"to": who, "template": "welcome", "variables": {"n": number}},
                job_id=user_id,
            )
            await jobs.enqueue(notes, Note(user_id=user_id), job_id=f"{user_id}-named")
            await jobs.enqueue(notes, Note(says=f"<{who.upper()}>"), job_id=f"{user_id}-says")
            await jobs.enqueue(
                notes, Note(to=who, says="fails"), attempts=2, job_id=f"{user_id}-fails"
            )
            gone = {"attempts": 1, "keep_failed": Retention(count=0)}
            await jobs.enqueue(notes, Note(to=who, says="fails"), **gone)  # its event stays
        await kit.drain(NOTES, for_=DAY)
        await kit.drain(_emails().processed_by(_send))
        for who, user_id in [(ADA, "ada-4711"), (NADA, "nada-1")]:
            await jobs.enqueue("emails", _mail(who), job_id=f"{user_id}-later", delay=300 * DAY)
            await jobs.enqueue(
                "emails", _mail(who), job_id=f"{user_id}-first", delay=DAY, priority=1
            )
            await jobs.enqueue(
                "emails",
                {**_mail("bob@example.org"), "cc": [who]},
                job_id=f"{user_id}-copy",
                delay=DAY,
            )
            await jobs.schedule("emails", _mail(who), Every(10 * DAY), id=f"digest-{user_id}")
        await kit.drain(_emails().processed_by(_send))  # the first digests, whose turn it is
        async with accounts.engine.begin() as connection:
            for who in (ADA, NADA):
                await (
                    Outbox(jobs)
                    .within(connection)
                    .enqueue("emails", _mail(who), job_id=f"refused-{len(who)}")
                )
            await connection.execute(
                update(outbox).values(refused=True, error=f"no room for {NADA}")
            )
    before = stored(kit.url)
    assert left_out(before).count(ADA) > 15
    others = before.count(NADA)
    await accounts.run("INSERT INTO users VALUES ('nada-1', 'nada@example.org')")

    request = await accounts.asked(grace=timedelta(0))
    ended = await _drained(accounts)
    assert [kind for kind, _ in ended] == ["Completed"]

    assert stored(kit.url).count(NADA) == others, "what is another one's is as it was"
    assert ADA not in left_out(stored(kit.url)), "the mail still waits in the outbox"
    assert (await _outbox(accounts)) == [
        f"refused-{len(NADA)}",
        f"account-deletions.deletion-{request.id}.mail",
    ]
    await accounts.relayed()
    sent = await kit.drain(_emails().processed_by(_send))
    assert [
        run.job.payload.to for run in sent if run.job.payload.template == "account-deleted"
    ] == [ADA]
    assert ADA not in left_out(await accounts.dumped())
    assert "bob@example.org" in await accounts.dumped()
    assert ADA not in left_out(stored(kit.url)), "the mail's job and its result are gone, too"
    assert "ada-4711" not in str(
        [job.payload for job in kit.jobs(notes) if job.state == "completed"]
    )
    named = await accounts.stored(notes, "nada-1-named")
    assert named.data["userId"] == "nada-1"


async def test_why_attempts_failed_is_forgotten_with_the_account(
    accounts: Any, erasing: None
) -> None:
    """The board shows it by reasons, which may name anybody, for an hour."""
    kit, kept = accounts.kit, "corral:bull:notes:reasons:"
    async with kit.connect(notes) as jobs:
        await jobs.enqueue(notes, Note(to=ADA, says="fails"), attempts=1)
        await kit.drain(NOTES)
    assert kept in stored(kit.url)
    await accounts.asked(grace=timedelta(0))
    await _drained(accounts)
    assert kept not in stored(kit.url)


async def test_all_that_is_for_later_is_looked_through(accounts: Any, erasing: None) -> None:
    async with accounts.kit.connect() as jobs:
        for _ in range(130):
            await jobs.enqueue_many("emails", [_mail(ADA), _mail(NADA)], delay=300 * DAY)
    await accounts.asked(grace=timedelta(0))
    ((_, result),) = await _drained(accounts)
    assert b'"jobsRemoved":130' in result
    assert [job.payload.to for job in accounts.kit.jobs("emails")] == [NADA] * 130


async def test_a_job_whose_turn_has_come_is_waited_for_and_not_taken_away(
    accounts: Any, erasing: None
) -> None:
    """It may be a payment that the provider reports once: nothing that was to be done is lost."""
    booked: list[str] = []

    async def book(job: Job[Note]) -> str:
        if job.attempt == 1 and job.id == "tried-again":
            raise LookupError("the books are closed")
        booked.append(job.id)
        return f"booked for {ADA}"

    async with accounts.kit.connect(notes) as jobs:
        await jobs.enqueue(notes, Note(to=ADA), job_id="tried-again")
        await accounts.kit.drain(notes.processed_by(book))
        await jobs.enqueue(notes, Note(to=ADA), job_id="waits")
        await jobs.enqueue(notes, Note(to=ADA), job_id="first", priority=1)
        async with accounts.engine.begin() as connection:
            await Outbox(jobs).within(connection).enqueue(notes, Note(to=ADA), job_id="committed")
    request = await accounts.asked(grace=timedelta(0))
    first, *_ = await _drained(accounts, timedelta(0))
    assert first[0] == "Snoozed"
    assert (await accounts.request(request.id)).processed_at is not None, (
        "everything is erased by then"
    )
    await accounts.relayed()
    await accounts.kit.drain(notes.processed_by(book), for_=timedelta(seconds=10))
    assert sorted(booked) == ["committed", "first", "tried-again", "waits"]
    assert [kind for kind, _ in await _drained(accounts)] == ["Completed"]
    assert ADA not in stored(accounts.kit.url)


async def test_a_job_that_is_committed_and_not_relayed_is_waited_for(
    accounts: Any, erasing: None
) -> None:
    await accounts.asked(grace=timedelta(0))
    async with accounts.kit.connect(notes) as jobs, accounts.engine.begin() as connection:
        await Outbox(jobs).within(connection).enqueue(notes, Note(to=ADA), job_id="committed")
        await (
            Outbox(jobs)
            .within(connection)
            .enqueue(notes, Note(to=ADA), job_id="for-later", delay=DAY)
        )
    assert [kind for kind, _ in await _drained(accounts, timedelta(0))] == ["Snoozed"]
    assert await _outbox(accounts) == ["committed"]


async def test_a_short_id_scrubs_nothing_of_others(accounts: Any, erasing: None) -> None:
    async with accounts.kit.connect(notes) as jobs:
        await jobs.enqueue(notes, Note(user_id=1), job_id="named")
        await jobs.enqueue(notes, Note(user_id="11", quantity=1, says="1"), job_id="other")
    await accounts.kit.drain(NOTES)
    await accounts.asked("1", grace=timedelta(0))
    await _drained(accounts)
    assert (await accounts.stored(notes, "named")).data == {}
    other = await accounts.stored(notes, "other")
    assert (other.data["quantity"], other.returnvalue) == (1, {"wrote": "1"})


async def test_a_mail_that_fails_for_good_leaves_no_job_with_the_address(
    accounts: Any, erasing: None
) -> None:
    await accounts.asked(grace=timedelta(0))
    await accounts.drained()
    await accounts.relayed()

    async def refused(job: Job[Any]) -> None:
        raise ConnectionError("no such host")

    drained = await accounts.kit.drain(_emails().processed_by(refused), for_=DAY)
    assert [type(run.outcome).__name__ for run in drained] == ["Retried"] * 2 + ["Failed"]
    assert accounts.kit.jobs("emails") == []
    assert ADA not in stored(accounts.kit.url)


async def test_a_job_about_the_user_that_runs_is_waited_for(accounts: Any, erasing: None) -> None:
    """It needs its payload now, and is scrubbed when it has ended."""
    started, may_end = asyncio.Event(), asyncio.Event()

    async def slow(job: Job[Note]) -> str:
        started.set()
        await may_end.wait()
        return f"exported {ADA}"

    async with accounts.kit.connect(notes) as jobs:
        await jobs.enqueue(notes, Note(user_id="ada-4711"))
    running = asyncio.create_task(accounts.kit.drain(notes.processed_by(slow)), name="a worker")
    async with asyncio.timeout(30):
        await started.wait()
    request = await accounts.asked(grace=timedelta(0))
    assert [kind for kind, _ in await _drained(accounts, timedelta(0))] == ["Snoozed"]
    half = await accounts.request(request.id)
    assert half.processed_at is not None
    assert (half.finished_at, half.email) == (None, ADA)
    may_end.set()
    await running
    assert ADA in stored(accounts.kit.url)
    assert [kind for kind, _ in await _drained(accounts)] == ["Completed"]
    assert ADA not in stored(accounts.kit.url)


async def test_a_job_for_many_that_failed_at_the_user_is_not_removed(
    accounts: Any, erasing: None
) -> None:
    async with accounts.kit.connect(notes) as jobs:
        await jobs.enqueue(notes, Note(says="x"), job_id="for-all")

    async def at_ada(job: Job[Note]) -> str:
        if job.attempt == 1:
            raise LookupError(f"{ADA} has no inbox")
        return "done"

    await accounts.kit.drain(notes.processed_by(at_ada))
    await accounts.asked(grace=timedelta(0))
    first = await _drained(accounts, timedelta(0))
    assert [kind for kind, _ in first] == ["Snoozed"]
    await accounts.kit.drain(notes.processed_by(at_ada), for_=timedelta(seconds=10))
    assert (await accounts.stored(notes, "for-all")).returnvalue == "done"
    assert [kind for kind, _ in await _drained(accounts)] == ["Completed"]
    assert (await accounts.stored(notes, "for-all")).stacktrace == ()


async def test_what_a_participant_enqueues_runs_and_is_scrubbed(
    accounts: Any, taking_part: Callable[..., None]
) -> None:
    async def enqueue(user_id: str, connection: Any) -> None:
        async with accounts.kit.connect() as jobs:
            later = Outbox(jobs).within(connection)
            await later.enqueue("emails", _mail(ADA), job_id="goodbye")
            await later.enqueue(
                "emails",
                {**_mail("boss@example.org"), "variables": {"user": user_id}},
                job_id="notice",
            )

    taking_part(account_deletions_erase=enqueue)
    await accounts.asked(grace=timedelta(0))
    assert [kind for kind, _ in await accounts.drained(timedelta(0))] == ["Snoozed"]
    await accounts.relayed()
    sent = await accounts.kit.drain(_emails().processed_by(_send))
    assert {run.job.id for run in sent} == {"goodbye", "notice"}
    assert [kind for kind, _ in await accounts.drained(timedelta(minutes=1))] == ["Completed"]
    assert ADA not in stored(accounts.kit.url)


async def test_without_a_queue_for_mail_it_is_said_once_and_goes_on(
    accounts: Any, erasing: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CORRAL_DISABLED_PLUGINS", "corral-emails,acme-emails")
    first, second = (
        await accounts.asked(grace=timedelta(0)),
        await accounts.asked("bob-1", "bob@example.org"),
    )
    ended = await accounts.drained()
    assert [kind for kind, _ in ended] == ["Completed"] * 2
    warnings = [each for each in caplog.messages if "emails" in each]
    assert warnings == ["no queue 'emails' is installed: deletions are not confirmed by mail"]
    for request in (first, second):
        done = await accounts.request(request.id)
        assert (done.email, done.finished_at is None) == (None, False)
    assert await accounts.rows("SELECT * FROM corral_outbox") == []


def _emails() -> Any:
    from acme_emails import emails

    return emails


def _mail(to: str) -> dict[str, Any]:
    return {"to": to, "template": "digest", "variables": {}}


async def _send(job: Job[Any]) -> dict[str, Any]:
    return {"messageId": f"<{job.id}@acme.example>"}


async def _drained(accounts: Any, for_: timedelta = timedelta(hours=1)) -> list[tuple[str, Any]]:
    """Deletions alone, by a worker that knows the queue `notes`, too."""
    async with accounts.kit.connect(notes):
        return await accounts.drained(for_)


async def _outbox(accounts: Any) -> list[str]:
    async with accounts.engine.connect() as connection:
        return list(await connection.scalars(select(outbox.c.job_id).order_by(outbox.c.id)))
