"""A worker keeps the schedules that its queues declare.

It looks again and again, repairs what is gone, and changes nothing else.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from corral import Cron, Every, Job, Payload, Queue
from corral.fleet import processes
from corral.fleet.processes import OwnRecord, ProcessRecords
from corral.store.connection import Link
from corral.store.schedules import PRUNED, removal
from integration.by_hand import NAME, Hand
from integration.losses import LOSSES
from logged import capture_logs

pytestmark = pytest.mark.asyncio

Q = f"bull:{NAME}"
INTERVAL_SECONDS = 0.2
OFTEN = Every(timedelta(milliseconds=100))
RARELY = Every(timedelta(hours=1))
FOREIGN = "0 0 15W * *"
"""The working day next to the fifteenth: our parser refuses it."""


PROCESSES = "corral:bull:alive"


class Report(Payload):
    """Nothing, but for a job that is not a run of the schedule."""

    by_hand: bool = False


class Office:
    """A queue with a schedule, and workers of this process that serve it.

    Attributes:
        ran: The ids of the jobs that have run.
        checks: How often a worker has looked.
    """

    def __init__(self, workshop: Any) -> None:
        self._workshop = workshop
        self.ran: list[str] = []
        self.checks = 0

    def queue(self, when: Every | Cron | None) -> Queue[Report]:
        return Queue(NAME, Report, schedule=when)

    @asynccontextmanager
    async def working(self, when: Every | Cron | None, **settings: Any) -> AsyncIterator[Any]:
        """A worker that declares this."""

        async def process(job: Job[Report]) -> None:
            self.ran.append(job.id)

        settings = {"stalled_interval_seconds": INTERVAL_SECONDS, **settings}
        async with self._workshop.working(
            self.queue(when).processed_by(process), **settings
        ) as working:
            working.worker._on_check = self._looked
            yield working.worker

    def _looked(self) -> None:
        self.checks += 1

    async def looked(self, times: int = 3) -> None:
        """Wait until the workers have looked so often again, to the end."""
        enough = self.checks + times + 1
        await self._workshop.wait_until(lambda: self.checks >= enough, f"{times} more checks")

    async def runs(self, count: int = 2) -> None:
        """Wait for so many more runs."""
        enough = len(self.ran) + count
        await self._workshop.wait_until(lambda: len(self.ran) >= enough, f"{count} more runs")


@pytest.fixture
def office(workshop: Any) -> Office:
    return Office(workshop)


@pytest.fixture
def hand(workshop: Any) -> Callable[[], Any]:
    """`async with hand() as hand`"""

    @asynccontextmanager
    async def lent() -> AsyncIterator[Hand]:
        hand = Hand(workshop.url)
        yield hand
        await hand.store.close()

    return lent


def events(logs: list[Any], text: str) -> list[Any]:
    return [line for line in logs if text in line["event"]]


@pytest.mark.corral_untidy("a job whose keys are deleted in the middle of its run leaves its id")
@pytest.mark.parametrize("loss", LOSSES)
async def test_it_runs_again_after_every_loss(loss: str, office: Office, workshop: Any) -> None:
    with capture_logs() as logs:
        async with office.working(OFTEN) as worker:
            await office.runs()
            await LOSSES[loss](workshop.raw)
            await office.runs(3)
            made = await workshop.producer(office.queue(None)).enqueue(NAME, {"by_hand": True})
            await workshop.wait_until(lambda: made.id in office.ran, "a plain job runs, too")
            assert worker.troubles == {}
    repaired = len(events(logs, "schedule w"))
    assert worker.repaired[NAME] == repaired <= 1
    assert loss == "settings" or repaired == 1 or loss.startswith("next_run"), (
        "a run may have begun just before"
    )
    assert not [line for line in logs if line["log_level"] == "error"]


@pytest.mark.parametrize("loss", ["flush", "next_run", "next_run_s_place", "all_of_it"])
async def test_it_finds_out_at_once_where_nothing_is_to_come(
    loss: str, office: Office, workshop: Any
) -> None:
    """A worker that finds nothing, waiting or to come, does not wait for the end of a long
    interval.
    """
    async with office.working(Every(timedelta(seconds=1)), stalled_interval_seconds=3600) as worker:
        await office.runs()
        await workshop.wait_until(lambda: _is_coming(workshop.raw), "the next run is to come")
        await LOSSES[loss](workshop.raw)
        await office.runs()
        assert worker.repaired[NAME] == 1


async def _is_coming(raw: Any) -> bool:
    return bool(await raw.zcard(f"{Q}:delayed") and not await raw.llen(f"{Q}:active"))


async def test_a_doubt_that_was_wrong_is_not_followed_again_and_again(
    office: Office, workshop: Any
) -> None:
    """A paused queue looks as if nothing were to come: each look of its worker would look at the
    schedule, too.
    """
    async with office.working(OFTEN, stalled_interval_seconds=3600):
        await office.runs()
        await workshop.raw.hset(f"{Q}:meta", "paused", "1")
        jobs = workshop.producer(office.queue(None))

        async def waits() -> bool:
            return bool(await workshop.raw.llen(f"{Q}:wait"))

        await workshop.wait_until(waits, "a run waits")
        before = office.checks
        for _ in range(20):
            await jobs.enqueue(NAME, {})
            await workshop.raw.zadd(f"{Q}:marker", {"0": 0})

            async def is_taken() -> bool:
                return not await workshop.raw.exists(f"{Q}:marker")

            await workshop.wait_until(is_taken, "the worker looks")
        assert office.checks <= before + 1
        assert await workshop.raw.zcard(f"{Q}:repeat") == 1
        await workshop.raw.hdel(f"{Q}:meta", "paused")
        await workshop.raw.zadd(f"{Q}:marker", {"0": 0})
        await office.runs(22)


async def test_another_release_s_schedule_is_left_and_warned_about_once(
    office: Office, workshop: Any
) -> None:
    """Two releases in a rolling deployment do not rewrite each other's."""

    async def every_ms() -> int:
        return int(await workshop.raw.hget(f"{Q}:repeat:{NAME}", "every") or 0)

    async def is_the_newer_s() -> bool:
        return await every_ms() == 7_200_000

    with capture_logs() as logs:
        async with office.working(RARELY):
            await workshop.wait_until(every_ms, "the older has started")
            async with office.working(Every(timedelta(hours=2))) as newer:
                await workshop.wait_until(is_the_newer_s, "the newer has started")
                await office.looked(12)
                assert await is_the_newer_s()
                assert newer.repaired[NAME] == 0
    (line,) = events(logs, "left as it is")
    assert (line["queue"], line["log_level"]) == (NAME, "warning")
    assert len(events(logs, "schedule changed")) == 1


