"""The outbox: what is committed reaches the store exactly once, what is rolled back never does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

import corral
from corral import (
    Every,
    JobOptions,
    JobScheduler,
    Payload,
    PayloadRefused,
    Queue,
    Retention,
    testing,
)
from corral.catalog import Catalog, CatalogEntry
from corral.errors import ConfigurationError, JobRefused, StoreUnavailable, UnknownQueue
from corral.plugins import Plugins, Provider
from corral.producer import RedisJobScheduler
from corral.sql import Outbox, OutboxRelay, Relayed
from corral.sql.tables import outbox
from corral.store.queue_store import MAX_BATCH, QueueStore
from logged import capture_logs

pytestmark = pytest.mark.asyncio


class Letter(Payload):
    text: str


letters = Queue("letters", Letter)
parcels = Queue(
    "parcels", Letter, options=JobOptions(priority=3, keep_completed=Retention(count=0))
)


def catalog_of(*queues: Queue[Any]) -> Catalog:
    entries = {
        queue.name: CatalogEntry(queue, Provider("acme", "1.0", "wheel"), "") for queue in queues
    }
    return Catalog(MappingProxyType(entries))


@pytest_asyncio.fixture
async def jobs(store_url: str) -> AsyncIterator[RedisJobScheduler]:
    scheduler = RedisJobScheduler(
        catalog_of(letters, parcels),
        Plugins.load([]).job_hooks,
        url=store_url,
        prefix="bull",
        max_payload_bytes=1000,
    )
    yield scheduler
    await scheduler.close()


@pytest_asyncio.fixture
async def relay_of(
    engine: AsyncEngine, store_url: str
) -> AsyncIterator[Callable[..., OutboxRelay]]:
    """`relay_of(letters)`: a relay that knows these queues; both of this file where none is given."""
    made: list[OutboxRelay] = []

    def make(*queues: Queue[Any], url: str = store_url) -> OutboxRelay:
        made.append(
            OutboxRelay(engine, catalog_of(*(queues or (letters, parcels))), url=url, prefix="bull")
        )
        return made[-1]

    yield make
    for relay in made:
        await relay.close()


@pytest.fixture
def rows(engine: AsyncEngine) -> Callable[[], Awaitable[list[Any]]]:
    """The outbox's rows."""

    async def rows() -> list[Any]:
        async with engine.connect() as connection:
            return list(await connection.execute(select(outbox).order_by(outbox.c.id)))

    return rows


async def test_a_committed_job_is_relayed_as_the_producer_would_have_written_it(
    engine, jobs, relay_of, rows, raw, assert_no_leaks
) -> None:
    async with engine.begin() as connection:
        by_queue = (
            await Outbox(jobs).within(connection).enqueue(parcels, Letter(text="ä\0"), attempts=5)
        )
        by_name = (
            await Outbox(jobs)
            .within(connection)
            .enqueue("parcels", {"text": "b"}, job_id="mine", lifo=True)
        )
    assert await raw.keys("bull:*") == []
    assert await relay_of().drain() == Relayed(jobs=2)
    assert await rows() == []

    direct = await jobs.enqueue(parcels, Letter(text="ä\0"), attempts=5)
    hashes = [await raw.hgetall(f"bull:parcels:{job.id}") for job in (by_queue, direct)]
    for each in hashes:
        del each["timestamp"]
    assert hashes[0] == hashes[1]
    assert by_name.id == "mine"
    assert await raw.hget("bull:parcels:mine", "data") == '{"text":"b"}'
    await assert_no_leaks(raw)


@pytest.mark.parametrize("delay", [timedelta(0), timedelta(days=1)])
async def test_a_failed_job_runs_again_where_the_row_asks_for_it(
    engine, jobs, relay_of, rows, raw, delay: timedelta
) -> None:
    await jobs.enqueue(letters, Letter(text="a"), job_id="mine", delay=delay)
    written = await raw.hgetall("bull:letters:mine")
    for key in ("wait", "delayed"):
        await raw.unlink(f"bull:letters:{key}")
    await raw.zadd("bull:letters:failed", {"mine": 1})
    for options in ({}, {"if_failed": "retry"}):
        async with engine.begin() as connection:
            outbox_jobs = Outbox(jobs).within(connection)
            await outbox_jobs.enqueue(
                letters, Letter(text="b"), job_id="mine", delay=delay, **options
            )
            await outbox_jobs.enqueue(letters, Letter(text="c"), job_id=f"new-{len(options)}")
        assert await relay_of().drain() == Relayed(jobs=2)
        assert await rows() == []
        assert await raw.zcard("bull:letters:failed") == 1 - len(options)
    assert await raw.lrange("bull:letters:wait", 0, -1) == ["mine", "new-1", "new-0"]
    assert (await raw.hgetall("bull:letters:mine"))["data"] == written["data"]
    async with engine.begin() as connection:
        await (
            Outbox(jobs)
            .within(connection)
            .enqueue(letters, Letter(text="c"), job_id="from-a-row", if_failed="retry")
        )
    await relay_of().drain()
    stored = await raw.hget("bull:letters:from-a-row", "opts")
    assert "failed" not in stored.casefold(), "it is the row's, and not the job's"


