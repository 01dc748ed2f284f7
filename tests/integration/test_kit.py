"""The fixture `corral_kit`: a producer, a worker that drains and a clock, on the real scripts."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from pydantic import Field, SecretStr

from corral import (
    Cron,
    Deps,
    Enqueued,
    Every,
    Exponential,
    Fail,
    Job,
    JobOptions,
    JobState,
    Payload,
    Queue,
    RateLimited,
    Snooze,
    hookimpl,
    hookspec,
)
from corral.errors import CatalogError, PayloadRefused, UnknownQueue
from corral.inspector import of_worker
from corral.outcome import Completed, Failed, QueueLimited, Retried, Snoozed
from corral.testing import Kit

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Letter(Payload):
    text: str = ""
    copies: int = 1


letters = Queue("letters", Letter)
stubborn = Queue(
    "stubborn", Letter, options=JobOptions(attempts=8, backoff=Exponential(timedelta(minutes=11)))
)
parcels = Queue("parcels", Letter)


async def echo(job: Job[Letter]) -> str:
    return job.payload.text


def on_a_thread(job: Job[Letter]) -> str:
    return job.payload.text.upper()


@asynccontextmanager
async def jobs_of(deps: Deps) -> AsyncIterator[Any]:
    yield deps.jobs


@pytest.fixture
def sent(corral_kit: Kit) -> str:
    """A fixture of a user that is no coroutine: a job is there before the test begins."""
    return asyncio.run(corral_kit.enqueue(letters, Letter(text="sent"))).id


def test_a_test_without_an_event_loop_drains_too(corral_kit: Kit, sent: str) -> None:
    drained = asyncio.run(corral_kit.drain(letters.processed_by(on_a_thread)))
    assert drained.outcomes(letters) == drained.outcomes("letters", sent) == [Completed(b'"SENT"')]
    assert drained.outcomes(letters, "another") == drained.outcomes(parcels) == []
    assert [job.state for job in corral_kit.jobs(letters)] == ["completed"]


@pytest.mark.asyncio
async def test_a_drain_follows_jobs_into_other_queues_and_tells_each_run(corral_kit: Kit) -> None:
    async def forward(job: Job[Letter], jobs: Any) -> None:
        await jobs.enqueue(parcels, job.payload)

    async def refuse(job: Job[Letter]) -> None:
        raise Fail("no such street")

    enqueued = await corral_kit.enqueue_many(letters, [Letter(text="a"), Letter(text="b")])
    drained = await corral_kit.drain(
        letters.processed_by(forward, using=jobs_of), parcels.processed_by(refuse)
    )
    assert {run.job.id for run in drained if run.job.queue.name == "letters"} == {
        job.id for job in enqueued
    }
    assert drained.outcomes(letters) == [Completed(), Completed()]
    assert [
        outcome.reason for outcome in drained.outcomes(parcels) if isinstance(outcome, Failed)
    ] == ["Fail: no such street"] * 2
    assert {job.state for job in corral_kit.jobs(parcels)} == {"failed"}
    assert len(await corral_kit.drain(letters.processed_by(echo))) == 0


@pytest.mark.asyncio
async def test_enqueue_reports_the_state_of_a_job_whose_id_exists(corral_kit: Kit) -> None:
    first = await corral_kit.enqueue(letters, Letter(), job_id="ada")
    assert first == Enqueued("ada", created=True, state=JobState.WAITING)
    await corral_kit.drain(letters.processed_by(on_a_thread))
    again = await corral_kit.enqueue(letters, Letter(), job_id="ada")
    assert again == Enqueued("ada", created=False, state=JobState.COMPLETED)


@pytest.mark.asyncio
async def test_unschedule_ends_the_schedule_of_one_queue(corral_kit: Kit) -> None:
    hourly = Every(timedelta(hours=1))
    for queue in (letters, parcels):
        await corral_kit.schedule(queue, {}, hourly, id="ada")
    assert await corral_kit.unschedule(letters, "ada") is True
    assert await corral_kit.unschedule(letters, "ada") is False
    assert await corral_kit.unschedule(parcels, "ada") is True


@pytest.mark.asyncio
async def test_a_drain_tells_its_runs_in_the_order_in_which_they_ended(corral_kit: Kit) -> None:
    singly = Queue("singly", Letter, concurrency=1)  # of two at once, either may end first
    last = await corral_kit.enqueue(singly, Letter(text="last"), priority=2)
    then = await corral_kit.enqueue(singly, Letter(text="then"), priority=1)
    first = await corral_kit.enqueue(singly, Letter(text="first"))
    drained = await corral_kit.drain(singly.processed_by(echo))
    assert [run.job.id for run in drained] == [first.id, then.id, last.id]
    assert drained.outcomes(singly) == [
        Completed(b'"first"'),
        Completed(b'"then"'),
        Completed(b'"last"'),
    ]


@pytest.mark.asyncio
async def test_a_processor_has_an_inspector_as_in_any_worker(corral_kit: Kit) -> None:
    async def count(job: Job[Letter], inspector: Any) -> int:
        return int((await inspector.counts(letters))["active"])

    await corral_kit.enqueue(letters, Letter())
    drained = await corral_kit.drain(letters.processed_by(count, using=of_worker))
    assert drained.outcomes(letters) == [Completed(b"1")]


@pytest.mark.asyncio
async def test_a_24_hour_retry_schedule_takes_milliseconds(corral_kit: Kit) -> None:
    async def broken(job: Job[Letter]) -> None:
        raise ConnectionError("down")

    enqueued = await corral_kit.enqueue(stubborn, Letter())
    began, before = time.perf_counter(), corral_kit.now
    drained = await corral_kit.drain(stubborn.processed_by(broken), for_=DAY)
    took = time.perf_counter() - began
    outcomes = drained.outcomes(stubborn, enqueued.id)
    assert [type(outcome) for outcome in outcomes] == [Retried] * 7 + [Failed]
    at = [run.job.processed_on for run in drained]
    waited = [(later - earlier).total_seconds() / 60 for earlier, later in pairwise(at)]
    assert [round(minutes, 1) for minutes in waited] == [11, 22, 44, 88, 176, 352, 704]
    assert DAY <= corral_kit.now - before < DAY + timedelta(minutes=1)
    print(f"8 attempts within {at[-1] - at[0]} of moved time, drained in {took * 1000:.0f} ms")


@pytest.mark.asyncio
async def test_a_month_of_hours_runs_each_of_them_once(corral_kit: Kit) -> None:
    async def hourly(job: Job[Letter]) -> None:
        raise Snooze(after=HOUR)

    await corral_kit.enqueue(letters, Letter())
    began = time.perf_counter()
    drained = await corral_kit.drain(
        letters.processed_by(hourly), for_=timedelta(days=31), seconds=60
    )
    took = time.perf_counter() - began
    assert set(drained.outcomes(letters)) == {Snoozed(3_600_000)}
    at = [run.job.processed_on for run in drained]
    assert all(HOUR <= b - a < HOUR + timedelta(minutes=1) for a, b in pairwise(at))
    assert 740 <= len(drained) <= 744
    print(
        f"31 days, {len(drained)} runs an hour apart, in {took:.2f} s: {took / len(drained) * 1000:.1f} ms a run"
    )


@pytest.mark.asyncio
async def test_time_moves_for_producers_and_workers_alike(corral_kit: Kit) -> None:
    worker = letters.processed_by(echo)
    await corral_kit.enqueue(letters, Letter(text="tomorrow"), delay=DAY)
    corral_kit.travel(timedelta(hours=23))
    async with corral_kit.connect() as jobs:
        await jobs.enqueue(letters, Letter(text="an hour later"), delay=timedelta(hours=2))
    assert len(await corral_kit.drain(worker)) == 0
    assert len(await corral_kit.drain(worker, until=corral_kit.now + timedelta(minutes=59))) == 0
    (first,) = await corral_kit.drain(worker, for_=timedelta(minutes=2))
    assert first.job.payload.text == "tomorrow"
    assert DAY <= first.job.processed_on - first.job.enqueued_at < DAY + timedelta(minutes=1)
    corral_kit.travel_to(corral_kit.now + HOUR)
    (second,) = await corral_kit.drain(worker)
    assert second.job.payload.text == "an hour later"


@pytest.mark.asyncio
async def test_a_rate_limit_ages_with_time(corral_kit: Kit) -> None:
    limited: list[str] = []

    async def twice(job: Job[Letter]) -> None:
        limited.append(job.id)
        if len(limited) <= 2:
            raise RateLimited(after=HOUR)

    worker = letters.processed_by(twice)
    await corral_kit.enqueue(letters, Letter())
    assert (await corral_kit.drain(worker)).outcomes(letters) == [QueueLimited(3_600_000)]
    assert len(await corral_kit.drain(worker)) == 0
    corral_kit.travel(timedelta(minutes=59))
    assert len(await corral_kit.drain(worker)) == 0
    assert len(await corral_kit.drain(worker, for_=timedelta(minutes=2))) == 1
    corral_kit.travel(HOUR)
    assert (await corral_kit.drain(worker)).outcomes(letters) == [Completed()]


@pytest.mark.asyncio
async def test_a_paused_queue_keeps_its_jobs(corral_kit: Kit) -> None:
    await corral_kit.enqueue(letters, Letter())
    with redis.Redis.from_url(corral_kit.url) as store:
        store.hset("bull:letters:meta", "paused", 1)
    assert len(await corral_kit.drain(letters.processed_by(echo), for_=DAY)) == 0
    assert corral_kit.assert_enqueued(letters).state == "waiting"


@pytest.mark.asyncio
async def test_a_drain_that_does_not_end_is_ended(corral_kit: Kit) -> None:
    async def for_ever(job: Job[Letter]) -> None:
        raise Snooze(after=timedelta(0))

    await corral_kit.enqueue(letters, Letter())
    with pytest.raises(TimeoutError, match=r"the drain did not end in 0\.3 s: \d+ runs have ended"):
        await corral_kit.drain(letters.processed_by(for_ever), seconds=0.3)
    with pytest.raises(TimeoutError, match=r"the drain did not end in 0\.3 s"):
        await corral_kit.drain(letters.processed_by(for_ever), for_=DAY, seconds=0.3)


@pytest.mark.asyncio
async def test_time_moves_forward_only(corral_kit: Kit) -> None:
    with pytest.raises(ValueError, match="forward only"):
        corral_kit.travel(-HOUR)
    with pytest.raises(ValueError, match="forward only"):
        corral_kit.travel_to(datetime(2020, 1, 1, tzinfo=UTC))
    with pytest.raises(ValueError, match="no time zone"):
        corral_kit.travel_to(datetime(2040, 1, 1))  # noqa: DTZ001  # what is refused
    with pytest.raises(ValueError, match="is past"):
        await corral_kit.drain(letters.processed_by(echo), until=datetime(2020, 1, 1, tzinfo=UTC))
    with pytest.raises(ValueError, match="not both"):
        await corral_kit.drain(letters.processed_by(echo), for_=HOUR, until=corral_kit.now)


class TestExpectations:
    @pytest.mark.asyncio
    async def test_look_at_all_jobs_in_whatever_state(self, corral_kit: Kit) -> None:
        await corral_kit.enqueue(letters, Letter(text="done"), job_id="first")
        await corral_kit.drain(letters.processed_by(echo))
        await corral_kit.enqueue(
            letters, Letter(text="late", copies=2), delay=HOUR, job_id="second"
        )
        await corral_kit.enqueue(letters, Letter(text="urgent"), priority=1, job_id="third")
        states = {job.id: (job.state, job.attempts_made) for job in corral_kit.jobs(letters)}
        assert states == {
            "first": ("completed", 1),
            "second": ("delayed", 0),
            "third": ("prioritized", 0),
        }
        assert list(states) == ["first", "second", "third"]
        assert corral_kit.assert_enqueued(letters, {"copies": 2}).id == "second"
        assert (
            corral_kit.assert_enqueued(letters, lambda letter: letter.text == "done").id == "first"
        )
        corral_kit.refute_enqueued(parcels)
        with pytest.raises(AssertionError) as message:
            corral_kit.assert_enqueued(letters, {"text": "lost"})
        assert str(message.value).splitlines() == [
            "no job of queue 'letters' matches {'text': 'lost'}",
            "enqueued were:",
            '  letters  first  completed  {"text":"done","copies":1}',
            '  letters  second  delayed  {"text":"late","copies":2}',
            '  letters  third  prioritized  {"text":"urgent","copies":1}',
        ]

    @pytest.mark.asyncio
    async def test_a_job_of_another_shape_matches_no_payload_and_is_listed(
        self, corral_kit: Kit
    ) -> None:
        with redis.Redis.from_url(corral_kit.url) as store:
            store.hset("bull:letters:odd", mapping={"data": '{"text":1}', "opts": "{}"})
            store.lpush("bull:letters:wait", "odd")
        assert corral_kit.assert_enqueued(letters).payload is None
        with pytest.raises(AssertionError, match=r'letters  odd  waiting  \{"text":1\}'):
            corral_kit.assert_enqueued(letters, {"text": "1"})

    @pytest.mark.asyncio
    async def test_a_name_that_nobody_declares_is_refused_as_ever(self, corral_kit: Kit) -> None:
        with pytest.raises(UnknownQueue):
            corral_kit.assert_enqueued("no-such-queue")
        with pytest.raises(UnknownQueue):
            await corral_kit.enqueue("no-such-queue", {})


def test_the_application_finds_the_same_store(
    corral_kit: Kit, real_plugins: str, acme: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code that calls `corral.connect()` itself, and the installed processors."""
    monkeypatch.syspath_prepend(acme)
    monkeypatch.setenv("CORRAL_DISABLED_PLUGINS", real_plugins)
    import corral

    with corral.connect_blocking() as jobs:
        jobs.enqueue("acme-letters", {"text": "hello"})
    assert corral_kit.assert_enqueued("acme-letters", {"text": "hello"}).state == "waiting"
    drained = asyncio.run(corral_kit.drain())
    assert drained.outcomes("acme-letters") == [Completed(b'"hello"')]