async def test_what_an_operator_removed_stays_removed(
    office: Office, workshop: Any, hand: Any
) -> None:
    async def is_there() -> bool:
        return bool(await workshop.raw.zcard(f"{Q}:repeat"))

    with capture_logs() as logs:
        async with office.working(RARELY) as worker, hand() as by_hand:
            await office.runs(1)
            await by_hand.schedules.remove(NAME, mark=removal(RARELY))
            await office.looked()
            assert not await is_there()
            assert worker.troubles == {}
        assert len(events(logs, "stays removed")) == 1
        async with office.working(RARELY):
            await office.looked()
            assert not await is_there()
        assert len(events(logs, "stays removed")) == 2, "the worker that started says it, too"
        async with office.working(Every(timedelta(hours=2))):
            await workshop.wait_until(is_there, "another declaration makes it")
        async with hand() as by_hand:
            await by_hand.schedules.remove(NAME, mark=PRUNED)
        async with office.working(Every(timedelta(hours=2))):
            await workshop.wait_until(
                is_there, "what was pruned is made by a worker that declares it"
            )


async def test_what_is_not_declared_is_not_made(office: Office, workshop: Any, hand: Any) -> None:
    async with hand() as by_hand:
        await by_hand.ensure(RARELY, "of-a-program")
    async with office.working(None):
        await office.runs(1)
        await workshop.raw.flushall()
        await office.looked()
        assert await workshop.raw.zcard(f"{Q}:repeat") == 0