async def test_rolled_back_is_never_enqueued(engine, jobs, relay_of, rows, raw) -> None:
    async with engine.connect() as connection:
        await Outbox(jobs).within(connection).enqueue(letters, Letter(text="a"))
        await connection.rollback()
    async with AsyncSession(engine) as session:
        await Outbox(jobs).within(session).enqueue(letters, Letter(text="a"))
        await session.rollback()
    assert await relay_of().drain() == Relayed()
    assert await rows() == []
    assert await raw.keys("bull:*") == []


async def test_code_that_takes_a_job_scheduler_need_not_know_that_it_is_in_a_transaction(
    engine, jobs, relay_of, rows, raw
) -> None:
    async def write_letters(jobs: JobScheduler) -> list[str]:
        first = await jobs.enqueue(letters, Letter(text="a"), priority=2)
        others = await jobs.enqueue_many("letters", [{"text": "b"}, {"text": "c"}])
        return [first.id, *(each.id for each in others)]

    async with engine.connect() as connection:
        await write_letters(Outbox(jobs).within(connection))
        await connection.rollback()
    assert await rows() == []
    async with engine.begin() as connection:
        ids = await write_letters(Outbox(jobs).within(connection))
    assert await relay_of().drain() == Relayed(jobs=3)
    assert sorted(ids) == sorted([*await raw.lrange("bull:letters:wait", 0, -1), ids[0]])
    recorded = testing.RecordingJobScheduler(letters)
    await write_letters(recorded)
    assert [job.payload.text for job in recorded.jobs] == ["a", "b", "c"]


async def test_a_schedule_is_not_made_in_a_transaction(engine, jobs, raw) -> None:
    async with engine.begin() as connection:
        within = Outbox(jobs).within(connection)
        with pytest.raises(
            JobRefused, match="schedule 'weekly' cannot be made or ended in a transaction"
        ):
            await within.schedule(letters, Letter(text="a"), Every(timedelta(days=7)), id="weekly")
        with pytest.raises(JobRefused, match="'weekly'"):
            await within.unschedule(letters, "weekly")
    assert await raw.keys("bull:*") == []


async def test_refuses_what_the_producer_refuses_and_writes_nothing(engine, jobs, rows) -> None:
    refusals: list[tuple[Any, Any, dict[str, Any], type[Exception]]] = [
        ("leters", {"text": "a"}, {}, UnknownQueue),
        (Queue("letters", Letter), Letter(text="a"), {}, JobRefused),
        ("letters", {"txet": "a"}, {}, PayloadRefused),
        ("letters", {"text": "x" * 1000}, {}, JobRefused),
        ("letters", {"text": "a"}, {"job_id": "42"}, JobRefused),
        ("letters", {"text": "a"}, {"priority": -1}, JobRefused),
        ("letters", {"text": "a"}, {"delay": 30}, JobRefused),
        ("letters", {"text": "a"}, {"retries": 3}, JobRefused),
    ]
    for queue, payload, options, refusal in refusals:
        with pytest.raises(refusal) as by_producer:
            await jobs.enqueue(queue, payload, **options)
        async with engine.begin() as connection:
            with pytest.raises(refusal) as by_outbox:
                await Outbox(jobs).within(connection).enqueue(queue, payload, **options)
        assert str(by_outbox.value) == str(by_producer.value)
    async with engine.begin() as connection:
        with pytest.raises(JobRefused, match="job_id names one job"):
            await Outbox(jobs).within(connection).enqueue_many(letters, [], job_id="mine")
        with pytest.raises(PayloadRefused):
            await Outbox(jobs).within(connection).enqueue_many("letters", [{"text": "a"}, {}])
    assert await rows() == []


