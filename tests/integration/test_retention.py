"""How long finished jobs stay.

Our default applies to our own jobs; a retention that is declared or asked for is BullMQ's.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio

from corral import Every, Fail, Job, JobOptions, Payload, Queue, Retention
from corral.jobs import new_job_id
from corral.outcome import Completed, Failed, Outcome
from corral.store.clock import Clock
from corral.store.codec import Ending, NewJob, encode_options
from corral.store.connection import Link
from corral.store.queue_store import MAX_BATCH, QueueStore
from corral.store.schedules import NewSchedule, Schedules
from corral.testing import Kit
from logged import capture_logs

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("path")]

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
BASE = "bull:letters:"
KEPT = f"corral:{BASE}kept:"
DEFAULT = JobOptions()
FAILED = Failed("no stamp", "")
SUFFIXES = ("", ":logs", ":dependencies", ":processed", ":failed", ":unsuccessful")


class Letter(Payload):
    text: str = ""


class Office:
    """Workers by hand, whose time moves together.

    Attributes:
        raw: A plain client of the store, replies as text.
    """

    def __init__(self, url: str, raw: redis.asyncio.Redis) -> None:
        self.raw = raw
        self._url = url
        self._clock = Clock()
        self._stores: list[QueueStore] = []
        self._seqs: Iterator[int] = iter(range(1, 10_000))

    def worker(self, options: JobOptions = DEFAULT) -> QueueStore:
        """One that has just started, with a connection of its own."""
        self._stores.append(
            QueueStore(Link(self._url), "bull", "letters", options=options, clock=self._clock)
        )
        return self._stores[-1]

    def travel(self, by: timedelta) -> None:
        self._clock.offset_ms += by // timedelta(milliseconds=1)

    async def end(
        self, store: QueueStore, ids: list[str], outcome: Outcome, opts: bytes = b""
    ) -> list[str]:
        """Add jobs of these ids and end them all; in batches, the ids in order."""
        for start in range(0, len(ids), MAX_BATCH):
            part = ids[start : start + MAX_BATCH]
            written = opts or encode_options(DEFAULT)
            assert all(
                await store.add([NewJob(job_id, "letters", b"{}", written) for job_id in part])
            )
            await self.work_off(store, outcome)
        return ids

    async def ours(
        self, store: QueueStore, count: int, outcome: Outcome, **options: Any
    ) -> list[str]:
        """Jobs of ours without a name, ended."""
        ids = sorted(new_job_id() for _ in range(count))
        return await self.end(store, ids, outcome, encode_options(JobOptions(**options)))

    async def work_off(self, store: QueueStore, outcome: Outcome) -> None:
        """End what waits, all the same way."""
        worker = f"hand-{next(self._seqs)}"
        found = await store.advance(worker, 1, [], MAX_BATCH)
        ended = await store.advance(worker, 2, [Ending(job, outcome) for job in found.jobs], 0)
        assert set(ended.codes) <= {0}

    async def retry(self, state: str, job_id: str) -> None:
        """What every client does to a finished job that is to run again (wire 6.16)."""
        assert await self.raw.zrem(BASE + state, job_id) == 1
        await self.raw.hdel(
            BASE + job_id, "finishedOn", "processedOn", "failedReason", "returnvalue"
        )
        await self.raw.lpush(f"{BASE}wait", job_id)

    async def remove(self, state: str, job_id: str) -> None:
        assert await self.raw.zrem(BASE + state, job_id) == 1
        await self.raw.unlink(*(BASE + job_id + suffix for suffix in SUFFIXES))

    async def history(self, state: str, count: int, age: timedelta) -> list[str]:
        """Jobs of another client that ended long ago, without a retention."""
        ids = [str(number) for number in range(1, count + 1)]
        seconds, micros = await self.raw.time()
        ended = seconds * 1000 + micros // 1000 - age // timedelta(milliseconds=1)
        async with self.raw.pipeline(transaction=False) as pipe:
            for job_id in ids:
                fields: dict[Any, Any] = {
                    "name": "x",
                    "data": "{}",
                    "opts": '{"attempts":0}',
                    "finishedOn": ended,
                }
                pipe.hset(BASE + job_id, mapping=fields)
            pipe.zadd(BASE + state, dict.fromkeys(ids, ended))
            await pipe.execute()
        return ids

    async def finished(self, state: str) -> list[str]:
        """The ids in a set, the oldest first; each has its job."""
        ids: list[str] = [*map(str, await self.raw.zrange(BASE + state, 0, -1))]
        if ids:
            assert await self.raw.exists(*(BASE + job_id for job_id in ids)) == len(ids)
        return ids

    async def noted(self, state: str) -> list[str]:
        """The ids that our default holds for."""
        return [*map(str, await self.raw.zrange(KEPT + state, 0, -1))]

    async def is_gone(self, job_id: str) -> bool:
        """Whether no key of a job is left, and no set has its id."""
        keys = [BASE + job_id + suffix for suffix in SUFFIXES]
        sets = [await self.raw.zscore(key, job_id) for key in (f"{BASE}completed", f"{BASE}failed")]
        return await self.raw.exists(*keys) == 0 and sets == [None, None]

    async def close(self) -> None:
        for store in self._stores:
            await store.close()


@pytest_asyncio.fixture
async def office(store_url: str, raw: redis.asyncio.Redis) -> AsyncIterator[Office]:
    office = Office(store_url, raw)
    yield office
    await office.close()


class TestTheDefault:
    async def test_a_completed_job_stays_for_a_day(self, office: Office) -> None:
        worker = office.worker()
        (old,) = await office.ours(worker, 1, Completed())
        await office.raw.rpush(f"{BASE}{old}:logs", "a line")
        office.travel(23 * HOUR)
        (middle,) = await office.ours(worker, 1, Completed())
        assert (
            await office.finished("completed") == await office.noted("completed") == [old, middle]
        )
        office.travel(HOUR)
        (new,) = await office.ours(worker, 1, Completed())
        assert (
            await office.finished("completed") == await office.noted("completed") == [middle, new]
        )
        assert await office.is_gone(old)

    async def test_the_newest_thousand_completed_jobs_stay(self, office: Office) -> None:
        """Whichever of many workers ended them, and after all of those are gone."""
        ended: list[str] = []
        for _ in range(3):
            ended += await office.ours(office.worker(), 400, Completed())
            office.travel(timedelta(seconds=1))
        assert await office.finished("completed") == await office.noted("completed") == ended[200:]
        (last,) = await office.ours(office.worker(), 1, Completed())
        assert await office.finished("completed") == [*ended[201:], last]

    async def test_a_failed_job_stays_for_seven_days_however_many_there_are(
        self, office: Office
    ) -> None:
        old = await office.ours(office.worker(), 1100, FAILED)
        office.travel(7 * DAY - HOUR)
        (new,) = await office.ours(office.worker(), 1, FAILED)
        assert len(await office.finished("failed")) == 1101
        office.travel(HOUR)
        await office.ours(office.worker(), 1, FAILED)
        left = await office.finished("failed")
        assert len(left) == 102, "one call removes a thousand"
        await office.ours(office.worker(), 1, FAILED)
        assert not set(old) & set(await office.finished("failed")), "the next one removes the rest"
        assert new in await office.finished("failed")
        assert await office.noted("failed") == await office.finished("failed")

    async def test_the_two_states_do_not_touch_each_other(self, office: Office) -> None:
        worker = office.worker()
        (failed,) = await office.ours(worker, 1, FAILED)
        (completed,) = await office.ours(worker, 1, Completed())
        office.travel(2 * DAY)
        await office.ours(worker, 1, FAILED)
        assert completed in await office.finished("completed"), "no job completed since"
        await office.ours(worker, 1, Completed())
        assert await office.is_gone(completed)
        assert failed in await office.finished("failed")

    async def test_a_queue_in_which_nothing_ends_is_looked_at_too(self, office: Office) -> None:
        """As each worker does at its start and once per stalled interval; nothing is left of a
        queue at rest.
        """
        await office.ours(office.worker(), 3, Completed())
        await office.ours(office.worker(), 2, FAILED)
        office.travel(DAY)
        await office.worker().remove_due()
        assert (await office.finished("completed"), len(await office.finished("failed"))) == ([], 2)
        office.travel(6 * DAY)
        await office.worker().remove_due()
        assert await office.finished("failed") == []
        assert await office.raw.exists(f"{KEPT}completed", f"{KEPT}failed") == 0

    async def test_one_call_notes_all_of_its_endings_in_one_command(self, office: Office) -> None:
        worker = office.worker()
        ids = [new_job_id() for _ in range(40)]
        await worker.add(
            [NewJob(job_id, "letters", b"{}", encode_options(DEFAULT)) for job_id in ids]
        )
        jobs = (await worker.advance("hand", 1, [], 40)).jobs
        await office.raw.config_resetstat()
        endings = [Ending(job, Completed() if n % 2 else FAILED) for n, job in enumerate(jobs)]
        assert set((await worker.advance("hand", 2, endings, 0)).codes) == {0}
        stats: dict[str, Any] = await office.raw.info("commandstats")
        assert stats["cmdstat_zcount"]["calls"] == 2, "it looks once per state"
        assert len(await office.noted("completed")) == len(await office.noted("failed")) == 20

    async def test_it_holds_for_named_jobs_and_for_iterations_of_schedules(
        self, office: Office
    ) -> None:
        worker = office.worker()
        await office.end(
            worker, ["welcome-ada"], Completed(), encode_options(DEFAULT, nonce="0123456789abcdef")
        )
        made = NewSchedule("hourly", "letters", b"{}", DEFAULT, Every(HOUR))
        await Schedules(worker).ensure(made)
        await office.work_off(worker, Completed())
        first, second = await office.finished("completed")
        assert {first.partition(":")[0], second.partition(":")[0]} == {"welcome-ada", "repeat"}
        office.travel(HOUR)
        await office.work_off(worker, Completed())
        assert len(await office.noted("completed")) == 3, (
            "the next iteration is recognised by what it has from the first"
        )
        office.travel(DAY)
        await worker.remove_due()
        assert await office.finished("completed") == []

    async def test_a_kit_moves_its_time(self, corral_kit: Kit) -> None:
        queue = Queue("letters", Letter)

        async def process(job: Job[Letter]) -> None:
            if job.payload.text:
                raise Fail(job.payload.text)

        async def left(text: str) -> list[str]:
            await corral_kit.enqueue(queue, Letter(text=text))
            await corral_kit.drain(queue.processed_by(process))
            return [job.state for job in corral_kit.jobs(queue)]

        assert await left("") == ["completed"]
        assert await left("no stamp") == ["completed", "failed"]
        corral_kit.travel(DAY)
        assert await left("") == ["failed", "completed"]
        corral_kit.travel(7 * DAY)
        assert await left("no stamp") == ["failed"]


class TestJobsThatWereTakenElsewhere:
    """An id is only removed where its score still is the one that our worker wrote."""

    async def test_a_job_that_is_retried_and_still_runs_is_only_forgotten(
        self, office: Office
    ) -> None:
        worker = office.worker()
        (job_id,) = await office.ours(worker, 1, FAILED)
        await office.retry("failed", job_id)
        office.travel(8 * DAY)
        await worker.remove_due()
        assert await office.raw.exists(BASE + job_id) == 1
        assert await office.noted("failed") == []

    async def test_a_job_that_ended_again_is_counted_from_then_on(self, office: Office) -> None:
        worker = office.worker()
        (job_id,) = await office.ours(worker, 1, FAILED)
        office.travel(6 * DAY)
        await office.retry("failed", job_id)
        await office.work_off(worker, FAILED)
        office.travel(6 * DAY)
        await worker.remove_due()
        assert await office.finished("failed") == [job_id]
        office.travel(DAY)
        await worker.remove_due()
        assert await office.is_gone(job_id)

    async def test_a_job_that_another_client_ended_meanwhile_is_kept(self, office: Office) -> None:
        worker = office.worker()
        (job_id,) = await office.ours(worker, 1, Completed())
        score = await office.raw.zscore(f"{BASE}completed", job_id)
        assert score is not None
        await office.raw.zadd(f"{BASE}completed", {job_id: score + 1})
        office.travel(9 * DAY)
        await worker.remove_due()
        assert await office.finished("completed") == [job_id]
        assert await office.noted("completed") == []

    async def test_a_job_that_failed_and_was_completed_by_a_retry(self, office: Office) -> None:
        worker = office.worker()
        (job_id,) = await office.ours(worker, 1, FAILED)
        office.travel(7 * DAY - HOUR)
        await office.retry("failed", job_id)
        await office.work_off(worker, Completed())
        office.travel(HOUR)
        await worker.remove_due()
        assert await office.finished("completed") == [job_id]

    async def test_another_job_of_a_removed_ones_id_is_kept(self, office: Office) -> None:
        worker = office.worker()
        opts = encode_options(DEFAULT, nonce="0123456789abcdef")
        await office.end(worker, ["welcome-ada"], Completed(), opts)
        await office.remove("completed", "welcome-ada")
        office.travel(HOUR)
        await office.end(
            worker, ["welcome-ada"], Completed(), b'{"attempts":1,"jobId":"welcome-ada"}'
        )
        office.travel(DAY)
        await worker.remove_due()
        assert await office.finished("completed") == ["welcome-ada"]

    async def test_what_is_gone_does_not_keep_its_place_for_ever(self, office: Office) -> None:
        """An operator has emptied the queue, by whichever client."""
        worker = office.worker()
        for job_id in await office.ours(worker, 5, Completed()):
            await office.remove("completed", job_id)
        office.travel(DAY)
        await worker.remove_due()
        assert await office.raw.exists(f"{KEPT}completed") == 0


class TestOthers:
    async def test_what_another_client_has_kept_is_not_touched(self, office: Office) -> None:
        completed = await office.history("completed", 1500, 2 * DAY)
        worker = office.worker()
        await office.ours(worker, 2, Completed())
        office.travel(2 * DAY)
        await office.ours(worker, 1, Completed())
        left = await office.finished("completed")
        assert set(completed) <= set(left)
        assert len(left) == 1501

    async def test_failed_jobs_neither(self, office: Office) -> None:
        failed = await office.history("failed", 200, 8 * DAY)
        worker = office.worker()
        await office.ours(worker, 1, FAILED)
        office.travel(8 * DAY)
        await office.ours(worker, 1, FAILED)
        assert set(failed) < set(await office.finished("failed"))
        assert len(await office.finished("failed")) == 201

    @pytest.mark.parametrize(
        ("job_id", "opts"),
        [
            ("7", b'{"attempts":0}'),
            ("7d4a1c1e-98b5-4b1e-9f0c-0f2f1b7f6a11", b"{}"),
            ("invoice-7", b'{"jobId":"invoice-7","attempts":3}'),
            ("01hzy3v9q4n8m2k5r7t0w6x1bc", b'{"jobId":"01hzy3v9q4n8m2k5r7t0w6x1bc"}'),
        ],
        ids=["numbered", "a flow's", "named", "named as we name ours"],
    )
    async def test_a_job_of_theirs_without_a_retention_is_kept(
        self, office: Office, job_id: str, opts: bytes
    ) -> None:
        worker = office.worker()
        await office.end(worker, [job_id], Completed(), opts)
        office.travel(30 * DAY)
        await office.ours(worker, 1, Completed())
        assert job_id in await office.finished("completed")
        assert job_id not in await office.noted("completed")

    async def test_a_parent_waits_no_longer_for_a_child_that_was_removed(
        self, office: Office
    ) -> None:
        """As with BullMQ's removal: the child failed without a policy, so its parent waited for it."""
        worker = office.worker()
        (parent,) = await office.ours(worker, 1, Completed())
        await office.retry("completed", parent)
        await office.raw.lrem(f"{BASE}wait", 0, parent)
        await office.raw.zadd(f"{BASE}waiting-children", {parent: 1})
        child = new_job_id()
        assert await worker.add([NewJob(child, "letters", b"{}", encode_options(DEFAULT))]) == [
            True
        ]
        named = json.dumps({"id": parent, "queueKey": BASE.removesuffix(":")})
        await office.raw.hset(BASE + child, mapping={"parentKey": BASE + parent, "parent": named})
        await office.raw.sadd(f"{BASE}{parent}:dependencies", BASE + child)
        await office.work_off(worker, FAILED)
        assert await office.raw.zscore(f"{BASE}waiting-children", parent) is not None
        office.travel(7 * DAY)
        await worker.remove_due()
        assert await office.is_gone(child)
        assert await office.raw.lrange(f"{BASE}wait", 0, -1) == [parent]
        assert await office.raw.exists(f"{BASE}{parent}:dependencies") == 0
        await office.work_off(worker, Completed())