class TestOfAnotherClient:
    """A cron expression that only another client can read, and no such client runs."""

    @asynccontextmanager
    async def foreign(
        self, workshop: Any, hand: Any, pattern: str, tz: str, late: timedelta
    ) -> AsyncIterator[str]:
        """Such a schedule, whose run waits and was due so long ago."""
        tick = int((datetime.now(UTC) - late).timestamp() * 1000)
        async with hand() as by_hand:
            await by_hand.ensure(RARELY, "foreign")
        raw = workshop.raw
        (job,) = await raw.lrange(f"{Q}:wait", 0, -1)
        moved = f"repeat:foreign:{tick}"
        await raw.rename(f"{Q}:{job}", f"{Q}:{moved}")
        await raw.lset(f"{Q}:wait", 0, moved)
        await raw.zadd(f"{Q}:repeat", {"foreign": tick})
        await raw.hdel(f"{Q}:repeat:foreign", "every")
        await raw.hset(f"{Q}:repeat:foreign", mapping={"pattern": pattern, "tz": tz})
        yield moved
        await raw.flushall()

    async def test_is_reported_while_it_is_true(
        self, office: Office, workshop: Any, hand: Any
    ) -> None:
        async with self.foreign(workshop, hand, FOREIGN, "UTC", timedelta(minutes=5)) as job:
            with capture_logs() as logs:
                async with office.working(OFTEN) as worker:
                    await workshop.wait_until(lambda: worker.troubles, "it is reported")
                    assert list(worker.troubles) == [(NAME, "schedule")]
                    trouble = worker.troubles[NAME, "schedule"]
                    assert "'foreign' of queue 'reports'" in trouble
                    assert repr(FOREIGN) in trouble
                    await office.looked()
                    assert worker.troubles[NAME, "schedule"] == trouble
                    assert job not in office.ran
                    # Another client takes it, and makes the next one.
                    await workshop.raw.zadd(f"{Q}:repeat", {"foreign": 4_102_444_800_000})
                    await workshop.wait_until(lambda: not worker.troubles, "it is true no longer")
            (line,) = events(logs, "overdue")
            assert (line["queue"], line["schedule"], line["expression"]) == (
                NAME,
                "foreign",
                FOREIGN,
            )

    @pytest.mark.parametrize(
        ("pattern", "tz", "late", "is_reported"),
        [
            (FOREIGN, "UTC", timedelta(seconds=30), False),
            (FOREIGN, "UTC", timedelta(seconds=70), True),
            ("5 * * * *", "Mars/Olympus", timedelta(minutes=59), False),
            ("5 * * * *", "Mars/Olympus", timedelta(minutes=61), True),
            ("30 2 * * *", "Mars/Olympus", timedelta(hours=23), False),
            ("30 2 * * *", "Mars/Olympus", timedelta(hours=25), True),
        ],
    )
    async def test_is_reported_when_it_is_late_by_a_period(
        self,
        pattern: str,
        tz: str,
        late: timedelta,
        is_reported: bool,
        office: Office,
        workshop: Any,
        hand: Any,
    ) -> None:
        """Of a time zone that is not known here, the period still is."""
        async with (
            self.foreign(workshop, hand, pattern, tz, late) as job,
            office.working(None) as worker,
        ):
            await workshop.until(office.queue(None), job, "delayed")
            await office.looked()
            assert bool(worker.troubles) is is_reported

    @pytest.mark.parametrize("why", ["paused", "not fetched", "ended", "readable"])
    async def test_is_not_reported_where_something_else_is_the_reason(
        self, why: str, office: Office, workshop: Any, hand: Any
    ) -> None:
        pattern = "5 * * * *" if why == "readable" else FOREIGN
        async with self.foreign(workshop, hand, pattern, "UTC", timedelta(days=2)) as job:
            await workshop.raw.hset(f"{Q}:{job}", "ats", 1)
            if why == "paused":
                await workshop.raw.hset(f"{Q}:meta", "paused", "1")
            if why == "not fetched":  # it waits behind others
                await workshop.raw.hdel(f"{Q}:{job}", "ats")
                await workshop.raw.hset(f"{Q}:meta", "concurrency", "0")
            if why == "ended":  # by its own limit
                await workshop.raw.lrem(f"{Q}:wait", 0, job)
                await workshop.raw.zadd(f"{Q}:completed", {job: 1})
            async with office.working(None) as worker:
                await office.looked()
                assert worker.troubles == {}