async def test_a_scheduler_that_writes_to_no_store_has_no_outbox(engine, jobs) -> None:
    async with engine.begin() as connection:
        with pytest.raises(TypeError, match="_Transaction writes to no store"):
            Outbox(Outbox(jobs).within(connection))


async def test_what_a_recording_scheduler_enqueues_in_a_transaction_is_recorded_and_written(
    engine, jobs, relay_of, raw
) -> None:
    recorded = testing.RecordingJobScheduler(letters)
    async with engine.begin() as connection:
        own = Outbox(recorded).within(connection)
        await own.enqueue(
            "letters", {"text": "a"}, job_id="mine", delay=timedelta(hours=1), priority=2
        )
        assert recorded.assert_enqueued(letters, {"text": "a"}).id == "mine"
        with pytest.raises(UnknownQueue):
            await own.enqueue("leters", {"text": "a"})
    assert await relay_of().drain() == Relayed(jobs=1)
    await jobs.enqueue(
        letters, Letter(text="a"), job_id="theirs", delay=timedelta(hours=1), priority=2
    )
    as_recorded, as_produced = [
        await raw.hgetall(f"bull:letters:{name}") for name in ("mine", "theirs")
    ]
    assert (as_recorded["data"], as_recorded["priority"]) == (
        as_produced["data"],
        as_produced["priority"],
    )


async def test_a_job_is_relayed_once_however_often_its_row_is_found_again(
    engine, jobs, relay_of, rows, raw, monkeypatch
) -> None:
    """The relay dies, or loses the database, after the store has the job and before the row is
    deleted.
    """
    async with engine.begin() as connection:
        named = (
            await Outbox(jobs).within(connection).enqueue(letters, Letter(text="a"), job_id="mine")
        )
        numbered = await Outbox(jobs).within(connection).enqueue(letters, Letter(text="b"))

    class Killed(BaseException):
        pass

    add = QueueStore.add

    async def add_and_die(self: QueueStore, batch: Any) -> list[bool]:
        await add(self, batch)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(QueueStore, "add", add_and_die)
        for _ in range(2):
            with pytest.raises(Killed):
                await relay_of().drain()
    assert len(await rows()) == 2
    assert await relay_of().drain() == Relayed(jobs=2)
    assert await rows() == []
    assert await raw.lrange("bull:letters:wait", 0, -1) == [numbered.id, named.id]
    events = [event["event"] for _, event in await raw.xrange("bull:letters:events")]
    assert events.count("added") == 2
    assert "duplicated" not in events


async def test_ten_thousand_rows_are_relayed_in_batches(
    engine, jobs, relay_of, rows, raw, assert_no_leaks
) -> None:
    count = 10_000
    began = time.perf_counter()
    async with engine.begin() as connection:
        many = [Letter(text=str(number)) for number in range(count)]
        await Outbox(jobs).within(connection).enqueue_many(letters, many)
    written = time.perf_counter() - began

    calls = 0
    add = QueueStore.add

    class Counting(QueueStore):
        async def add(self, batch: Any) -> list[bool]:
            nonlocal calls
            calls += 1
            return await add(self, batch)

    relay = relay_of()
    relay._stores["letters"] = Counting(relay._link, "bull", "letters")
    began = time.perf_counter()
    assert await relay.drain() == Relayed(jobs=count)
    seconds = time.perf_counter() - began
    print(
        f"{engine.dialect.name}: 10,000 rows written at {count / written:,.0f} rows/s, "
        f"relayed in {calls} batches at {count / seconds:,.0f} rows/s"
    )
    assert calls == count / MAX_BATCH
    assert await rows() == []
    texts = [
        await raw.hget(f"bull:letters:{job}", "data")
        for job in await raw.lrange("bull:letters:wait", -3, -1)
    ]
    assert texts == ['{"text":"2"}', '{"text":"1"}', '{"text":"0"}'], (
        "in the order of their writing"
    )
    assert await raw.llen("bull:letters:wait") == count
    await assert_no_leaks(raw)


