"""Calls that write many jobs in parts, and the error of a call that stops half-way."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import redis

from chaos.proxy import Proxy, every_first_try
from corral import (
    Cron,
    Enqueued,
    EnqueueInterrupted,
    Entry,
    Every,
    JobOptions,
    JobScheduler,
    JobState,
    Payload,
    Queue,
    StoreUnavailable,
)
from corral.errors import JobRefused, PayloadRefused
from corral.store.queue_store import BATCH_BYTES, MAX_BATCH
from corral.store.scripts import script
from corral.testing import RecordingJobScheduler

pytestmark = pytest.mark.asyncio

HOUR = timedelta(hours=1)
WAIT = "bull:parcels:wait"
ADD = script("add").digest.encode()
KIB = 1024


class Parcel(Payload):
    text: str = ""
    number: int = 0


parcels = Queue("parcels", Parcel)


@pytest_asyncio.fixture
async def proxy(store_url: str) -> AsyncIterator[Proxy]:
    """A proxy to the store; at first it lets everything pass."""
    with tempfile.TemporaryDirectory(prefix="corral-bulks-") as folder:  # short enough for a socket
        async with Proxy(Path(folder) / "proxy", Path(store_url.removeprefix("unix://"))) as proxy:
            yield proxy


@pytest.fixture
def client(store_url: str) -> Iterator[redis.Redis]:
    """A blocking client, for what happens in the middle of a request."""
    with redis.Redis.from_url(store_url, decode_responses=True) as client:
        yield client
        client.config_set("maxmemory", 0)


@pytest_asyncio.fixture
async def jobs(workshop: Any, proxy: Proxy) -> JobScheduler:
    """A producer behind the proxy.

    The store knows the script: every request that has its digest is one of a part.
    """
    own = workshop.producer(parcels, url=proxy.url)
    await own.enqueue(parcels, Parcel())
    await workshop.raw.flushall()
    made: JobScheduler = own
    return made


def from_part(number: int, do: Callable[[], bool]) -> Callable[[bytes], bool]:
    """What `do` answers at the beginning of each part of a call from that one on, the first being
    1.
    """
    parts = itertools.count(1)
    return lambda request: ADD in request and next(parts) >= number and do()


def entries(count: int, text: str = "") -> list[Entry[Parcel]]:
    return [
        Entry(Parcel(text=text, number=number), job_id=f"parcel-{number}")
        for number in range(count)
    ]


def ids(first: int, last: int) -> tuple[str, ...]:
    return tuple(f"parcel-{number}" for number in range(first, last))


class TestParts:
    @pytest.mark.parametrize(
        ("sizes", "parts"),
        [
            ([0] * MAX_BATCH, 1),
            ([0] * (MAX_BATCH + 1), 2),
            ([BATCH_BYTES // 4 - KIB] * 4, 1),
            ([BATCH_BYTES // 4 + KIB] * 4, 2),
            ([0, 3 * BATCH_BYTES, 0], 3),
            ([20 * KIB] * 1000, 20),
        ],
        ids=["500 jobs", "501 jobs", "below 1 MiB", "above 1 MiB", "one huge payload", "20 MB"],
    )
    async def test_a_part_has_at_most_500_jobs_and_about_one_mib(
        self, workshop: Any, sizes: list[int], parts: int
    ) -> None:
        jobs = workshop.producer(parcels, max_payload_bytes=4 * BATCH_BYTES)
        await jobs.enqueue(parcels, Parcel())
        await workshop.raw.delete(WAIT)

        async def scripts() -> int:
            return int((await workshop.raw.info("commandstats"))["cmdstat_evalsha"]["calls"])

        before = await scripts()
        made = await jobs.enqueue_many(parcels, [{"text": "x" * size} for size in sizes])
        assert parts <= await scripts() - before <= parts + parts // 20
        assert await workshop.raw.lrange(WAIT, 0, -1) == [each.id for each in reversed(made)]
        assert [await workshop.raw.hstrlen(f"bull:parcels:{each.id}", "data") for each in made] == [
            size + len('{"text":"","number":0}') for size in sizes
        ]
        await workshop.raw.flushall()  # among them is one without a place

    async def test_calls_that_overlap_are_cut_too(self, workshop: Any) -> None:
        jobs = workshop.producer(parcels)
        largest = 0

        async def watch() -> None:
            nonlocal largest
            async with workshop.raw.monitor() as monitor:
                watching.set()
                async for command in monitor.listen():
                    if command["command"].startswith("EVALSHA"):
                        largest = max(largest, len(command["command"]))

        watching = asyncio.Event()
        watcher = asyncio.create_task(watch(), name="watch")
        await watching.wait()
        made = await asyncio.gather(
            *(jobs.enqueue(parcels, Parcel(text="x" * 200 * KIB)) for _ in range(20))
        )
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
        assert await workshop.raw.lrange(WAIT, 0, -1) == [each.id for each in reversed(made)]
        assert 200 * KIB < largest <= BATCH_BYTES + 64 * KIB

    async def test_a_call_beside_a_bulk_waits_for_a_part_of_it(self, workshop: Any) -> None:
        jobs = workshop.producer(parcels)
        bulk = asyncio.create_task(
            jobs.enqueue_many(parcels, [{"text": "x" * 20 * KIB}] * 1000), name="bulk"
        )
        one = await asyncio.create_task(jobs.enqueue(parcels, Parcel()), name="one")
        assert not bulk.done()
        await bulk
        assert await workshop.raw.lpos(WAIT, one.id) > 800
        assert await workshop.raw.llen(WAIT) == 1001

    async def test_a_scheduler_that_is_closed_meanwhile_writes_all_of_it_first(
        self, workshop: Any
    ) -> None:
        jobs = workshop.producer(parcels)
        bulks = [
            asyncio.create_task(jobs.enqueue_many(parcels, [{}] * 1200), name=name)
            for name in ("one", "two")
        ]
        await jobs.enqueue(parcels, Parcel())
        await jobs.close()
        assert [bulk.done() for bulk in bulks] == [True, True]
        assert await workshop.raw.llen(WAIT) == 2401
        names = [each["name"] for each in await workshop.raw.client_list()]
        assert len(names) == 1, "the test's own connection"

    async def test_two_bulks_of_the_same_ids_make_each_job_once(self, workshop: Any) -> None:
        first, second = workshop.producer(parcels), workshop.producer(parcels)
        calls = [
            producer.enqueue_many(parcels, entries(1200)) for producer in (first, first, second)
        ]
        results = await asyncio.gather(*calls)
        for made in zip(*results, strict=True):
            assert [each.created for each in made].count(True) == 1
        assert await workshop.raw.llen(WAIT) == 1200


class TestOrder:
    """Calls of one scheduler are written in the order in which they began.

    A long call is ordered part by part.
    """

    async def written(self, workshop: Any) -> list[str]:
        """The ids of the waiting jobs, the first to be written first."""
        waiting: list[str] = await workshop.raw.lrange(WAIT, 0, -1)
        return waiting[::-1]

    async def test_calls_that_begin_one_after_the_other_are_written_so(self, workshop: Any) -> None:
        jobs = workshop.producer(parcels)
        calls: list[Any] = []
        for number in range(30):
            ones = [Entry(Parcel(), job_id=f"call-{number}-{place}") for place in range(number % 7)]
            calls.append(
                jobs.enqueue_many(parcels, ones) if number % 2 else jobs.enqueue(parcels, Parcel())
            )
        made = await asyncio.gather(*calls)
        began = [each.id for call in made for each in (call if isinstance(call, list) else [call])]
        assert len(began) == 15 + sum(number % 7 for number in range(1, 30, 2))
        assert await self.written(workshop) == began

    async def test_calls_that_begin_beside_a_long_one_take_turns_with_its_parts(
        self, workshop: Any
    ) -> None:
        jobs = workshop.producer(parcels)
        await asyncio.gather(
            jobs.enqueue_many(parcels, entries(3 * MAX_BATCH)),
            jobs.enqueue(parcels, Parcel(), job_id="one"),
            jobs.enqueue_many(
                parcels, [Entry(Parcel(), job_id=f"other-{n}") for n in range(2 * MAX_BATCH)]
            ),
        )
        others = [f"other-{number}" for number in range(2 * MAX_BATCH)]
        assert await self.written(workshop) == [
            *ids(0, MAX_BATCH),
            "one",
            *others[:MAX_BATCH],
            *ids(MAX_BATCH, 2 * MAX_BATCH),
            *others[MAX_BATCH:],
            *ids(2 * MAX_BATCH, 3 * MAX_BATCH),
        ]

    async def test_a_crowd_is_written_in_its_order_though_two_writes_are_on_their_way(
        self, workshop: Any
    ) -> None:
        jobs = workshop.producer(parcels)
        began: list[str] = []

        async def caller(number: int) -> None:
            for turn in range(20):
                began.append(f"{number}-{turn}")
                await jobs.enqueue(parcels, Parcel(), job_id=f"job-{began[-1]}")

        await asyncio.gather(*(caller(number) for number in range(100)))
        assert await self.written(workshop) == [f"job-{each}" for each in began]

    async def test_a_part_whose_reply_was_lost_keeps_its_place(
        self, workshop: Any, jobs: JobScheduler, proxy: Proxy
    ) -> None:
        proxy.cut = every_first_try("add")
        calls = [
            jobs.enqueue_many(parcels, entries(1200)),
            jobs.enqueue(parcels, Parcel(), job_id="one"),
        ]
        await asyncio.gather(*calls)
        assert proxy.cuts >= 3
        written = await self.written(workshop)
        assert [each for each in written if each != "one"] == list(ids(0, 1200))
        assert written.index("one") == MAX_BATCH

    async def test_of_two_calls_that_take_turns_each_says_what_became_of_its_own_jobs(
        self, workshop: Any, jobs: JobScheduler, proxy: Proxy, client: redis.Redis
    ) -> None:
        def damage(request: bytes) -> bool:
            if b"parcel-500" in request and not client.exists("aside"):
                client.rename(WAIT, "aside")
                client.set(WAIT, "damaged")
            return False

        proxy.cut = damage
        others = [Entry(Parcel(), job_id=f"other-{number}") for number in range(1200)]
        one, other = await asyncio.gather(
            jobs.enqueue_many(parcels, entries(1200)),
            jobs.enqueue_many(parcels, others),
            return_exceptions=True,
        )
        assert isinstance(one, EnqueueInterrupted)
        assert isinstance(other, EnqueueInterrupted)
        assert (one.created, one.refused, one.unknown) == (ids(0, 500), ids(500, 1200), ())
        assert len(other.created) in {0, 500}, (
            "its first part may be on its way when the list is damaged"
        )
        assert (other.created + other.refused, other.unknown) == (
            tuple(each.job_id for each in others),
            (),
        )
        proxy.cut = lambda _: False
        client.rename("aside", WAIT)
        again = await jobs.enqueue_many(parcels, entries(1200))
        assert [each.created for each in again] == [False] * 500 + [True] * 700
        assert await self.written(workshop) == [*ids(0, 500), *other.created, *ids(500, 1200)], (
            "and nothing else"
        )


@pytest.mark.parametrize("recorded", [False, True], ids=["a store", "the recording double"])
class TestEntries:
    @pytest.fixture
    def scheduler(self, workshop: Any, recorded: bool) -> JobScheduler:
        made: JobScheduler = (
            RecordingJobScheduler(parcels) if recorded else workshop.producer(parcels)
        )
        return made

    async def test_an_entry_has_its_own_options_and_the_call_has_those_of_the_others(
        self, workshop: Any, scheduler: JobScheduler, recorded: bool
    ) -> None:
        made = await scheduler.enqueue_many(
            parcels,
            [
                Entry(Parcel(number=1), job_id="soon", delay=timedelta(0)),
                Entry(Parcel(number=2), job_id="urgent", delay=timedelta(0), priority=2),
                Entry(Parcel(number=3), job_id="first", delay=timedelta(0), lifo=True),
                Entry(Parcel(number=4), job_id="later", attempts=9),
                Parcel(number=5),
            ],
            delay=HOUR,
            attempts=5,
        )
        assert made[:4] == [
            Enqueued("soon", state=JobState.WAITING),
            Enqueued("urgent", state=JobState.PRIORITIZED),
            Enqueued("first", state=JobState.WAITING),
            Enqueued("later", state=JobState.DELAYED),
        ]
        assert (made[4].created, made[4].state) == (True, JobState.DELAYED)
        if isinstance(scheduler, RecordingJobScheduler):
            options = [job.options for job in scheduler.jobs]
            assert options == [
                JobOptions(attempts=5),
                JobOptions(attempts=5, priority=2),
                JobOptions(attempts=5, lifo=True),
                JobOptions(attempts=9, delay=HOUR),
                JobOptions(attempts=5, delay=HOUR),
            ]
        else:
            assert await workshop.raw.lrange(WAIT, 0, -1) == ["soon", "first"]
            assert [await workshop.state(parcels, each.id) for each in made] == [
                *("wait", "prioritized", "wait", "delayed", "delayed")
            ]

    async def test_an_id_that_comes_twice_makes_one_job_the_first(
        self, scheduler: JobScheduler, recorded: bool
    ) -> None:
        again = [Entry({"number": number}, job_id="same") for number in range(600)]
        made = await scheduler.enqueue_many("parcels", again)
        assert made == [Enqueued("same"), *[Enqueued("same", created=False)] * 599]

    async def test_what_is_refused_is_refused_before_anything_is_written(
        self, workshop: Any, scheduler: JobScheduler, recorded: bool
    ) -> None:
        right = Entry(Parcel(), job_id="right")
        with pytest.raises(JobRefused, match=r"job_id names one job"):
            await scheduler.enqueue_many(parcels, [right], job_id="all")
        with pytest.raises(JobRefused, match="a key of the queue itself"):
            await scheduler.enqueue_many(parcels, [right, Entry(Parcel(), job_id="wait")])
        with pytest.raises(JobRefused, match="priority -1"):
            await scheduler.enqueue_many(parcels, [right, Entry(Parcel(), priority=-1)])
        with pytest.raises(PayloadRefused, match="number"):
            await scheduler.enqueue_many(
                "parcels", [Entry({}, job_id="right"), Entry({"number": "many"})]
            )
        assert await scheduler.enqueue_many(parcels, []) == []
        if isinstance(scheduler, RecordingJobScheduler):
            assert scheduler.jobs == []
        assert await workshop.raw.dbsize() == 0


class TestInterrupted:
    async def test_a_store_that_fills_up_half_way(
        self, jobs: JobScheduler, proxy: Proxy, client: redis.Redis
    ) -> None:
        proxy.cut = from_part(2, lambda: not client.config_set("maxmemory", 1))
        with pytest.raises(
            EnqueueInterrupted, match="500 of 1200 jobs of queue 'parcels' are written"
        ) as stopped:
            await jobs.enqueue_many(parcels, entries(1200))
        error = stopped.value
        assert (error.created, error.existing, error.refused, error.unknown) == (
            ids(0, 500),
            (),
            ids(500, 1200),
            (),
        )
        assert error.ids == ids(0, 1200)
        assert (error.outcome, error.exit_code, error.job_id) == ("partial", 4, None)
        assert (
            client.llen(WAIT)
            == client.dbsize() - len(["wait", "events", "id", "marker", "meta"])
            == 500
        )

        proxy.cut = lambda _: False
        client.config_set("maxmemory", 0)
        again = await jobs.enqueue_many(parcels, entries(1200))
        assert [each.created for each in again] == [False] * 500 + [True] * 700
        assert client.lrange(WAIT, 0, -1) == list(reversed(ids(0, 1200)))

    async def test_replies_that_are_lost_for_good(
        self, jobs: JobScheduler, proxy: Proxy, client: redis.Redis
    ) -> None:
        await jobs.enqueue(parcels, Parcel(), job_id="parcel-7")
        proxy.cut = from_part(2, lambda: True)
        with pytest.raises(EnqueueInterrupted) as stopped:
            await jobs.enqueue_many(parcels, entries(1200))
        error = stopped.value
        assert (error.created, error.existing) == (
            tuple(each for each in ids(0, 500) if each != "parcel-7"),
            ids(7, 8),
        )
        assert (error.refused, error.unknown, error.outcome) == (
            ids(1000, 1200),
            ids(500, 1000),
            "partial",
        )
        assert client.llen(WAIT) == 1000

        proxy.cut = lambda _: False
        await jobs.enqueue_many(parcels, entries(1200))
        assert sorted(client.lrange(WAIT, 0, -1)) == sorted(ids(0, 1200))

    async def test_a_call_without_ids_is_repeated_with_those_of_the_error(
        self, jobs: JobScheduler, proxy: Proxy, client: redis.Redis
    ) -> None:
        payloads = [Parcel(number=number) for number in range(1200)]
        proxy.cut = from_part(2, lambda: True)
        with pytest.raises(EnqueueInterrupted) as stopped:
            await jobs.enqueue_many(parcels, payloads)
        proxy.cut = lambda _: False
        assert client.llen(WAIT) == 1000
        again = [
            Entry(payload, job_id=each)
            for payload, each in zip(payloads, stopped.value.ids, strict=True)
        ]
        made = await jobs.enqueue_many(parcels, again)
        assert [each.created for each in made] == [False] * 1000 + [True] * 200
        assert client.lrange(WAIT, 0, -1) == list(reversed(stopped.value.ids))

    @pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
    async def test_replies_that_are_lost_once(
        self, jobs: JobScheduler, proxy: Proxy, client: redis.Redis, named: bool
    ) -> None:
        """The same jobs are asked for again, which makes no second ones."""
        proxy.cut = every_first_try("add")
        payloads = entries(1200) if named else [Parcel(number=number) for number in range(1200)]
        made = await jobs.enqueue_many(parcels, payloads)
        assert proxy.cuts == 3
        assert [each.created for each in made] == [True] * 1200
        assert client.lrange(WAIT, 0, -1) == [each.id for each in reversed(made)]

    @pytest.mark.parametrize("size", [20 * KIB, 0], ids=["1 MB", "nothing"])
    async def test_a_reply_that_is_lost_late_is_asked_for_again_where_there_was_much_to_send(
        self,
        workshop: Any,
        proxy: Proxy,
        client: redis.Redis,
        monkeypatch: pytest.MonkeyPatch,
        size: int,
    ) -> None:
        """The first try takes longer than `GIVE_UP_SECONDS`: with 1 MB, bytes may have been moving
        all the time.
        """
        jobs = workshop.producer(parcels, url=proxy.url)
        with monkeypatch.context() as patient:
            patient.setattr(
                "corral.producer.REPLY_SECONDS", 20.0
            )  # of the connection, which this opens
            await jobs.enqueue(parcels, Parcel(), job_id="first")
        proxy.cut = from_part(1, iter([True, *[False] * 9]).__next__)
        proxy.late = lambda _: 1.1 * (not proxy.cuts)
        if size:
            made = await jobs.enqueue_many(parcels, entries(50, "x" * size))
            assert [each.created for each in made] == [True] * 50
        else:
            with pytest.raises(EnqueueInterrupted) as stopped:
                await jobs.enqueue_many(parcels, entries(50))
            assert stopped.value.unknown == ids(0, 50)
        assert (proxy.cuts, proxy.held) == (1, 1)
        assert client.lrange(WAIT, 0, -1) == [*reversed(ids(0, 50)), "first"]

    async def test_a_store_that_is_away(self, workshop: Any, tmp_path: Path) -> None:
        jobs = workshop.producer(parcels, url=f"unix://{tmp_path}/nobody.sock")
        with pytest.raises(EnqueueInterrupted) as stopped:
            await jobs.enqueue_many(parcels, entries(1200))
        error = stopped.value
        assert (error.created, error.existing, error.refused, error.unknown) == (
            (),
            (),
            ids(0, 1200),
            (),
        )
        assert error.outcome == "refused"

    async def test_a_key_that_is_damaged_half_way(
        self, jobs: JobScheduler, proxy: Proxy, client: redis.Redis
    ) -> None:
        def damage() -> bool:
            client.rename(WAIT, "aside")
            client.set(WAIT, "damaged")
            return False

        proxy.cut = from_part(2, damage)
        with pytest.raises(EnqueueInterrupted, match=f"{WAIT} is a string, not a list") as stopped:
            await jobs.enqueue_many(parcels, entries(1200))
        error = stopped.value
        assert (error.created, error.refused, error.outcome) == (
            ids(0, 500),
            ids(500, 1200),
            "partial",
        )
        client.rename("aside", WAIT)
        assert client.exists(*(f"bull:parcels:{each}" for each in ids(500, 1000))) == 0

    async def test_what_was_lost_and_is_refused_then_is_unknown(
        self, jobs: JobScheduler, proxy: Proxy, client: redis.Redis
    ) -> None:
        """`refused` says that certainly nothing was written: here the first try has written the
        job.
        """
        tries = iter([True, False])

        def forbid() -> bool:
            lost = next(tries, False)
            if not lost:
                client.acl_setuser("default", enabled=True, nopass=True, commands=["-evalsha"])
            return lost

        proxy.cut = from_part(1, forbid)
        try:
            with pytest.raises(StoreUnavailable) as failed:
                await jobs.enqueue(parcels, Parcel(), job_id="one")
        finally:
            client.execute_command("ACL", "SETUSER", "default", "+@all")
        assert (failed.value.outcome, failed.value.job_id) == ("unknown", "one")
        assert client.lrange(WAIT, 0, -1) == ["one"]

    async def test_what_was_lost_and_meets_damage_then_is_unknown(
        self, jobs: JobScheduler, proxy: Proxy, client: redis.Redis
    ) -> None:
        tries = iter([True, False])

        def damage() -> bool:
            lost = next(tries, False)
            if not lost:
                client.rename("bull:parcels:meta", "aside")
                client.set("bull:parcels:meta", "damaged")
            return lost

        proxy.cut = from_part(1, damage)
        with pytest.raises(StoreUnavailable, match="not a hash") as failed:
            await jobs.enqueue(parcels, Parcel(), job_id="one")
        assert failed.value.outcome == "unknown"
        client.rename("aside", "bull:parcels:meta")


class TestTakenBack:
    @pytest.mark.parametrize("key", ["events", "wait", "delayed", "prioritized", "id"])
    async def test_a_part_that_fails_leaves_nothing(
        self, workshop: Any, client: redis.Redis, key: str
    ) -> None:
        """Whatever it has written before: hashes, places in other containers, events."""
        jobs = workshop.producer(parcels)
        everywhere = [
            Entry(Parcel(), job_id="plain"),
            Entry(Parcel(), job_id="lifo", lifo=True),
            Entry(Parcel(), job_id="urgent", priority=1),
            Entry(Parcel(), job_id="later", delay=HOUR),
        ]
        before = [
            Entry(each.payload, job_id=f"before-{each.job_id}", lifo=each.lifo)
            for each in everywhere
        ]
        await jobs.enqueue_many(parcels, before)
        kept = (
            client.lrange(WAIT, 0, -1),
            client.xlen("bull:parcels:events"),
            client.get("bull:parcels:id"),
        )
        socket = workshop.url.removeprefix("unix://")
        write = {
            "events": "xadd",
            "wait": "lpush",
            "delayed": "zadd",
            "prioritized": "incr",
            "id": "incrby",
        }[key]
        commands = ["+@all", f"-{write}"]
        client.acl_setuser(
            "producer", enabled=True, nopass=True, keys=["*"], channels=["*"], commands=commands
        )
        own = workshop.producer(parcels, url=f"unix://producer:x@{socket}")
        try:
            with pytest.raises(EnqueueInterrupted, match="0 of 4 jobs") as failed:
                await own.enqueue_many(parcels, everywhere)
        finally:
            client.acl_deluser("producer")
        assert failed.value.outcome == "refused"
        assert "ACL failure" in str(failed.value)
        now = (
            client.lrange(WAIT, 0, -1),
            client.xlen("bull:parcels:events"),
            client.get("bull:parcels:id"),
        )
        assert now == kept
        assert client.exists(*(f"bull:parcels:{each.job_id}" for each in everywhere)) == 0

    async def test_a_schedule_is_changed_whole_or_not_at_all(
        self, workshop: Any, client: redis.Redis
    ) -> None:
        jobs = workshop.producer(parcels)

        def kept() -> list[Any]:
            job = client.zrange("bull:parcels:delayed", 0, -1)[0]
            names = "repeat", "delayed"
            places = [
                client.zrange(f"bull:parcels:{name}", 0, -1, withscores=True) for name in names
            ]
            return [
                *places,
                client.hgetall("bull:parcels:repeat:blue"),
                client.hgetall(f"bull:parcels:{job}"),
            ]

        await jobs.schedule(parcels, Parcel(), Cron("0 0 1 1 *"), id="blue")
        before = kept()
        for damaged, value in (("id", "many"), ("pc", "1.5"), ("events", "text")):
            key = f"bull:parcels:{damaged}"
            whole = client.exists(key) and client.rename(key, "aside")
            client.set(key, value)
            with pytest.raises(Exception, match=f"has a damaged key: {key} is"):
                await jobs.schedule(parcels, Parcel(number=1), Every(HOUR), id="blue")
            assert kept() == before
            if damaged == "events":
                with pytest.raises(Exception, match="wrong kind of value"):
                    await jobs.unschedule(parcels, "blue")
                assert kept() == before
            client.delete(key)
            if whole:
                client.rename("aside", key)
        client.hset("bull:parcels:meta", "concurrency", "many")
        await jobs.schedule(parcels, Parcel(number=1), Every(HOUR), id="blue")
        assert await jobs.unschedule(parcels, "blue")

    @pytest.mark.corral_untidy("active is damaged on purpose")
    async def test_a_job_is_added_where_nobody_can_tell_how_many_run(
        self, workshop: Any, client: redis.Redis
    ) -> None:
        client.hset("bull:parcels:meta", "concurrency", 3)
        client.set("bull:parcels:active", "damaged")
        made = await workshop.producer(parcels).enqueue(parcels, Parcel())
        assert made.created
        assert client.lrange(WAIT, 0, -1) == [made.id]
        assert client.zrange("bull:parcels:marker", 0, -1) == ["0"]


class TestCancelled:
    """The call ends at once, with the exception that cancelled it."""

    async def cancel(self, task: asyncio.Task[Any]) -> str:
        """Cancel a call; returns the note that its exception has."""
        assert task.cancel("enough")
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await asyncio.wait_for(task, 5)
        assert cancelled.value.args == ("enough",)
        (note,) = cancelled.value.__notes__
        return note

    async def test_while_it_is_sent(
        self, jobs: JobScheduler, proxy: Proxy, client: redis.Redis, wait_until: Any
    ) -> None:
        proxy.late = lambda _: 30
        call = asyncio.create_task(jobs.enqueue(parcels, Parcel(), job_id="one"), name="call")
        await wait_until(lambda: proxy.holds_back, "the store has written the job")
        assert await self.cancel(call) == "job one of queue 'parcels' may have been written"
        proxy.late = lambda _: 0
        proxy.let_arrive()
        assert await jobs.enqueue(parcels, Parcel(), job_id="two") == Enqueued("two")
        assert client.lrange(WAIT, 0, -1) == ["two", "one"]

    async def test_before_it_is_sent(
        self, jobs: JobScheduler, proxy: Proxy, client: redis.Redis, wait_until: Any
    ) -> None:
        """It is not sent then, and those beside it are."""
        proxy.late = lambda _: 30
        calls = [asyncio.create_task(jobs.enqueue(parcels, Parcel(), job_id="one"), name="one")]
        await wait_until(lambda: proxy.holds_back, "the store has written the first job")
        calls += [
            asyncio.create_task(jobs.enqueue(parcels, Parcel(), job_id=name), name=name)
            for name in ("two", "three")
        ]
        await asyncio.sleep(0)
        assert await self.cancel(calls[1]) == "job two of queue 'parcels' was not sent"
        proxy.late = lambda _: 0
        proxy.let_arrive()
        assert await asyncio.gather(calls[0], calls[2]) == [Enqueued("one"), Enqueued("three")]
        assert client.lrange(WAIT, 0, -1) == ["three", "one"]

    async def test_while_the_store_is_away(
        self, workshop: Any, client: redis.Redis, wait_until: Any
    ) -> None:
        """Its first try has reached nobody: the next one is made without it."""
        with tempfile.TemporaryDirectory(prefix="corral-bulks-") as folder:
            proxy = Proxy(Path(folder) / "proxy", Path(workshop.url.removeprefix("unix://")))
            jobs = workshop.producer(parcels, url=proxy.url)
            calls = [
                asyncio.create_task(jobs.enqueue(parcels, Parcel(), job_id=name), name=name)
                for name in ("one", "two")
            ]
            store = jobs._writer(parcels).store  # when its first try has failed, nobody tells
            tried = asyncio.Event()
            add = store.add

            async def tell(batch: Any, **how: Any) -> list[bool]:
                try:
                    written: list[bool] = await add(batch, **how)
                    return written
                finally:
                    tried.set()

            store.add = tell
            await asyncio.wait_for(tried.wait(), 5)
            async with proxy:
                assert await self.cancel(calls[0]) == "job one of queue 'parcels' was not sent"
                assert await calls[1] == Enqueued("two")
                assert client.lrange(WAIT, 0, -1) == ["two"]
                await jobs.close()

    async def test_a_bulk(
        self, jobs: JobScheduler, proxy: Proxy, client: redis.Redis, wait_until: Any
    ) -> None:
        """What of it was not sent is not sent any more."""
        parts = itertools.count(1)
        # a connection that was idle for a moment is asked for a PONG before a large request
        proxy.late = lambda reply: 30 if not reply.startswith(b"+PONG") and next(parts) == 2 else 0
        call = asyncio.create_task(jobs.enqueue_many(parcels, entries(1200)), name="call")
        await wait_until(lambda: proxy.holds_back, "the store has written the second part")
        note = await self.cancel(call)
        assert note == (
            "of 1200 jobs of queue 'parcels', 500 are written and 200 were not sent; these may be written: "
            + ", ".join(ids(500, 1000))
        )
        proxy.let_arrive()
        assert (await jobs.enqueue(parcels, Parcel(), job_id="next")).created
        assert client.lrange(WAIT, 0, -1) == ["next", *reversed(ids(0, 1000))]

    async def test_a_writer_that_had_not_begun(self, jobs: JobScheduler) -> None:
        await jobs.enqueue_many(parcels, [{}, {}])
        calls = [
            asyncio.create_task(jobs.enqueue(parcels, Parcel()), name=f"call-{number}")
            for number in range(40)
        ]
        await asyncio.sleep(0)
        writers = [task for task in asyncio.all_tasks() if task.get_name() == "corral-add-parcels"]
        assert len(writers) == 2, "the calls are many enough for two writes"
        for writer in writers:
            writer.cancel()
        results = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
        assert {getattr(each, "outcome", None) for each in results} == {"refused"}
        assert (await jobs.enqueue(parcels, Parcel())).created
        assert len(await jobs.enqueue_many(parcels, [{}] * 40)) == 40

    async def test_the_writer_itself(
        self, jobs: JobScheduler, proxy: Proxy, wait_until: Any
    ) -> None:
        """A program that cancels all other tasks: the calls get an error, and do not wait for ever."""
        await jobs.enqueue_many(parcels, [{}, {}])  # a call that nobody is beside has no writer
        proxy.late = lambda _: 30
        calls = [asyncio.create_task(jobs.enqueue(parcels, Parcel(), job_id="one"), name="one")]
        await wait_until(lambda: proxy.holds_back, "the store has written the first job")
        calls += [asyncio.create_task(jobs.enqueue(parcels, Parcel(), job_id="two"), name="two")]
        await asyncio.sleep(0)
        (writer,) = [
            task for task in asyncio.all_tasks() if task.get_name() == "corral-add-parcels"
        ]
        writer.cancel()
        results = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
        assert [getattr(each, "outcome", None) for each in results] == ["unknown", "refused"]
        proxy.late = lambda _: 0
        proxy.let_arrive()
        assert (await jobs.enqueue(parcels, Parcel(), job_id="three")).created