reminders = Queue("reminders", Letter, schedule=Cron("5 * * * *"))


@pytest.mark.asyncio
async def test_a_month_of_a_schedule_runs_every_tick_once(corral_kit: Kit) -> None:
    """On the scripts that a worker uses: the schedule is ensured by the drain, and advanced by its
    fetches.
    """
    began = time.perf_counter()
    drained = await corral_kit.drain(
        reminders.processed_by(echo), for_=timedelta(days=31), seconds=60
    )
    took = time.perf_counter() - began
    ticks = [run.job.scheduled_for for run in drained]
    assert set(drained.outcomes(reminders)) == {Completed(b'""')}
    assert {tick.minute for tick in ticks} == {5}
    assert all(later - earlier == HOUR for earlier, later in pairwise(ticks))
    assert 743 <= len(ticks) <= 745
    assert all(
        timedelta(0) <= run.job.processed_on - run.job.scheduled_for < timedelta(seconds=10)
        for run in drained
    )
    print(
        f"31 days of '5 * * * *': {len(ticks)} ticks in {took:.2f} s, {took / len(ticks) * 1000:.1f} ms a tick"
    )


@pytest.mark.asyncio
async def test_a_schedule_of_a_moment_of_the_program_is_made_in_moved_time(corral_kit: Kit) -> None:
    corral_kit.travel(timedelta(days=100))
    before = corral_kit.now
    async with corral_kit.connect(letters) as jobs:
        first = await jobs.schedule(letters, Letter(text="daily"), Every(DAY), id="daily")
    assert before <= first <= before + DAY + timedelta(minutes=1)
    drained = await corral_kit.drain(letters.processed_by(echo), for_=timedelta(days=7))
    assert 7 <= len(drained) <= 8
    assert set(drained.outcomes(letters)) == {Completed(b'"daily"')}