async def test_large_rows_are_relayed_in_parts_of_about_one_mib(
    engine, store_url, relay_of, raw
) -> None:
    relay, catalog = relay_of(), catalog_of(letters, parcels)
    scheduler = RedisJobScheduler(
        catalog, Plugins.load([]).job_hooks, url=store_url, prefix="bull", max_payload_bytes=2**20
    )
    entries = [
        corral.Entry(Letter(text="x" * 20_000), job_id=f"letter-{number}") for number in range(100)
    ]
    async with engine.begin() as connection:
        await Outbox(scheduler).within(connection).enqueue_many(letters, [entries[0]], lifo=True)
    assert await relay.drain() == Relayed(jobs=1)  # the store knows the script from now on

    async def scripts() -> int:
        return int((await raw.info("commandstats"))["cmdstat_evalsha"]["calls"])

    before = await scripts()
    async with engine.begin() as connection:
        made = await Outbox(scheduler).within(connection).enqueue_many(letters, entries)
    assert [each.id for each in made] == [f"letter-{number}" for number in range(100)]
    assert await relay.drain() == Relayed(jobs=100)
    assert await scripts() - before == 2
    assert await raw.lrange("bull:letters:wait", 0, -1) == [
        f"letter-{number}" for number in range(99, -1, -1)
    ]


async def test_a_delay_counts_from_the_row(engine, jobs, relay_of, raw) -> None:
    async with engine.begin() as connection:
        half = (
            await Outbox(jobs)
            .within(connection)
            .enqueue(letters, Letter(text="a"), delay=timedelta(minutes=10))
        )
        over = (
            await Outbox(jobs)
            .within(connection)
            .enqueue(letters, Letter(text="b"), delay=timedelta(minutes=1))
        )
        five_minutes = 300_000
        await connection.execute(
            update(outbox).values(created_ms=outbox.c.created_ms - five_minutes)
        )
    await relay_of().drain()
    assert await raw.lrange("bull:letters:wait", 0, -1) == [over.id]
    (job, score), *_ = await raw.zrange("bull:letters:delayed", 0, -1, withscores=True)
    job_hash = await raw.hgetall(f"bull:letters:{half.id}")
    assert job == half.id
    left = int(job_hash["delay"])
    print(f"{engine.dialect.name}: 10 minutes, relayed 5 minutes later: {left} ms are left")
    assert 290_000 < left <= five_minutes
    assert f'"delay":{left}' in job_hash["opts"]
    assert int(score) // 4096 == int(job_hash["timestamp"]) + left


async def test_a_row_whose_queue_is_gone_is_logged_once_and_stops_no_other(
    engine, jobs, relay_of, rows, raw
) -> None:
    async with engine.begin() as connection:
        for text in "abc":
            await Outbox(jobs).within(connection).enqueue(parcels, Letter(text=text))
        await Outbox(jobs).within(connection).enqueue(letters, Letter(text="d"))
    without = relay_of(letters)
    with capture_logs() as logs:
        assert await without.drain() == Relayed(jobs=1, set_aside=3)
        assert await without.drain() == Relayed()
    assert [(entry["rows"], entry["error"], entry["hint"]) for entry in logs] == [
        (3, "no queue is named 'parcels'", "the queues are: letters")
    ]
    assert [row.error for row in await rows()] == ["no queue is named 'parcels'"] * 3
    assert await raw.exists("bull:parcels:meta") == 0

    assert await relay_of().drain() == Relayed(jobs=3), "a relay that knows the queue takes them"
    assert await rows() == []


async def test_a_job_that_the_store_refuses_is_set_aside_and_the_others_go_on(
    engine, jobs, relay_of, rows, raw
) -> None:
    async with engine.begin() as connection:
        ids = [
            (await Outbox(jobs).within(connection).enqueue(letters, Letter(text=text))).id
            for text in "abc"
        ]
        odd = (
            await Outbox(jobs)
            .within(connection)
            .enqueue(letters, Letter(text="d"), delay=timedelta(hours=1))
        )
        await connection.execute(
            update(outbox).where(outbox.c.job_id == odd.id).values(opts="no JSON")
        )
        await Outbox(jobs).within(connection).enqueue(parcels, Letter(text="e"))
    await raw.set("bull:parcels:meta", "of somebody else")
    with capture_logs() as logs:
        assert await relay_of().drain() == Relayed(jobs=3, set_aside=2)
        assert await relay_of().drain() == Relayed()
    assert len(logs) == 2
    assert sorted(await raw.lrange("bull:letters:wait", 0, -1)) == sorted(ids)
    first, second = await rows()
    assert (first.job_id, first.refused, second.refused) == (odd.id, True, True)
    assert first.error.startswith("ValueError: ")
    assert second.error.endswith(" has a damaged key: bull:parcels:meta is a string, not a hash")

    await raw.delete("bull:parcels:meta")
    async with engine.begin() as connection:
        await connection.execute(
            update(outbox).where(outbox.c.queue == "parcels").values(refused=False, error=None)
        )
    assert await relay_of().drain() == Relayed(jobs=1), "a person has put it right"