async def test_a_queues_damaged_set_of_schedules_is_put_aside_and_made_again(
    office: Office, workshop: Any
) -> None:
    await workshop.raw.set(f"{Q}:repeat", "no set")
    async with office.working(RARELY) as worker:
        made = await workshop.producer(office.queue(None)).enqueue(NAME, {"by_hand": True})
        await workshop.wait_until(lambda: made.id in office.ran, "a job runs")
        await workshop.wait_until(lambda: len(office.ran) == 2, "the schedule runs")
        await workshop.wait_until(lambda: not worker.troubles, "all is well")
    assert await workshop.raw.hkeys(f"corral:{Q}:quarantine") == ["repeat"]
    assert await workshop.raw.get(f"corral:{Q}:quarantine:repeat") == "no set"


async def test_a_damaged_key_of_a_schedule_stops_no_job(office: Office, workshop: Any) -> None:
    key = f"repeat:{NAME}"
    await workshop.raw.set(f"{Q}:{key}", "no hash and no set")
    with capture_logs() as logs:
        async with office.working(RARELY) as worker:
            made = await workshop.producer(office.queue(None)).enqueue(NAME, {"by_hand": True})
            await workshop.wait_until(lambda: made.id in office.ran, "a job runs")
            await workshop.wait_until(lambda: worker.troubles, "it is reported")
            assert f"{Q}:{key} is a string, not a " in worker.troubles[NAME, "schedule"]
            await office.looked()
            assert worker.troubles
            await workshop.raw.delete(f"{Q}:{key}")
            await workshop.wait_until(lambda: not worker.troubles, "the key is repaired")
            assert worker.repaired[NAME] == 1
            await workshop.wait_until(lambda: len(office.ran) == 2, "the schedule runs")
    assert len(events(logs, "schedules cannot be kept")) == 1