class Circle(Letter):
    radius: int = 0


class Drawing(Payload):
    letter: Letter
    secret: SecretStr
    when: datetime | None = None
    more: dict[str, Any] = Field(default_factory=dict)


drawings = Queue("drawings", Drawing)


@pytest.mark.asyncio
async def test_a_payload_reaches_the_processor_as_it_was_given_also_beside_an_unknown_field(
    corral_kit: Kit,
) -> None:
    seen: list[Drawing] = []

    async def draw(job: Job[Drawing]) -> None:
        seen.append(job.payload)

    secret, now = SecretStr("hunter2"), datetime.now(UTC)
    given = Drawing(letter=Letter(text="a"), secret=secret, when=now, more={"a": [1, {"b": 1.5}]})
    first = await corral_kit.enqueue(drawings, given)
    second = await corral_kit.enqueue(drawings, given)
    with redis.Redis.from_url(corral_kit.url) as client:
        raw = client.hget(f"bull:drawings:{second.id}", "data")
        assert isinstance(raw, bytes)
        client.hset(
            f"bull:drawings:{second.id}",
            "data",
            raw.replace(b'{"text"', b'{"new":{"text":1},"text"'),
        )
    drained = await corral_kit.drain(drawings.processed_by(draw))
    assert [run.outcome for run in drained] == [Completed(b"null")] * 2
    assert {run.job.id for run in drained} == {first.id, second.id}
    assert seen == [given, given]


