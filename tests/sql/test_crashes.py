"""Processes killed at the worst moments, and relays beside each other: each job runs exactly once."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from types import MappingProxyType
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from corral import Job, JobOptions, Payload, Queue, Retention
from corral.catalog import Catalog, CatalogEntry
from corral.plugins import Plugins, Provider
from corral.producer import RedisJobScheduler
from corral.settings import WorkerSettings
from corral.sql import Outbox, OutboxRelay, Relayed
from corral.sql.tables import outbox
from corral.worker.worker import Worker

pytestmark = pytest.mark.asyncio

SCENE = """
import asyncio, os, signal, sys
from types import MappingProxyType
from corral import JobOptions, Payload, Queue, Retention, sql
from corral.catalog import Catalog, CatalogEntry
from corral.plugins import Plugins, Provider
from corral.producer import RedisJobScheduler
from corral.store.queue_store import QueueStore

class Letter(Payload):
    text: str

database, store, *moment = sys.argv[1:]
letters = Queue("letters", Letter)
catalog = Catalog(MappingProxyType({"letters": CatalogEntry(letters, Provider("acme", "1.0", "wheel"), "")}))
engine = sql.create_engine(database)
"""

ENQUEUE = f"""{SCENE}
async def main():
    jobs = RedisJobScheduler(catalog, Plugins.load([]).job_hooks, url=store, prefix="bull", max_payload_bytes=1000)
    async with engine.begin() as connection:
        job = await sql.Outbox(jobs).within(connection).enqueue(letters, Letter(text="a"))
        if moment == ["before"]:
            print("written", flush=True)
            sys.stdin.readline()
    print(job.id, flush=True)
    sys.stdin.readline()

asyncio.run(main())
"""

RELAY_AND_DIE = f"""{SCENE}
add = QueueStore.add

async def add_and_die(self, jobs):
    await add(self, jobs)
    os.kill(os.getpid(), signal.SIGKILL)

QueueStore.add = add_and_die
asyncio.run(sql.OutboxRelay(engine, catalog, url=store, prefix="bull").drain())
"""

RELAY = f"""{SCENE}
async def main():
    relay = sql.OutboxRelay(engine, catalog, url=store, prefix="bull")
    print("ready", flush=True)
    sys.stdin.readline()
    done = await relay.drain()
    print(done.jobs, flush=True)
    await relay.close()
    await engine.dispose()

asyncio.run(main())
"""


class Letter(Payload):
    text: str


def catalog_of(queue: Queue[Any]) -> Catalog:
    return Catalog(
        MappingProxyType({queue.name: CatalogEntry(queue, Provider("acme", "1.0", "wheel"), "")})
    )


class Post:
    """A queue `letters`, worked off by this process."""

    def __init__(self, url: str, engine: AsyncEngine, **options: Any) -> None:
        self.queue = Queue("letters", Letter, options=JobOptions(**options))
        self.ran: Counter[str] = Counter()
        self._engine = engine
        self._url = url
        plugins = Plugins.load([])
        self.jobs = RedisJobScheduler(
            catalog_of(self.queue),
            plugins.job_hooks,
            url=url,
            prefix="bull",
            max_payload_bytes=1000,
        )
        self._plugins = plugins

    async def _run(self, job: Job[Letter]) -> None:
        self.ran[job.payload.text] += 1

    def worker(self, *, burst: bool) -> Worker:
        return Worker(
            [self.queue.processed_by(self._run)],
            url=self._url,
            prefix="bull",
            settings=WorkerSettings(concurrency=50),
            plugins=self._plugins,
            jobs=self.jobs,
            burst=burst,
        )

    async def work_off(self) -> None:
        await asyncio.wait_for(self.worker(burst=True).run(), 20)

    async def drain(self) -> Relayed:
        relay = OutboxRelay(self._engine, catalog_of(self.queue), url=self._url, prefix="bull")
        try:
            return await relay.drain()
        finally:
            await relay.close()

    async def rows(self) -> int:
        async with self._engine.connect() as connection:
            return (await connection.execute(select(func.count()).select_from(outbox))).scalar_one()


@pytest.fixture
def url(engine: AsyncEngine) -> str:
    """The database, for another process."""
    return engine.url.render_as_string(hide_password=False)


async def test_killed_before_the_commit_nothing_is_enqueued(engine, url, store_url, spawn) -> None:
    process = spawn(ENQUEUE, url, store_url, "before")
    assert process.line() == "written"
    process.end(signal.SIGKILL)
    post = Post(store_url, engine)
    assert await post.drain() == Relayed()
    await post.work_off()
    assert post.ran == Counter()


async def test_killed_between_commit_and_relay_the_job_runs_once(
    engine, url, store_url, spawn
) -> None:
    process = spawn(ENQUEUE, url, store_url, "after")
    assert process.line()
    process.end(signal.SIGKILL)
    post = Post(store_url, engine)
    assert await post.drain() == Relayed(jobs=1)
    await post.work_off()
    assert await post.drain() == Relayed()
    assert post.ran == Counter(a=1)


@pytest.mark.parametrize("ran_before", [False, True], ids=["it waits", "it has run"])
async def test_killed_between_relay_and_delete_the_job_runs_once(
    engine, url, store_url, spawn, raw, assert_no_leaks, ran_before
) -> None:
    post = Post(store_url, engine)
    async with engine.begin() as connection:
        await Outbox(post.jobs).within(connection).enqueue(post.queue, Letter(text="a"))
        await (
            Outbox(post.jobs)
            .within(connection)
            .enqueue(post.queue, Letter(text="b"), job_id="mine")
        )
    assert spawn(RELAY_AND_DIE, url, store_url).end() == -signal.SIGKILL
    assert (await post.rows(), await raw.llen("bull:letters:wait")) == (2, 2), (
        "killed exactly there"
    )
    if ran_before:
        await post.work_off()
    assert await post.drain() == Relayed(jobs=2)
    assert await post.rows() == 0
    await post.work_off()
    assert post.ran == Counter(a=1, b=1)
    events = [event["event"] for _, event in await raw.xrange("bull:letters:events")]
    print(
        f"{engine.dialect.name}: killed between relay and delete: {events.count('added')} added for 2 rows"
    )
    assert events.count("added") == 2
    await assert_no_leaks(raw)


async def test_two_relays_at_once_lose_nothing_and_double_nothing(
    engine, url, store_url, spawn, raw, wait_until, assert_no_leaks
) -> None:
    """The store forgets each job as it completes, so that a row that is relayed twice would run
    twice.
    """
    count = 5_000
    post = Post(store_url, engine, keep_completed=Retention(count=0))
    async with engine.begin() as connection:
        await (
            Outbox(post.jobs)
            .within(connection)
            .enqueue_many(post.queue, [Letter(text=str(n)) for n in range(count)])
        )
    relays = [spawn(RELAY, url, store_url) for _ in range(2)]
    for relay in relays:
        assert relay.line() == "ready"
    worker = post.worker(burst=False)
    working = asyncio.create_task(worker.run())
    try:
        for relay in relays:
            relay._process.stdin.write("go\n")
            relay._process.stdin.flush()
        shares = [int(await asyncio.to_thread(relay.line)) for relay in relays]
        await wait_until(lambda: post.ran.total() >= count, "every job has run")
    finally:
        worker.stop()
        await asyncio.wait_for(working, 20)
    print(f"{engine.dialect.name}: two relays carried {shares[0]} + {shares[1]} of {count} rows")
    assert sum(shares) == count
    assert await post.rows() == 0
    assert set(post.ran.values()) == {1}
    assert len(post.ran) == count
    await assert_no_leaks(raw)
