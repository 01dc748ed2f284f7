"""The counts per minute that workers add up, and what is read of them."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from corral import Fail, Job, Payload, Queue
from corral.errors import ConfigurationError, StoreUnavailable
from corral.fleet.minutes import KEPT_MINUTES, Minute, Sums, add_minutes, read_minutes
from corral.job import run_state
from corral.observe.tally import Tally
from corral.outcome import Completed, Failed, LeaseLost
from corral.store.clock import Clock
from corral.store.connection import Link
from corral.testing import job

pytestmark = pytest.mark.asyncio

KEY = "corral:bull:letters:minutes"


class Letter(Payload):
    text: str = ""


@pytest_asyncio.fixture
async def link(store_url: str) -> AsyncIterator[Link]:
    link = Link(store_url)
    yield link
    await link.close()


async def now(link: Link) -> int:
    """This minute, by the store's clock."""
    seconds, _ = await link.call("TIME")
    return int(seconds) // 60


async def test_several_workers_add_to_one_minute(link: Link) -> None:
    minute = await now(link) - 1
    await add_minutes(link, "bull", "letters", {minute: Sums(3, 2, 40, 900, 500)})
    await add_minutes(
        link, "bull", "letters", {minute: Sums(1, 1, 5, 700, 700), minute - 2: Sums(1, 0, 0, 9, 9)}
    )
    found = [each for each in await read_minutes(link, "bull", "letters", 10) if each.jobs]
    assert [
        (each.jobs, each.first_starts, each.wait_ms, each.run_ms, each.longest_run_ms)
        for each in found
    ] == [
        (1, 0, 0, 9, 9),
        (4, 3, 45, 1600, 700),
    ]
    assert [(each.mean_wait_ms, each.mean_run_ms) for each in found] == [(None, 9), (15, 400)]
    assert found[1].at - found[0].at == timedelta(minutes=2)


async def test_minutes_are_a_row_without_gaps_the_newest_last(link: Link) -> None:
    found = await read_minutes(link, "bull", "letters", 3)
    assert len(found) == 3
    assert {later.at - earlier.at for earlier, later in itertools.pairwise(found)} == {
        timedelta(minutes=1)
    }
    assert found[-1] == Minute(found[-1].at)
    assert int(found[-1].at.timestamp()) // 60 in {await now(link), await now(link) - 1}


async def test_a_day_is_kept_and_no_more(link: Link, raw: Any) -> None:
    """A new minute replaces the one a day before it; counts that come a day late are dropped."""
    last = await now(link)
    for start in range(last - 2 * KEPT_MINUTES, last, 480):
        await add_minutes(
            link, "bull", "letters", {start + n: Sums(1, 0, 0, 1, 1) for n in range(480)}
        )
    assert await raw.hlen(KEY) == KEPT_MINUTES
    assert 86_400 <= await raw.ttl(KEY) <= 86_460
    await add_minutes(link, "bull", "letters", {last - KEPT_MINUTES - 5: Sums(7, 0, 0, 7, 7)})
    found = await read_minutes(link, "bull", "letters", KEPT_MINUTES)
    assert {each.jobs for each in found[:-2]} == {1}
    tomorrow = await read_minutes(
        link, "bull", "letters", 60, clock=Clock(offset_ms=86_400_000 * 2)
    )
    assert {each.jobs for each in tomorrow} == {0}, (
        "a place that still holds another day's minute is none of these"
    )


async def test_reading_is_one_command_and_bounded(link: Link, raw: Any) -> None:
    await read_minutes(link, "bull", "letters", KEPT_MINUTES)
    await raw.config_resetstat()
    await read_minutes(link, "bull", "letters", KEPT_MINUTES)
    stats = await raw.info("commandstats")
    assert {
        name: stats[name]["calls"] for name in stats if name in {"cmdstat_evalsha", "cmdstat_hmget"}
    } == {
        "cmdstat_evalsha": 1,
        "cmdstat_hmget": 1,
    }
    for count in (0, KEPT_MINUTES + 1):
        with pytest.raises(ConfigurationError, match="1 to 1440 minutes"):
            await read_minutes(link, "bull", "letters", count)


async def test_what_a_worker_did_is_read_as_it_was(
    workshop: Any, letters: Queue[Any], link: Link
) -> None:
    tally = Tally()
    workshop.plugins = workshop.plugins.with_own(tally)

    async def work(job: Job[Any]) -> None:
        await asyncio.sleep(0.05)
        if job.payload.text == "fail":
            raise Fail("no")

    jobs = workshop.producer(letters)
    for text in ("a", "b", "fail"):
        await jobs.enqueue(letters, letters.payload(text=text))
    await workshop.burst(letters.processed_by(work))
    await tally.write(link, "bull")
    await tally.write(link, "bull")  # nothing was added since
    found = [each for each in await read_minutes(link, "bull", "letters", 5) if each.jobs]
    assert sum(each.jobs for each in found) == sum(each.first_starts for each in found) == 3
    assert 150 <= sum(each.run_ms for each in found) < 3000
    assert 50 <= max(each.longest_run_ms for each in found) < 1000
    assert tally.queues["letters"].outcomes == {Completed: 2, Failed: 1}
    assert sum(tally.queues["letters"].duration.counts) == 3


async def test_only_a_first_start_counts_as_a_wait(letters: Queue[Any]) -> None:
    """Nothing records since when a job that is tried again has been waiting."""
    tally = Tally()
    made = job(letters, letters.payload(text=""))
    first = _at(made, scheduled_ms=1_000_000, processed_ms=1_004_000, starts=1, seconds=0.5)
    tally.corral_job_ended(first, Completed())
    tally.corral_job_ended(
        _at(made, scheduled_ms=0, processed_ms=1_030_000, starts=2, seconds=70), Completed()
    )
    tally.corral_job_ended(
        _at(made, scheduled_ms=9_000_000, processed_ms=1_005_000, starts=1, seconds=0), Completed()
    )
    tally.corral_job_ended(first, LeaseLost())
    worked = tally.queues["letters"]
    assert worked.minutes == {16: Sums(2, 2, 4000, 500, 500), 18: Sums(1, 0, 0, 70_000, 70_000)}
    assert worked.wait.seconds == 4.0
    assert worked.outcomes == {Completed: 3, LeaseLost: 1}


async def test_what_the_store_refused_is_written_later_and_what_is_uncertain_is_not(
    letters: Queue[Any],
) -> None:
    class Away(Link):
        outcome: Any = "refused"

        async def call(self, *_: Any, **__: Any) -> Any:
            raise StoreUnavailable("away", outcome=self.outcome)

    tally, away = Tally(), Away("unix:///nowhere")
    run = _at(
        job(letters, letters.payload()), scheduled_ms=0, processed_ms=60_000, starts=1, seconds=0
    )
    tally.corral_job_ended(run, Completed())
    with pytest.raises(StoreUnavailable):
        await tally.write(away, "bull")
    tally.corral_job_ended(run, Completed())
    assert tally.queues["letters"].minutes[1].jobs == 2
    away.outcome = "unknown"
    with pytest.raises(StoreUnavailable):
        await tally.write(away, "bull")
    assert tally.queues["letters"].minutes == {}


def _at(made: Job[Any], *, starts: int, seconds: float, **times: int) -> Job[Any]:
    run = dataclasses.replace(run_state(made), seconds=seconds, **times)
    return dataclasses.replace(made, starts=starts, _run=run)