@pytest.mark.asyncio
async def test_the_kit_refuses_what_no_worker_would_read_and_what_no_worker_could_call(
    corral_kit: Kit,
) -> None:
    wrong = Drawing(letter=Circle(), secret=SecretStr("hunter2"))
    message = "letter: is Circle here, and Letter where a worker reads it"
    with pytest.raises(PayloadRefused, match=message):
        await corral_kit.enqueue(drawings, wrong)
    async with corral_kit.connect(drawings) as jobs:
        with pytest.raises(PayloadRefused, match=message):
            await jobs.enqueue(drawings, wrong)
    with pytest.raises(CatalogError, match=r"for queue 'letters' cannot be called with \(job\)"):
        await corral_kit.drain(letters.processed_by(lambda: None))
    assert corral_kit.jobs(drawings) == []


@pytest.mark.asyncio
async def test_a_test_answers_hooks_in_a_kit_of_the_same_store_and_time(corral_kit: Kit) -> None:
    ended: list[tuple[str, type]] = []

    @hookimpl
    def corral_job_ended(job: Job[Any], outcome: object) -> None:
        ended.append((job.id, type(outcome)))

    class Traced:
        @hookimpl
        def corral_enqueuing(self, queue: Queue[Any]) -> dict[str, str]:
            return {"queue": queue.name}

    async def carried(job: Job[Letter]) -> dict[str, str]:
        return dict(job.carrier)

    kit = corral_kit(hooks=[corral_job_ended, Traced()])
    kit.travel(HOUR)
    assert abs(kit.now - corral_kit.now) < timedelta(minutes=1)
    await kit.enqueue(letters, Letter(), job_id="with")
    await corral_kit.enqueue(letters, Letter(), job_id="without")
    drained = await kit.drain(letters.processed_by(carried))
    assert drained.outcomes(letters, "with") == [Completed(b'{"queue":"letters"}')]
    assert drained.outcomes(letters, "without") == [Completed(b"{}")]
    assert sorted(ended) == [("with", Completed), ("without", Completed)]
    await corral_kit.enqueue(letters, Letter(), job_id="later")
    await corral_kit.drain(letters.processed_by(carried))
    assert len(ended) == 2, "the fixture's own kit asks the installed plugins alone"