class TestBullmqsOwn:
    """What a queue declares, and what a call asks for, holds for the whole set, as in BullMQ."""

    async def test_a_declared_retention_holds_for_everybodys_jobs(self, office: Office) -> None:
        await office.history("completed", 30, 2 * DAY)
        declared = JobOptions(keep_completed=Retention(count=10))
        worker = office.worker(declared)
        (last,) = await office.end(worker, ["31"], Completed(), b'{"attempts":0}')
        left = await office.finished("completed")
        assert len(left) == 10
        assert last in left
        assert await office.noted("completed") == []

    async def test_one_that_a_call_asks_for_does_so_in_any_queue(self, office: Office) -> None:
        worker = office.worker()
        await office.history("completed", 30, 2 * DAY)
        first = await office.ours(worker, 1, Completed())
        asked = await office.ours(worker, 1, Completed(), keep_completed=Retention(age=DAY))
        assert set(await office.finished("completed")) == {*first, *asked}
        assert await office.noted("completed") == first
        office.travel(2 * DAY)
        await worker.remove_due()
        assert await office.finished("completed") == asked, (
            "it goes as the next job ends that asks for it"
        )

    async def test_keep_all_is_said_and_overrides(self, office: Office) -> None:
        opts = json.loads(
            encode_options(JobOptions(keep_completed=Retention(), keep_failed=Retention()))
        )
        assert (opts["removeOnComplete"], opts["removeOnFail"]) == (False, False)
        worker = office.worker(JobOptions(keep_completed=Retention(count=1)))
        ids = await office.ours(worker, 5, Completed(), keep_completed=Retention())
        office.travel(30 * DAY)
        await worker.remove_due()
        assert sorted(await office.finished("completed")) == sorted(ids)

    async def test_a_count_of_zero_removes_the_job_and_no_other(self, office: Office) -> None:
        worker = office.worker()
        kept = await office.ours(worker, 2, Completed())
        (gone,) = await office.ours(worker, 1, Completed(), keep_completed=Retention(count=0))
        assert await office.is_gone(gone)
        assert await office.finished("completed") == await office.noted("completed") == kept

    async def test_what_was_noted_is_forgotten_where_a_retention_is_declared_later(
        self, office: Office
    ) -> None:
        ids = await office.ours(office.worker(), 3, Completed())
        await office.ours(office.worker(), 1, FAILED)
        later = office.worker(JobOptions(keep_completed=Retention()))
        await later.remove_due()
        assert await office.raw.exists(f"{KEPT}completed") == 0
        assert len(await office.noted("failed")) == 1, "of failed jobs it says nothing"
        office.travel(9 * DAY)
        await later.remove_due()
        assert await office.finished("completed") == ids
        assert await office.finished("failed") == []


