"""Schedules on the real scripts: installed, advanced by the fetch, changed, removed; a year of ticks."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from corral import Cron, Every, Job, JobOptions, Payload, Queue
from corral.errors import JobRefused, PayloadRefused, UnknownQueue
from corral.outcome import Completed
from corral.store.codec import Ending, FetchedJob
from corral.worker.ticks import Ticks
from integration.by_hand import NAME, Hand
from logged import capture_logs

pytestmark = pytest.mark.asyncio

HOUR_MS = 3_600_000


class Report(Payload):
    """About one team, or about all."""

    team: str = "all"


@pytest_asyncio.fixture
async def hand(store_url: str) -> AsyncIterator[Hand]:
    hand = Hand(store_url)
    yield hand
    await hand.store.close()


async def test_a_year_of_hourly_ticks(hand: Hand, raw: Any) -> None:
    """8,760 of them, each at minute 5 UTC, none twice: with time moved, on the scripts that a
    worker uses.
    """
    began = time.monotonic()
    assert await hand.ensure(Cron("5 * * * *")) == "made"
    ticks: list[int] = []
    running: list[FetchedJob] = []
    coming = Ticks(hand.store, Cron("5 * * * *"))
    for seq in range(8760):
        hand.move_to(int(await raw.zscore(f"bull:{NAME}:repeat", NAME)) + 20)
        coming.set_store_time(int(time.time() * 1000) + hand.store.offset_ms)
        ended = [Ending(job, Completed()) for job in running]
        reply = await hand.store.advance("hand", seq, ended, 10, ticks=coming.coming())
        assert not reply.pending_successors, "it is advanced in the fetch"
        running = list(reply.jobs)
        ticks += [job.scheduled_ms for job in running]
    await hand.store.advance("hand", 8760, [Ending(job, Completed()) for job in running], 0)
    print(f"{len(ticks)} ticks of one year in {time.monotonic() - began:.1f} s")
    assert len(set(ticks)) == 8760
    assert {datetime.fromtimestamp(tick / 1000, UTC).minute for tick in ticks} == {5}
    assert {tick % 60_000 for tick in ticks} == {0}
    assert ticks[-1] - ticks[0] == 8759 * HOUR_MS
    (stored,) = await hand.schedules.list()
    assert (stored.iterations, stored.alive) == (8761, True)


async def test_the_same_schedule_again_changes_nothing(hand: Hand, raw: Any) -> None:
    await hand.ensure(Cron("5 * * * *"))
    before = await raw.hgetall(f"bull:{NAME}:repeat:{NAME}"), await raw.xlen(f"bull:{NAME}:events")
    assert await hand.ensure(Cron("5 * * * *")) == "untouched"
    hand.move_to(
        await hand.tick() + 10 * HOUR_MS
    )  # due, and nobody has run it: an upsert would delete it
    due = await hand.tick()
    assert await hand.ensure(Cron("5 * * * *")) == "untouched"
    assert (
        await raw.hgetall(f"bull:{NAME}:repeat:{NAME}"),
        await raw.xlen(f"bull:{NAME}:events"),
    ) == before
    assert await hand.run_due() == [due]
    assert await hand.tick() == due + 11 * HOUR_MS, "the missed ones are one"


async def test_a_changed_schedule_replaces_the_coming_tick(hand: Hand, raw: Any) -> None:
    await hand.ensure(Cron("5 * * * *"))
    assert await hand.ensure(Cron("7 * * * *", tz="Europe/Berlin")) == "changed"
    assert datetime.fromtimestamp(await hand.tick() / 1000, UTC).minute == 7
    assert await raw.zcard(f"bull:{NAME}:delayed") == 1
    assert (await raw.hgetall(f"bull:{NAME}:repeat:{NAME}"))["tz"] == "Europe/Berlin"
    options = JobOptions(attempts=9)
    tick = await hand.tick()
    assert await hand.ensure(Cron("7 * * * *", tz="Europe/Berlin"), options=options) == "changed"
    assert await hand.tick() == tick
    hand.move_to(tick + 20)
    (job,) = await hand.fetch()
    assert job.options.attempts == 9
    await hand.complete(job)


async def test_a_changed_schedule_leaves_a_tick_that_is_due(hand: Hand) -> None:
    """It runs, once; and only the new definition goes on."""
    await hand.ensure(Cron("5 * * * *"))
    overdue = await hand.tick()
    hand.move_to(overdue + 120_000)
    assert await hand.ensure(Cron("30 * * * *")) == "changed"
    following = await hand.tick()
    assert following == overdue + 25 * 60_000
    assert await hand.run_due() == [overdue]
    assert await hand.tick() == following
    hand.move_to(following + 20)
    assert await hand.run_due() == [following]
    assert await hand.tick() == following + HOUR_MS


async def test_every_keeps_its_grid_over_missed_runs(hand: Hand) -> None:
    assert await hand.ensure(Every(timedelta(seconds=10))) == "made"
    first = await hand.tick()
    assert await hand.run_due() == [first], "the first run is at once"
    hand.move_to(first + 47_123)
    assert await hand.run_due() == [first + 10_000]
    assert await hand.tick() == first + 50_000
    assert await hand.ensure(Every(timedelta(seconds=20))) == "changed"
    assert abs(await hand.tick() - (first + 47_123)) < 2_000, "another period starts anew, now"
    await hand.run_due()


async def test_a_stalled_tick_makes_no_second_next_one(hand: Hand) -> None:
    await hand.ensure(Every(timedelta(seconds=10)))
    (job,) = await hand.fetch()
    following = await hand.tick()
    assert following == job.scheduled_ms + 10_000
    await hand.store.check_stalled(1, 1)
    await hand.store._link.call("DEL", f"bull:{NAME}:{job.id}:lock", f"bull:{NAME}:stalled-check")
    await hand.store.check_stalled(1, 1)
    (again,) = await hand.fetch()
    assert (again.id, await hand.tick()) == (job.id, following)
    await hand.complete(again)


@pytest.mark.trap(5)
async def test_a_schedule_that_somebody_ended_is_resumed(hand: Hand, raw: Any) -> None:
    """Another client ran the tick and made no next one (trap T5)."""
    await hand.ensure(Cron("5 * * * *"))
    tick = await hand.tick()
    job = f"repeat:{NAME}:{tick}"
    await raw.zrem(f"bull:{NAME}:delayed", job)
    await raw.zadd(f"bull:{NAME}:completed", {job: tick})
    (stored,) = await hand.schedules.list()
    assert not stored.alive
    assert await hand.ensure(Cron("5 * * * *")) == "resumed"
    assert await hand.tick() == tick + HOUR_MS, "the tick itself has its job: it does not run twice"


async def test_a_removed_schedule_leaves_no_key(hand: Hand, raw: Any) -> None:
    await hand.ensure(Cron("5 * * * *"))
    assert await hand.schedules.remove(NAME) is True
    assert await hand.schedules.remove(NAME) is False
    assert {key async for key in raw.scan_iter("bull:*")} == {
        f"bull:{NAME}:{key}" for key in ("events", "id", "meta", "marker")
    }


class TestAWorker:
    """What a worker makes of a declaration."""

    async def test_runs_what_is_declared_and_tells_the_tick(self, workshop: Any) -> None:
        seen: list[Job[Report]] = []

        async def process(job: Job[Report]) -> None:
            seen.append(job)

        every = Queue(NAME, Report, schedule=Every(timedelta(milliseconds=50)))
        async with workshop.working(every.processed_by(process)):
            await workshop.wait_until(lambda: len(seen) >= 4, "four runs")
        ticks = [int(job.scheduled_for.timestamp() * 1000) for job in seen]
        assert {(tick - ticks[0]) % 50 for tick in ticks} == {0}
        assert [job.id for job in seen] == [f"repeat:{NAME}:{tick}" for tick in ticks]
        assert all(job.processed_on >= job.scheduled_for for job in seen)
        assert {job.payload.team for job in seen} == {"all"}

    async def test_runs_a_cron_schedule_to_the_second(self, workshop: Any) -> None:
        seen: list[Job[Report]] = []

        async def process(job: Job[Report]) -> None:
            seen.append(job)

        cron = Queue(NAME, Report, schedule=Cron("* * * * * *"))
        async with workshop.working(cron.processed_by(process)):
            await workshop.wait_until(lambda: len(seen) >= 3, "three seconds")
        assert [job.scheduled_for.microsecond for job in seen] == [0] * len(seen)
        steps = {
            (b.scheduled_for - a.scheduled_for).total_seconds() for a, b in itertools.pairwise(seen)
        }
        assert steps == {1.0}

    async def test_leaves_to_others_what_it_cannot_read(self, workshop: Any) -> None:
        """A pattern of another language's producer: the iteration is not run, not failed and not
        lost.
        """
        queue = Queue(NAME, Report)
        hand, raw = Hand(workshop.url), workshop.raw
        await hand.ensure(Every(timedelta(hours=1)), "foreign")
        await hand.store.close()
        await raw.hdel(f"bull:{NAME}:repeat:foreign", "every")
        await raw.hset(
            f"bull:{NAME}:repeat:foreign", mapping={"pattern": "0 0 15W * *", "tz": "UTC"}
        )
        (job_id,) = await raw.lrange(f"bull:{NAME}:wait", 0, -1)
        runs: list[str] = []
        with capture_logs() as logs:
            async with workshop.working(queue.processed_by(lambda job: runs.append(job.id))):
                await workshop.until(queue, job_id, "delayed")
        assert runs == []
        assert (await workshop.hash(queue, job_id)).get("atm", "0") == "0"
        (line,) = (line for line in logs if "cannot be parsed" in line["event"])
        assert (line["queue"], line["schedule"]) == (NAME, "foreign")

    async def test_says_that_a_schedule_is_declared_no_longer(self, workshop: Any) -> None:
        hand = Hand(workshop.url)
        await hand.ensure(Every(timedelta(hours=1)))
        await hand.store.close()
        queue = Queue(NAME, Report)
        with capture_logs() as logs:
            await workshop.burst(queue.processed_by(lambda _: None))
        assert any("corral schedules prune" in line["event"] for line in logs)
        assert await workshop.raw.zcard(f"bull:{NAME}:repeat") == 1, (
            "it goes on until somebody removes it"
        )


class TestAtRunTime:
    """`jobs.schedule` and `jobs.unschedule`."""

    async def test_schedules_for_one_customer(self, workshop: Any) -> None:
        queue = Queue(NAME, Report)
        jobs = workshop.producer(queue)
        first = await jobs.schedule(
            queue, Report(team="blue"), Every(timedelta(hours=1)), id="blue"
        )
        assert (
            await jobs.schedule(NAME, {"team": "blue"}, Every(timedelta(hours=1)), id="blue")
            == first
        )
        teams: list[str] = []
        await workshop.burst(queue.processed_by(lambda job: teams.append(job.payload.team)))
        assert teams == ["blue"]
        following = await jobs.schedule(
            queue, Report(team="red"), Every(timedelta(hours=1)), id="blue"
        )
        assert following == first + timedelta(hours=1)
        assert await jobs.unschedule(NAME, "blue") is True
        assert await jobs.unschedule(queue, "blue") is False

    async def test_the_same_id_in_another_queue_stays(self, workshop: Any) -> None:
        queue, other = Queue(NAME, Report), Queue("other-reports", Report)
        jobs = workshop.producer(queue, other)
        hourly = Every(timedelta(hours=1))
        for each in (queue, other):
            await jobs.schedule(each, Report(team="blue"), hourly, id="blue")
        assert await jobs.unschedule(queue, "blue") is True
        assert await workshop.raw.exists(f"bull:{NAME}:repeat:blue") == 0
        assert await workshop.raw.exists("bull:other-reports:repeat:blue") == 1
        assert await workshop.raw.zscore("bull:other-reports:repeat", "blue") is not None
        assert await jobs.unschedule(queue, "blue") is False, "it ends none in the other queue"
        assert await jobs.unschedule(other, "blue") is True

    async def test_unschedule_refuses_what_is_no_schedule_of_a_program(self, workshop: Any) -> None:
        queue = Queue(NAME, Report)
        jobs = workshop.producer(queue)
        with pytest.raises(UnknownQueue) as unscheduling:
            await jobs.unschedule("unheard-of", "blue")
        with pytest.raises(UnknownQueue) as enqueueing:
            await jobs.enqueue("unheard-of", {})
        assert str(unscheduling.value) == str(enqueueing.value)
        assert unscheduling.value.hint == enqueueing.value.hint
        with pytest.raises(JobRefused, match="is a queue's name"):
            await jobs.unschedule(queue, NAME)
        with pytest.raises(JobRefused, match="is not made of"):
            await jobs.unschedule(queue, "a:b")
        assert await workshop.raw.dbsize() == 0

    async def test_refuses_before_anything_is_written(self, workshop: Any) -> None:
        queue = Queue(NAME, Report)
        jobs = workshop.producer(queue)
        hourly = Every(timedelta(hours=1))
        with pytest.raises(JobRefused, match="is a queue's name"):
            await jobs.schedule(queue, Report(), hourly, id=NAME)
        with pytest.raises(JobRefused, match="is not made of"):
            await jobs.schedule(queue, Report(), hourly, id="a:b")
        with pytest.raises(JobRefused, match="'61 \\* \\* \\* \\*'"):
            await jobs.schedule(queue, Report(), Cron("61 * * * *"), id="x")
        with pytest.raises(JobRefused, match="every 0:00:00"):
            await jobs.schedule(queue, Report(), Every(timedelta(0)), id="x")
        with pytest.raises(PayloadRefused):
            await jobs.schedule(queue, {"tam": "x"}, hourly, id="x")
        assert await workshop.raw.dbsize() == 0