class TestTheRecordOfAProcess:
    """What processes write about themselves."""

    async def test_of_a_worker_is_written_again(self, command: Any, workshop: Any) -> None:
        worker = command("worker", "acme-letters", CORRAL_WORKER__STALLED_INTERVAL_SECONDS="0.2")
        records = ProcessRecords(link := Link(workshop.url), "bull")

        async def is_there() -> bool:
            return bool(await records.read_workers())

        await workshop.wait_until(is_there, "it is written")
        await workshop.wait_until(lambda: "worker started" in worker.said, "it works")
        before = await records.read()
        await workshop.raw.flushall()
        await workshop.wait_until(is_there, "it is written again", seconds=10)
        after = await records.read()
        assert before.keys() == after.keys()
        for name, each in after.items():
            assert (each.catalog, each.started_ms) == (
                before[name].catalog,
                before[name].started_ms,
            )
            assert list(json.loads(each.catalog)) == ["acme-letters", "acme-threads"]
        worker.process.terminate()
        assert await asyncio.to_thread(worker.wait) == 0
        assert await records.read() == {}
        await link.close()

    async def test_of_any_process_is_written_again_when_it_is_asked_for_or_in_time(
        self, store_url: str, raw: Any, wait_until: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own = OwnRecord(Link(store_url), "bull", "me", catalog=lambda _: b"{}")
        keeping = asyncio.create_task(own.keep())

        async def is_there() -> bool:
            return bool(await raw.type(PROCESSES) == "hash")

        await wait_until(is_there, "it is written")
        await raw.flushall()
        own.write_soon()
        await wait_until(is_there, "it is written again", seconds=10)
        await raw.delete(PROCESSES)
        await raw.set(PROCESSES, "damaged")
        own.write_soon()
        await wait_until(lambda: not own._is_due.is_set(), "it has tried")
        assert not keeping.done()
        await raw.delete(PROCESSES)
        await wait_until(
            is_there, "it tries again by itself where the store has refused it", seconds=10
        )
        monkeypatch.setattr(processes, "REFRESH_SECONDS", 0.1)
        own.write_soon()
        await raw.flushall()
        await wait_until(is_there, "it is refreshed", seconds=10)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        assert not await is_there(), "a process that ends removes it"
        await own.link.close()


class TestWithoutANextRun:
    """A schedule that was made at run time: no declaration has what its next run needs."""

    @asynccontextmanager
    async def made(self, workshop: Any, hand: Any, late: timedelta) -> AsyncIterator[str]:
        """Such a schedule, whose run waits and was due so long ago."""
        async with hand() as by_hand:
            await by_hand.ensure(RARELY, "rare")
        raw, tick = workshop.raw, int((datetime.now(UTC) - late).timestamp() * 1000)
        (job,) = await raw.lrange(f"{Q}:wait", 0, -1)
        moved = f"repeat:rare:{tick}"
        await raw.rename(f"{Q}:{job}", f"{Q}:{moved}")
        await raw.delete(f"{Q}:wait", f"{Q}:marker")
        await raw.zadd(f"{Q}:repeat", {"rare": tick})
        yield moved
        await raw.flushall()

    async def became(self, case: str, job: str, raw: Any) -> None:
        """Make of the run what a case says."""
        if case.startswith("gone"):
            await raw.delete(f"{Q}:{job}")
        elif case == "ended without one":
            await raw.hset(f"{Q}:{job}", mapping={"ats": 1, "finishedOn": 1})
            await raw.zadd(f"{Q}:completed", {job: 1})
        elif case == "waits behind others":
            await raw.zadd(f"{Q}:delayed", {job: 4_102_444_800_000 * 4096})
        if case == "gone, by its limit":
            await raw.hset(f"{Q}:repeat:rare", mapping={"limit": 3, "ic": 3})
        if case == "gone, by its end":
            await raw.hset(f"{Q}:repeat:rare", "endDate", 4_102_444_800_000)

    @pytest.mark.parametrize(
        ("case", "late", "is_reported"),
        [
            ("gone", timedelta(seconds=70), True),
            ("gone just now", timedelta(seconds=30), False),
            ("gone, by its limit", timedelta(hours=1), False),
            ("gone, by its end", timedelta(hours=1), False),
            ("ended without one", timedelta(hours=1), True),
            ("waits behind others", timedelta(hours=1), False),
        ],
    )
    async def test_is_reported(
        self,
        case: str,
        late: timedelta,
        is_reported: bool,
        office: Office,
        workshop: Any,
        hand: Any,
    ) -> None:
        async with self.made(workshop, hand, late) as job:
            await self.became(case, job, workshop.raw)
            with capture_logs() as logs:
                async with office.working(None) as worker:
                    await office.looked()
                    trouble = worker.troubles.get((NAME, "schedule"), "")
                    assert ("'rare' of queue 'reports' has no next run" in trouble) is is_reported
            assert bool(events(logs, "no next run")) is is_reported