class TestDamage:
    @pytest.mark.parametrize("state", ["completed", "failed"])
    async def test_a_damaged_key_of_ours_costs_nothing_and_is_moved_aside(
        self, office: Office, state: str
    ) -> None:
        outcome = Completed() if state == "completed" else FAILED
        await office.raw.set(KEPT + state, "damaged")
        worker = office.worker()
        await worker.remove_due()
        ids = await office.ours(worker, 3, outcome)
        assert await office.finished(state) == await office.noted(state) == ids
        (aside,) = [key async for key in office.raw.scan_iter(match=f"{KEPT}{state}~*")]
        assert await office.raw.get(aside) == "damaged"
        office.travel(7 * DAY)
        await office.ours(worker, 1, outcome)
        assert await office.is_gone(ids[0])

    async def test_a_damaged_set_of_the_queue_loses_no_job(self, office: Office) -> None:
        worker = office.worker()
        (old,) = await office.ours(worker, 1, Completed())
        await office.raw.rename(f"{BASE}completed", "aside")
        await office.raw.set(f"{BASE}completed", "damaged")
        office.travel(2 * DAY)
        await worker.remove_due()
        assert await office.noted("completed") == [old], "it cannot be known yet whether it is due"
        (new,) = await office.ours(worker, 1, Completed())
        assert await office.finished("completed") == [new]
        await office.raw.delete(BASE + old, "aside")


