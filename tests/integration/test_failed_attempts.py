"""Jobs that fail their attempts are seen before they are given up: how many, why, and since when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import pytest
import pytest_asyncio
from pydantic import Field

from corral import Fail, Fixed, Job, Payload, Queue, RateLimited, Retention, Retry, Snooze
from corral.inspector import JobInspector, Retrying
from corral.observe.metrics import StoreMetrics, render
from corral.outcome import Completed, Failed, Outcome, Retried, Snoozed
from corral.store.clock import Clock
from corral.store.codec import Ending, FetchedJob
from corral.store.connection import Link
from corral.store.queue_store import QueueStore

pytestmark = pytest.mark.asyncio

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
LATER = Fixed(delay=timedelta(hours=1))
OWN = "corral:bull:letters:"


class Secretive(Payload):
    text: str = ""
    code: Annotated[str, Field(json_schema_extra={"writeOnly": True})] = ""


async def process(job: Job[Any]) -> None:
    """Do what the payload says."""
    match job.payload.text:
        case "snooze":
            raise Snooze(after=timedelta(hours=1))
        case "limit":
            raise RateLimited(after=timedelta(milliseconds=1))
        case "retry":
            raise Retry("not yet", after=timedelta(hours=2))
        case "give up":
            raise Fail("no")
        case text if text.startswith("fail"):
            raise ConnectionError(text)
        case _:
            pass


class Hand:
    """A worker by hand, in moved time.

    Attributes:
        clock: What is added to the store's time.
        inspector: Looks at the queue at that time.
    """

    def __init__(self, url: str, inspect: Callable[..., JobInspector]) -> None:
        self.clock = Clock()
        self.inspector = inspect(clock=self.clock)
        self._link = Link(url)
        self._store = QueueStore(self._link, "bull", "letters", clock=self.clock)
        self._seq = 0

    async def fetch(self, want: int = 1) -> list[FetchedJob]:
        self._seq += 1
        return list((await self._store.advance("hand", self._seq, [], want)).jobs)

    async def end(self, *endings: tuple[FetchedJob, Outcome]) -> None:
        self._seq += 1
        written = [Ending(job, outcome) for job, outcome in endings]
        reply = await self._store.advance("hand", self._seq, written, 0)
        assert set(reply.codes) <= {0}

    async def run(self, outcome: Outcome, jobs: int = 1) -> None:
        """Fetch so many jobs and end all of them so."""
        fetched = await self.fetch(jobs)
        assert len(fetched) == jobs
        await self.end(*((job, outcome) for job in fetched))

    async def close(self) -> None:
        await self._link.close()


@pytest_asyncio.fixture
async def hand(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> AsyncIterator[Hand]:
    made = Hand(workshop.url, inspect)
    yield made
    await made.close()


async def test_only_jobs_that_failed_an_attempt_are_retrying(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    jobs, inspector = workshop.producer(letters), inspect()
    for text in ("fail", "retry", "snooze", "well"):
        await jobs.enqueue(letters, {"text": text}, job_id=text, backoff=LATER)
    await jobs.enqueue(letters, {"text": "fail"}, job_id="later", delay=timedelta(minutes=1))
    await jobs.enqueue(letters, {"text": "give up"}, job_id="over")
    await workshop.burst(letters.processed_by(process))
    summary = await inspector.summary(letters)
    assert summary.counts["delayed"] == 4
    assert summary.retrying == Retrying(2)
    page = await inspector.list_retrying(letters)
    assert [each.id for each in page.jobs] == ["fail", "retry"], "what is due first comes first"
    assert (page.total, page.start, page.is_bound) == (2, 0, False)
    assert [each.id for each in (await inspector.list_retrying(letters, start=1)).jobs] == ["retry"]
    assert (await inspector.list_retrying(letters, start=2)).jobs == []
    assert (await inspector.sizes(letters)).retrying == Retrying(2)


async def test_a_job_that_failed_and_is_snoozed_then_is_retrying_and_one_that_was_limited_is_not(
    workshop: Any, letters: Queue[Any], hand: Hand
) -> None:
    jobs = workshop.producer(letters)
    await jobs.enqueue(letters, {}, attempts=9, job_id="both")
    await hand.run(Retried("ValueError: no", 0))
    await hand.run(Snoozed(MINUTE_MS))
    await jobs.enqueue(letters, {"text": "limit"}, job_id="limited", delay=timedelta(hours=1))
    await workshop.raw.hset("bull:letters:limited", mapping={"ats": 3, "stc": 1})
    found = await hand.inspector.summary(letters)
    assert (found.counts["delayed"], found.retrying) == (2, Retrying(1))
    assert found.failed_attempts_total == 1


async def test_a_job_that_was_retried_by_hand_has_no_failed_attempt_until_the_next_one(
    workshop: Any, letters: Queue[Any], hand: Hand
) -> None:
    job = await workshop.producer(letters).enqueue(letters, {}, attempts=2)
    await hand.run(Failed("ValueError: no"))
    await hand.inspector.retry(letters, job.id)
    await hand.run(Snoozed(MINUTE_MS))
    assert (await hand.inspector.summary(letters)).retrying == Retrying(0)


@pytest.mark.corral_untidy("its jobs are written by hand")
async def test_beyond_2_000_delayed_jobs_the_count_is_a_lower_bound(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector], store_url: str
) -> None:
    async with workshop.raw.pipeline() as writing:
        for n in range(2_001):
            fields = {"name": "letters", "data": "{}", "opts": "{}", "timestamp": 1}
            if n % 2 == 0:
                fields |= {"atm": 1, "failedReason": "ValueError: no"}
            writing.hset(f"bull:letters:j{n}", mapping=fields)
            writing.zadd("bull:letters:delayed", {f"j{n}": (10**12 + n) * 4096})
        await writing.execute()
    inspector = inspect()
    found = (await inspector.summary(letters)).retrying
    assert (found, str(found)) == (Retrying(1_000, is_bound=True), "≥ 1000")
    page = await inspector.list_retrying(letters, start=990, limit=20)
    assert ([each.id for each in page.jobs][-1], len(page.jobs)) == ("j1998", 10)
    assert (page.total, page.is_bound) == (1_000, True)
    await workshop.raw.zrem("bull:letters:delayed", "j2000")
    assert (await inspector.summary(letters)).retrying == Retrying(1_000)
    await workshop.raw.delete("bull:letters:j0")
    await workshop.raw.set("bull:letters:j2", "no hash")
    assert (await inspector.summary(letters)).retrying == Retrying(998)


@pytest.mark.usefixtures("path")
async def test_reasons_are_counted_without_ids_and_numbers(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    jobs = workshop.producer(letters)
    texts = [f"fail {n}: ada{n}@example.org\nmore" for n in range(7)]
    await jobs.enqueue_many(letters, [{"text": text} for text in texts], backoff=LATER)
    await jobs.enqueue(letters, {"text": "give up"}, job_id="over")
    await jobs.enqueue(letters, {"text": "well"})
    before = datetime.now(UTC)
    await workshop.burst(letters.processed_by(process), concurrency={"letters": 1})
    found = await inspect().summary(letters)
    many, one = found.attempt_failures
    assert (many.reason, many.count, many.series) == ("ConnectionError: fail …: …", 7, 7)
    assert (one.reason, one.count, one.last_job_id) == ("Fail: no", 1, "over")
    assert many.since is not None
    assert many.last_at is not None
    assert before - timedelta(seconds=2) < many.since <= many.last_at < datetime.now(UTC)
    assert (many.completed_since, one.completed_since) == (1, 1)
    assert found.failed_attempts_total == sum(found.failed_attempts_per_minute) == 8
    assert (found.failed_total, found.completed_total) == (1, 1)


async def test_no_secret_is_in_a_reason(
    workshop: Any, inspect: Callable[..., JobInspector]
) -> None:
    queue = Queue("letters", Secretive)

    async def quote(job: Job[Secretive]) -> None:
        raise ValueError(f"{job.payload.code} was refused")

    jobs = workshop.producer(queue)
    await jobs.enqueue(queue, {"code": "open sesame please"}, backoff=LATER)
    await workshop.burst(queue.processed_by(quote))
    keys = [key async for key in workshop.raw.scan_iter(f"{OWN}reasons:*")]
    kept = json.dumps([await workshop.raw.hgetall(key) for key in keys])
    assert "was refused" in kept
    assert "sesame" not in kept


@pytest.mark.usefixtures("path")
async def test_a_series_ends_when_others_complete_and_it_is_quiet(
    workshop: Any, letters: Queue[Any], hand: Hand
) -> None:
    jobs = workshop.producer(letters)

    async def look() -> tuple[int, int, int]:
        (found,) = (await hand.inspector.summary(letters)).attempt_failures
        assert found.since is not None
        minutes = (found.since.timestamp() * 1000 - start_ms) / MINUTE_MS
        return found.count, found.series, round(minutes)

    start_ms = datetime.now(UTC).timestamp() * 1000
    failed = Retried("ValueError: no", 9 * HOUR_MS)
    await jobs.enqueue_many(letters, [{}] * 20, attempts=99)
    await hand.run(failed)
    hand.clock.offset_ms = 10 * MINUTE_MS
    await hand.run(failed, 3)
    assert await look() == (4, 4, 0), "nothing has completed in between"
    await hand.run(Completed())
    hand.clock.offset_ms += MINUTE_MS // 2
    await hand.run(failed)
    assert await look() == (5, 5, 0), "and hardly any time has passed"
    await hand.run(Completed())
    hand.clock.offset_ms = 20 * MINUTE_MS
    await hand.run(failed)
    count, series, since = await look()
    assert (count, series, since) == (6, 1, 20), "a new series"
    hand.clock.offset_ms = 20 * MINUTE_MS + 9 * HOUR_MS
    assert (await hand.inspector.summary(letters)).attempt_failures == []


async def test_a_job_that_fails_again_goes_on_with_its_series_whatever_completes(
    workshop: Any, letters: Queue[Any], hand: Hand
) -> None:
    jobs = workshop.producer(letters)
    await jobs.enqueue(letters, {}, attempts=99, job_id="ill")
    for minutes in (0, 5, 20, 50, 100, 155):
        hand.clock.offset_ms = minutes * MINUTE_MS
        await jobs.enqueue(letters, {})
        ill, well = await hand.fetch(2)
        assert ill.id == "ill"
        await hand.end((well, Completed()))
        await hand.end((ill, Retried("ValueError: no", 0)))
    (found,) = (await hand.inspector.summary(letters)).attempt_failures
    assert found.series == 6, "over three hours of the clock, at least"
    assert found.since is not None
    assert found.last_at is not None
    assert (found.last_at - found.since) > timedelta(minutes=154)


@pytest.mark.usefixtures("path")
async def test_the_50_most_frequent_reasons_of_an_hour_are_kept(
    workshop: Any, letters: Queue[Any], hand: Hand
) -> None:
    jobs = workshop.producer(letters)
    await jobs.enqueue_many(letters, [{}] * 200, attempts=1)
    words = [f"{a}{b}" for a in "abcdefghijklmno" for b in "abcdefghijklmno"]
    fetched = await hand.fetch(200)
    for n, word in enumerate(words[:150]):
        endings = [(fetched.pop(), Failed(f"ValueError: {word}"))]
        if n % 3 == 0:  # it comes between the others, and is the most frequent one
            endings.append((fetched.pop(), Failed("ValueError: the outage")))
        await hand.end(*endings)
    found = await hand.inspector.summary(letters)
    (key, *_) = [key async for key in workshop.raw.scan_iter(f"{OWN}reasons:*")]
    held = await workshop.raw.hgetall(key)
    assert len(held) == 51
    assert len(found.attempt_failures) == 50
    assert (found.attempt_failures[0].reason, found.attempt_failures[0].count) == (
        "ValueError: the outage",
        50,
    )
    kept = sum(each.count for each in found.attempt_failures)
    assert kept + int(held[""]) == found.failed_attempts_total == 200
    assert 0 < await workshop.raw.pttl(key) <= 2 * HOUR_MS
    for name in ("attempts", "attempts:data"):
        left = await workshop.raw.pttl(f"{OWN}{name}")
        assert left == -2 or 0 < left <= 14 * 24 * HOUR_MS


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("name", ["attempts", "attempts:data", "reasons"])
async def test_a_record_of_the_wrong_type_fails_no_ending_and_no_page(
    workshop: Any, letters: Queue[Any], hand: Hand, name: str
) -> None:
    jobs = workshop.producer(letters)
    await jobs.enqueue_many(letters, [{}] * 4, attempts=1)
    await hand.run(Failed("ValueError: no"))
    seconds, _ = await workshop.raw.time()
    key = f"{OWN}{name}:{seconds // 3600}" if name == "reasons" else f"{OWN}{name}"
    await workshop.raw.delete(key)
    await workshop.raw.set(key, "not this type")
    hand.clock.offset_ms = 2 * MINUTE_MS if name != "reasons" else 0
    await hand.run(Failed("ValueError: no"))
    await hand.inspector.summary(letters)
    await hand.run(Failed("ValueError: no"))
    found = await hand.inspector.summary(letters)
    assert found.counts["failed"] == 3
    assert found.failed_attempts_total > 0
    assert found.attempt_failures[0].reason == "ValueError: no"


async def test_without_a_record_a_page_shows_what_it_has(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    """As with workers of other clients, and of former releases, which write none."""
    await workshop.producer(letters).enqueue(letters, {"text": "fail"}, backoff=LATER)
    await workshop.burst(letters.processed_by(process))
    async for key in workshop.raw.scan_iter(f"{OWN}*"):
        await workshop.raw.delete(key)
    found = await inspect().summary(letters)
    assert found.retrying == Retrying(1)
    assert (found.failed_attempts_total, list(found.attempt_failures)) == (0, [])
    assert list(found.failed_attempts_per_minute) == [0] * 60


async def test_a_job_that_completes_writes_no_record(workshop: Any, letters: Queue[Any]) -> None:
    await workshop.producer(letters).enqueue_many(letters, [{}] * 30)
    await workshop.burst(letters.processed_by(process))
    assert [key async for key in workshop.raw.scan_iter(f"{OWN}attempts*")] == []
    assert [key async for key in workshop.raw.scan_iter(f"{OWN}reasons*")] == []


@pytest.mark.parametrize("by", ["text", "function", "reason", "event"])
async def test_a_scrub_deletes_the_reasons_of_its_queue(
    workshop: Any, letters: Queue[Any], hand: Hand, by: str
) -> None:
    jobs = workshop.producer(letters)
    keep = Retention(count=0) if by == "reason" else None
    await jobs.enqueue(letters, {"text": "of ada"}, attempts=1, keep_failed=keep)
    await hand.run(Failed("LookupError: nobody is called ada"))
    if by == "reason":
        await workshop.raw.delete("bull:letters:events")
    inspector = hand.inspector
    assert await inspector.scrub(letters, "grace") == 0
    assert await inspector.scrub_events(letters, lambda text: "grace" in text) == 0
    assert len((await inspector.summary(letters)).attempt_failures) == 1, "nothing is about grace"
    match by:
        case "text":
            assert await inspector.scrub(letters, "of ada") == 1
        case "function":
            assert await inspector.scrub(letters, lambda job: "ada" in str(job.data)) == 1
        case "reason":
            assert await inspector.scrub_events(letters, lambda text: "ada" in text) == 0
        case _:
            assert await inspector.scrub_events(letters, lambda text: "ada" in text) == 1
    found = await inspector.summary(letters)
    assert list(found.attempt_failures) == []
    assert found.failed_attempts_total == 1, "how many there were is not about anybody"


async def test_metrics_count_retrying_jobs_and_failed_attempts(
    workshop: Any, letters: Queue[Any], hand: Hand, inspect: Callable[..., JobInspector]
) -> None:
    jobs = workshop.producer(letters)
    await jobs.enqueue_many(letters, [{}] * 5, attempts=3)
    await hand.run(Retried("ValueError: no", HOUR_MS), 3)
    await hand.run(Failed("ValueError: no"))
    await hand.run(Completed())
    store = StoreMetrics(["letters"], url=workshop.url, prefix="bull")
    text = (await asyncio.to_thread(render, store)).decode()
    store.close()
    assert 'corral_retrying_jobs{queue="letters"} 3.0' in text
    assert 'corral_failed_attempts_total{queue="letters"} 4.0' in text
    assert 'bullmq_failed_jobs_total{queue="letters"} 1.0' in text