@hookspec
def acme_find_user(user_id: str) -> str | None:
    """Find the address of a user."""


@pytest.mark.asyncio
async def test_a_test_answers_a_hook_that_a_plugin_offers(
    corral_kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    @hookimpl
    def corral_hookspecs() -> list[object]:
        return [SimpleNamespace(acme_find_user=acme_find_user)]

    def answering(address: str) -> Any:
        def find_user(user_id: str) -> str:
            return user_id + address

        find_user.__name__ = "acme_find_user"
        return hookimpl(find_user)

    installed = SimpleNamespace(
        corral_hookspecs=corral_hookspecs, acme_find_user=answering("@installed.example")
    )
    monkeypatch.setitem(sys.modules, "acme_users", installed)
    monkeypatch.setenv("CORRAL_APP", "acme_users")

    @asynccontextmanager
    async def open_users(deps: Deps) -> AsyncIterator[str | None]:
        yield await deps.ask_first(acme_find_user, user_id="ada")

    async def address(job: Job[Letter], found: str | None) -> str | None:
        return found

    working = letters.processed_by(address, using=open_users)
    await corral_kit.enqueue(letters, Letter())
    assert (await corral_kit.drain(working)).outcomes(letters) == [
        Completed(b'"ada@installed.example"')
    ]
    kit = corral_kit(hooks=[answering("@test.example")])
    await kit.enqueue(letters, Letter())
    assert (await kit.drain(working)).outcomes(letters) == [Completed(b'"ada@test.example"')]


@pytest.mark.asyncio
async def test_an_inspector_has_everything_of_a_job_in_moved_time(corral_kit: Kit) -> None:
    async def fail(job: Job[Letter]) -> None:
        raise LookupError("no such letter")

    await corral_kit.enqueue(stubborn, Letter(text="hello"), job_id="a")
    await corral_kit.drain(stubborn.processed_by(fail))
    corral_kit.travel(DAY)
    async with corral_kit.open_inspector() as inspector:
        found = await inspector.get(stubborn, "a")
        assert (found.state, found.data["text"], len(found.stacktrace)) == ("delayed", "hello", 1)
        assert found.due_at is not None
        assert found.due_at < corral_kit.now
        await inspector.promote(stubborn, "a")
        await corral_kit.enqueue(parcels, Letter(), job_id="b")
        with pytest.raises(UnknownQueue):
            await inspector.get("leters", "b")
    assert [job.state for job in corral_kit.jobs(stubborn)] == ["waiting"]