class TestAFullStore:
    async def test_jobs_end_and_what_is_due_goes(self, office: Office) -> None:
        worker = office.worker()
        old = [await office.ours(worker, 2, outcome) for outcome in (Completed(), FAILED)]
        office.travel(8 * DAY)
        ids = [new_job_id() for _ in range(4)]
        await worker.add(
            [NewJob(job_id, "letters", b"{}", encode_options(DEFAULT)) for job_id in ids]
        )
        await office.raw.config_set("maxmemory", 1)
        try:
            jobs = (await worker.advance("hand", 1, [], 4)).jobs
            endings = [Ending(job, Completed() if n % 2 else FAILED) for n, job in enumerate(jobs)]
            assert set((await worker.advance("hand", 2, endings, 0)).codes) == {0}
            await worker.remove_due()
        finally:
            await office.raw.config_set("maxmemory", 0)
        assert [await office.is_gone(job_id) for job_id in old[0] + old[1]] == [True] * 4
        left = [*await office.finished("completed"), *await office.finished("failed")]
        assert sorted(left) == sorted(ids)
        assert [*await office.noted("completed"), *await office.noted("failed")] == left

    async def test_a_queue_at_rest_gets_room(self, office: Office) -> None:
        worker = office.worker()
        await office.ours(worker, 3, FAILED)
        office.travel(8 * DAY)
        await office.raw.config_set("maxmemory", 1)
        try:
            await worker.remove_due()
        finally:
            await office.raw.config_set("maxmemory", 0)
        assert await office.finished("failed") == []