async def test_rows_of_another_prefix_are_left_alone(engine, jobs, relay_of, rows) -> None:
    async with engine.begin() as connection:
        await Outbox(jobs).within(connection).enqueue(letters, Letter(text="a"))
        await connection.execute(update(outbox).values(prefix="other"))
    assert await relay_of().drain() == Relayed()
    assert len(await rows()) == 1


async def test_an_outage_is_logged_once_and_waited_out(
    engine, jobs, relay_of, rows, raw, wait_until, monkeypatch
) -> None:
    nowhere = relay_of(url="unix:///nowhere/store.sock")
    async with engine.begin() as connection:
        await Outbox(jobs).within(connection).enqueue(letters, Letter(text="a"))
    with pytest.raises(StoreUnavailable):
        await nowhere.drain()
    assert len(await rows()) == 1

    relay, tries = relay_of(), 0
    batch = relay._batch

    async def failing() -> Relayed:
        nonlocal tries
        tries += 1
        if tries <= 3:
            raise StoreUnavailable("the store is unavailable")
        return await batch()

    monkeypatch.setattr(relay, "_batch", failing)
    with capture_logs() as logs:
        running = asyncio.create_task(relay.run())
        try:
            await wait_until(lambda: raw_has(raw), "the job is in the store")
        finally:
            relay.stop()
            await asyncio.wait_for(running, 5)
    assert [entry["event"] for entry in logs] == [
        "relaying the outbox failed, and is tried again",
        "relaying the outbox works again",
    ]


async def raw_has(raw: redis.asyncio.Redis) -> bool:
    return await raw.llen("bull:letters:wait") == 1


@pytest.mark.parametrize("without", ["-@hash", "-xadd", "-@scripting"])
async def test_a_store_whose_user_lacks_a_right_is_waited_for_and_no_row_is_set_aside(
    engine, jobs, relay_of, rows, raw, store_url, wait_until, without
) -> None:
    await raw.execute_command(
        "ACL", "SETUSER", "relay", "reset", "on", ">secret", "~*", "+@all", without
    )
    relay = relay_of(url=store_url.replace("unix://", "unix://relay:secret@"))
    try:
        async with engine.begin() as connection:
            await Outbox(jobs).within(connection).enqueue(letters, Letter(text="a"))
        with pytest.raises(StoreUnavailable, match="does not let its user do this") as raised:
            await relay.drain()
        assert raised.value.hint
        assert [(row.refused, row.error) for row in await rows()] == [(False, None)]
        with capture_logs() as logs:
            running = asyncio.create_task(relay.run())
            try:
                await wait_until(lambda: logs, "it says so")
                await raw.execute_command("ACL", "SETUSER", "relay", "+@all")
                await wait_until(lambda: raw_has(raw), "the job is in the store")
            finally:
                relay.stop()
                await asyncio.wait_for(running, 5)
        assert [entry["event"] for entry in logs] == [
            "relaying the outbox failed, and is tried again",
            "relaying the outbox works again",
        ]
        assert "exc_info" not in logs[0]
    finally:
        await raw.execute_command("ACL", "DELUSER", "relay")


async def test_a_database_without_an_outbox_says_what_to_do(bare_engine, store_url) -> None:
    relay = OutboxRelay(bare_engine, catalog_of(letters), url=store_url, prefix="bull")
    with pytest.raises(ConfigurationError, match="lacks a table") as raised:
        await relay.drain()
    assert raised.value.hint == "corral db create"


async def test_a_row_that_was_written_by_hand_is_relayed_too(engine, relay_of, raw) -> None:
    """The table is a contract: a program without Corral may write into it."""
    row = {
        "prefix": "bull",
        "queue": "letters",
        "job_id": "by-hand",
        "name": "letters",
        "data": '{"text":"a"}',
    }
    rest = {
        "opts": "{}",
        "delay_ms": 0,
        "priority": 0,
        "lifo": False,
        "nonce": "",
        "created_ms": 0,
        "refused": False,
    }
    async with engine.begin() as connection:
        await connection.execute(insert(outbox).values({**row, **rest}))
    assert await relay_of().drain() == Relayed(jobs=1)
    assert await raw.lrange("bull:letters:wait", 0, -1) == ["by-hand"]
