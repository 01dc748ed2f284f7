"""While a queue is paused, jobs that are to wait enter the list that the oldest BullMQ beside us
knows (trap T1).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio

from corral import Every, JobOptions, Queue
from corral.inspector import JobInspector
from corral.outcome import Completed, Failed, HandedBack, Outcome, QueueLimited, Retried
from corral.store.codec import Ending, FetchedJob, NewJob
from corral.store.connection import Link
from corral.store.queue_store import QueueStore
from corral.store.schedules import NewSchedule, Schedules

pytestmark = pytest.mark.asyncio

B, PARENTS = "bull:letters:", "bull:parents:"
FIVE, SIX = "bullmq:5.81.5", "bullmq:6.7.0"


@dataclass
class Site:
    """A queue by hand: what waits is pushed by one call after another."""

    store: QueueStore
    raw: redis.asyncio.Redis
    inspector: JobInspector
    seq: int = 0

    async def add(
        self, job_id: str = "job", opts: Mapping[str, Any] | None = None, **how: Any
    ) -> None:
        opts = {**(opts or {}), "attempts": 3}
        await self.store.add([NewJob(job_id, "letters", b"{}", json.dumps(opts).encode(), **how)])

    async def fetch(self, want: int = 1, worker: str = "hand") -> list[FetchedJob]:
        self.seq += 1
        return list((await self.store.advance(worker, self.seq, [], want)).jobs)

    async def end(self, job: FetchedJob, outcome: Outcome) -> None:
        self.seq += 1
        assert (await self.store.advance("hand", self.seq, [Ending(job, outcome)], 0)).codes == [0]

    async def failed(self, job_id: str = "job") -> None:
        await self.add(job_id)
        await self.end((await self.fetch())[0], Failed("no"))

    async def paused(self, version: str | None, aside: tuple[str, ...], base: str = B) -> None:
        """As another client has left it."""
        await self.raw.hset(f"{base}meta", "paused", 1)
        if version:
            await self.raw.hset(f"{base}meta", "version", version)
        for job in aside:
            await self.raw.hset(f"{base}{job}", mapping={"name": "x", "data": "{}"})
            await self.raw.lpush(f"{base}paused", job)

    async def lists(self, base: str = B) -> dict[str, list[str]]:
        return {name: await self.raw.lrange(f"{base}{name}", 0, -1) for name in ("wait", "paused")}


@pytest_asyncio.fixture
async def site(
    store_url: str, raw: redis.asyncio.Redis, inspect: Callable[..., JobInspector]
) -> AsyncIterator[Site]:
    store = QueueStore(Link(store_url), "bull", "letters")
    yield Site(store, raw, inspect())
    await store.close()


Step = Callable[[Site], Awaitable[Any]]
PUSHES: dict[str, tuple[Callable[[Site], Awaitable[Step]], str, str]] = {}
"""By what pushes: what is done before the pause, and returns the push; the id that waits; at which
end.
"""


def push(
    waits: str = "job", side: str = "left"
) -> Callable[[Callable[[Site], Awaitable[Step]]], None]:
    def register(prepare: Callable[[Site], Awaitable[Step]]) -> None:
        PUSHES[prepare.__name__.replace("_", " ")] = (prepare, waits, side)

    return register


@push()
async def add(site: Site) -> Step:
    return lambda at: at.add()


@push(side="right")
async def add_lifo(site: Site) -> Step:
    return lambda at: at.add(lifo=True)


@push()
async def promote_what_is_due(site: Site) -> Step:
    await site.add(delay_ms=60_000)
    site.store.clock.offset_ms = 60_001
    return lambda at: at.fetch()


@push()
async def promote_one(site: Site) -> Step:
    await site.add(delay_ms=60_000)
    return lambda at: at.inspector.promote("letters", "job")


@push()
async def promote_all(site: Site) -> Step:
    await site.add(delay_ms=60_000)
    return lambda at: at.inspector.promote_all("letters")


@push()
async def retry_one(site: Site) -> Step:
    await site.failed()
    return lambda at: at.inspector.retry("letters", "job")


@push()
async def retry_all_failed(site: Site) -> Step:
    await site.failed()
    return lambda at: at.inspector.retry_all_failed("letters")


@push()
async def try_again_without_delay(site: Site) -> Step:
    await site.add()
    (job,) = await site.fetch()
    return lambda at: at.end(job, Retried("no", 0))


@push(side="right")
async def hand_back(site: Site) -> Step:
    await site.add()
    (job,) = await site.fetch()
    return lambda at: at.end(job, HandedBack())


@push(side="right")
async def hand_back_rate_limited(site: Site) -> Step:
    await site.add()
    (job,) = await site.fetch()
    return lambda at: at.end(job, QueueLimited(1000))


@push(side="right")
async def recover_a_stalled_job(site: Site) -> Step:
    await site.add()
    await site.fetch()
    await site.raw.delete(f"{B}job:lock")
    await site.raw.sadd(f"{B}stalled", "job")
    return lambda at: at.store.check_stalled(60_000, 1)


@push(side="right")
async def release_a_dead_process(site: Site) -> Step:
    await site.add()
    await site.fetch()
    return lambda at: at.store.release("hand", 1)


@push("repeat:daily:{due}")
async def make_an_iteration(site: Site) -> Step:
    new = NewSchedule("daily", "letters", b"{}", JobOptions(), Every(timedelta(days=1)))
    return lambda at: Schedules(at.store).ensure(new)


@push("kept-back")
async def make_what_a_deduplication_id_kept_back(site: Site) -> Step:
    await site.add(opts={"de": {"id": "one", "keepLastIfActive": True}})
    await site.raw.hset(f"{B}job", "deid", "one")
    await site.raw.set(f"{B}de:one", "job")
    (job,) = await site.fetch()
    kept = {"name": "letters", "data": "{}", "opts": '{"de":{"id":"one"}}', "jid": "kept-back"}
    await site.raw.hset(f"{B}dn:one", mapping=kept)
    return lambda at: at.end(job, Completed())


@push()
async def return_from_quarantine(site: Site) -> Step:
    entry = {
        "at": 1000,
        "from": "wait",
        "reason": "odd",
        "key": "corral:bull:letters:quarantine:job",
    }
    await site.raw.hset("corral:bull:letters:quarantine", "job", json.dumps(entry))
    await site.raw.hset(entry["key"], mapping={"name": "letters", "data": "{}"})
    return lambda at: at.inspector.return_quarantined("letters", ["job"])


FIRST_WAY = pytest.mark.parametrize(
    ("version", "aside", "enters"),
    [
        pytest.param(FIVE, (), "paused", id="paused by 5, empty"),
        pytest.param(FIVE, ("old", "older"), "paused", id="paused by 5, with jobs"),
        pytest.param(SIX, ("old", "older"), "paused", id="6 came last, and 5 has put jobs aside"),
        pytest.param(
            None, ("old", "older"), "paused", id="nobody says who, and 5 has put jobs aside"
        ),
        pytest.param(SIX, (), "wait", id="paused by 6"),
        pytest.param(None, (), "wait", id="paused by nobody knows whom"),
        pytest.param("bullmq:50.0.0", (), "wait", id="a version that begins as 5 does"),
    ],
)


@pytest.mark.parametrize("kind", PUSHES)
@FIRST_WAY
async def test_what_is_to_wait_enters_that_list_at_its_end(
    site: Site, kind: str, version: str | None, aside: tuple[str, ...], enters: str
) -> None:
    prepare, waits, side = PUSHES[kind]
    pushing = await prepare(site)
    await site.paused(version, aside)
    await pushing(site)
    held = list(reversed(aside))
    if "{due}" in waits:
        (due,) = [
            int(tick) for _, tick in await site.raw.zrange(f"{B}repeat", 0, -1, withscores=True)
        ]
        waits = waits.format(due=due)
    both = [waits, *held] if side == "left" else [*held, waits]
    assert await site.lists() == {"wait": [], "paused": held, enters: both}
    assert await site.fetch(10, "another") == [], "the queue is paused"
    assert await site.lists() == {"wait": [], "paused": held, enters: both}


@FIRST_WAY
async def test_a_parent_enters_the_list_of_its_own_queue(
    site: Site, version: str | None, aside: tuple[str, ...], enters: str
) -> None:
    await site.add("child")
    await site.raw.hset(f"{PARENTS}parent", mapping={"name": "p", "data": "{}", "opts": "{}"})
    await site.raw.zadd(f"{PARENTS}waiting-children", {"parent": 1})
    await site.raw.sadd(f"{PARENTS}parent:dependencies", f"{B}child")
    where = json.dumps({"id": "parent", "queueKey": "bull:parents"})
    await site.raw.hset(f"{B}child", mapping={"parentKey": f"{PARENTS}parent", "parent": where})
    await site.paused(version, aside, PARENTS)
    (job,) = await site.fetch()
    await site.end(job, Completed())
    held = list(reversed(aside))
    assert await site.lists(PARENTS) == {"wait": [], "paused": held, enters: [*held, "parent"]}
    assert await site.lists() == {"wait": [], "paused": []}


async def test_priorities_stay_where_they_are(site: Site) -> None:
    await site.paused(FIVE, ())
    await site.add(priority=2)
    assert await site.raw.zrange(f"{B}prioritized", 0, -1) == ["job"]
    assert await site.lists() == {"wait": [], "paused": []}


async def test_many_at_once_keep_their_order(site: Site) -> None:
    await site.paused(FIVE, ("old",))
    await site.store.add(
        [NewJob(each, "letters", b"{}", b"{}", lifo=each == "c") for each in "abcd"]
    )
    assert (await site.lists())["paused"] == ["d", "b", "a", "old", "c"]


async def test_what_was_left_in_wait_goes_along_with_the_first_that_is_put_aside(
    site: Site,
) -> None:
    """Paused by 6, then 5 connects: its `resume` would overwrite `wait` as soon as anything is in
    `paused`.
    """
    for job in ("one", "two"):
        await site.add(job)
    await site.paused(FIVE, ())
    await site.add("three")
    assert await site.lists() == {"wait": [], "paused": ["three", "two", "one"]}


@pytest.mark.parametrize("version", [FIVE, SIX])
async def test_a_queue_that_is_not_paused_has_nothing_to_do_with_it(
    site: Site, version: str
) -> None:
    await site.paused(version, ("left-over",))
    await site.raw.hdel(f"{B}meta", "paused")
    await site.add()
    assert await site.lists() == {"wait": ["job"], "paused": ["left-over"]}


@pytest.mark.parametrize("command", ["set", "hset", "zadd", "sadd"])
async def test_a_key_of_another_type_is_no_list(site: Site, command: str) -> None:
    value = {"set": ("x",), "hset": ("f", "v"), "zadd": ({"x": 1},), "sadd": ("x",)}[command]
    await getattr(site.raw, command)(f"{B}paused", *value)
    await site.raw.hset(f"{B}meta", mapping={"paused": 1, "version": FIVE})
    await site.add()
    assert await site.raw.lrange(f"{B}wait", 0, -1) == ["job"]
    assert await site.inspector.pause("letters") is False
    await site.store.mend()
    await site.add("next")
    assert await site.lists() == {"wait": [], "paused": ["next", "job"]}, "it was mended"


class TestPause:
    """Whoever resumes the queue, no job may be lost."""

    @pytest.mark.parametrize(
        ("version", "aside", "left"),
        [
            (FIVE, (), {"wait": [], "paused": ["two", "one"]}),
            (FIVE, ("old", "older"), {"wait": [], "paused": ["two", "one", "older", "old"]}),
            (SIX, ("old",), {"wait": [], "paused": ["two", "one", "old"]}),
            (None, (), {"wait": [], "paused": ["two", "one"]}),
            (SIX, (), {"wait": ["two", "one"], "paused": []}),
        ],
    )
    async def test_puts_aside_what_waits_unless_6_has_the_queue_alone(
        self, site: Site, version: str | None, aside: tuple[str, ...], left: dict[str, list[str]]
    ) -> None:
        for job in ("one", "two"):
            await site.add(job)
        await site.paused(version, aside)
        await site.raw.hdel(f"{B}meta", "paused")
        assert await site.inspector.pause("letters")
        assert await site.lists() == left
        assert not await site.inspector.pause("letters"), "it is paused already"
        assert await site.lists() == left
        sizes = await site.inspector.counts("letters")
        assert sizes["waiting"] == len(left["wait"] + left["paused"])
        assert await site.inspector.resume("letters")
        assert await site.lists() == {"wait": left["wait"] + left["paused"], "paused": []}

    async def test_makes_good_a_pause_that_left_jobs_in_both(self, site: Site) -> None:
        await site.add()
        await site.paused(SIX, ("old",))
        assert not await site.inspector.pause("letters")
        assert await site.lists() == {"wait": [], "paused": ["job", "old"]}

    async def test_so_does_a_stalled_check(self, site: Site) -> None:
        await site.add()
        await site.paused(SIX, ("old",))
        await site.store.check_stalled(60_000, 1)
        assert await site.lists() == {"wait": [], "paused": ["job", "old"]}

    async def test_keeps_the_order_of_very_many(self, site: Site) -> None:
        ids = [f"j{number}" for number in range(12_000)]
        await site.raw.lpush(f"{B}wait", *ids)
        await site.raw.lpush(f"{B}paused", "old")
        assert await site.inspector.pause("letters")
        assert await site.lists() == {"wait": [], "paused": [*reversed(ids), "old"]}
        await site.raw.delete(f"{B}paused")


async def test_an_operator_finds_and_changes_what_was_put_aside(
    site: Site, letters: Queue[Any]
) -> None:
    for job in ("one", "two", "three"):
        await site.add(job)
    await site.raw.hset(f"{B}meta", "version", FIVE)
    assert await site.inspector.pause(letters)
    page = await site.inspector.list(letters, "waiting")
    assert [each.id for each in page.jobs] == ["one", "two", "three"]
    assert (await site.inspector.get(letters, "two")).state == "waiting"
    await site.inspector.edit(letters, "two", {"text": "new"})
    await site.inspector.remove(letters, "one")
    assert await site.lists() == {"wait": [], "paused": ["three", "two"]}
    assert await site.inspector.drain(letters) == 2
    assert await site.lists() == {"wait": [], "paused": []}