async def test_two_workers_share_a_queue(workshop: Any, office: Office) -> None:
    """Real ones: whoever ends a job, all of them keep the newest thousand together."""
    queue = Queue("letters", Letter)

    async def process(_: Job[Letter]) -> None:
        """Ends well."""

    async def at_rest() -> bool:
        return not await office.raw.exists(f"{BASE}wait", f"{BASE}active")

    await workshop.producer(queue).enqueue_many(queue, [Letter()] * 1300)
    async with (
        workshop.working(queue.processed_by(process)),
        workshop.working(queue.processed_by(process)),
    ):
        await workshop.wait_until(at_rest, "all jobs have ended")
    assert len(await office.finished("completed")) == len(await office.noted("completed")) == 1000


async def test_a_waiting_default_job_takes_at_most_300_bytes(workshop: Any) -> None:
    """A text of more than 64 bytes makes the server keep the whole hash in another form, which
    takes 551.
    """
    queue = Queue("letters", Letter)
    job_id = (await workshop.producer(queue).enqueue(queue, Letter())).id
    key = f"{BASE}{job_id}"
    assert await workshop.raw.object("ENCODING", key) == "listpack"
    assert await workshop.raw.memory_usage(key, samples=0) <= 300


class TestTheWarning:
    """A worker that starts warns before its declaration removes jobs of other clients."""

    WORD = "other clients have kept"

    async def logged(self, workshop: Any, **options: Any) -> list[Any]:
        queue = Queue("letters", Letter, options=JobOptions(**options))

        async def process(_: Job[Letter]) -> None:
            """Ends well."""

        with capture_logs() as logs:
            await workshop.burst(queue.processed_by(process))
        return [line for line in logs if self.WORD in line["event"]]

    async def test_it_is_said_once_with_how_many_jobs(self, workshop: Any, office: Office) -> None:
        await office.history("completed", 1500, 2 * DAY)
        await office.ours(office.worker(), 100, Completed())
        (line,) = await self.logged(workshop, keep_completed=Retention(count=1000))
        assert (line["log_level"], line["queue"], line["completed"]) == ("warning", "letters", 600)
        assert "failed" not in line
        assert "declare none" in line["event"]
        (line,) = await self.logged(
            workshop, keep_completed=Retention(age=DAY), keep_failed=Retention(age=DAY)
        )
        assert line["completed"] == 1500

    async def test_for_failed_jobs_too(self, workshop: Any, office: Office) -> None:
        await office.history("failed", 200, 8 * DAY)
        (line,) = await self.logged(workshop, keep_failed=Retention(age=7 * DAY))
        assert line["failed"] == 200
        assert len(await office.finished("failed")) == 200, "saying so removes nothing"

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"keep_completed": Retention()},
            {"keep_completed": Retention(count=0)},
            {"keep_completed": Retention(count=40)},
            {"keep_completed": Retention(age=3 * DAY)},
            {"keep_failed": Retention(count=1)},
        ],
        ids=["declares none", "keeps all", "keeps none", "so many", "so old", "of the other state"],
    )
    async def test_it_is_not_said_where_nothing_of_theirs_goes(
        self, workshop: Any, office: Office, options: dict[str, Any]
    ) -> None:
        await office.history("completed", 40, 2 * DAY)
        assert await self.logged(workshop, **options) == []

    async def test_it_is_not_said_of_our_own_jobs(self, workshop: Any, office: Office) -> None:
        await office.ours(office.worker(), 50, Completed())
        assert await self.logged(workshop, keep_completed=Retention(count=10)) == []

    async def test_a_damaged_set_keeps_no_worker_from_starting(
        self, workshop: Any, office: Office
    ) -> None:
        await office.raw.set(f"{BASE}completed", "damaged")
        assert await self.logged(workshop, keep_completed=Retention(count=10)) == []
