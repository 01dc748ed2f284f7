"""The summary of a queue is right for jobs of any client, with any contents."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from corral import Job, Queue
from corral.inspector import FailureGroup, JobInspector
from corral.inspector.summary import per_minute
from corral.reasons import generalized_reason
from corral.store.clock import Clock

MINUTE = timedelta(minutes=1)
NOW_MS = 1_700_000_000_000
"""20 s into a minute."""


def at(unix_ms: int) -> datetime:
    return datetime.fromtimestamp(unix_ms / 1000, UTC)


async def read_out(job: Job[Any]) -> str:
    if job.payload.text.startswith("fail"):
        raise ValueError(job.payload.text)
    return job.payload.text


@pytest.mark.asyncio
async def test_an_empty_queue_has_nothing_to_tell(inspect: Callable[..., JobInspector]) -> None:
    (found,) = await inspect().summaries()
    assert found.queue == "letters"
    assert set(found.counts.values()) == {0}
    assert (found.oldest_waiting, found.oldest_active, found.next_due, found.last_failure) == (
        None,
    ) * 4
    assert (found.completed_total, found.failed_total) == (0, 0)
    assert list(found.completed_per_minute) == list(found.failed_per_minute) == [0] * 60
    assert await inspect().failures("letters") == []


@pytest.mark.asyncio
async def test_a_worked_queue_tells_what_waits_and_what_became_of_the_rest(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    jobs = workshop.producer(letters)
    for number in range(3):
        await jobs.enqueue(
            letters, {"text": f"fail {number}\nmore"}, attempts=1, job_id=f"bad{number}"
        )
        await jobs.enqueue(letters, {"text": "well"})
    before = datetime.now(UTC)
    await workshop.burst(letters.processed_by(read_out), concurrency={"letters": 1})
    first = await jobs.enqueue(letters, {"text": "first"})
    await jobs.enqueue(letters, {"text": "urgent"}, priority=1)
    await jobs.enqueue(letters, {"text": "later"}, delay=timedelta(hours=1))
    inspector = inspect()
    await inspector.set_concurrency(letters, 7)
    await inspector.pause(letters)
    found = await inspector.summary(letters)
    assert found.counts == await inspector.counts(letters)
    held = {"waiting": 1, "prioritized": 1, "delayed": 1, "completed": 3, "failed": 3}
    assert found.counts == {**dict.fromkeys(found.counts, 0), **held}
    assert found.limits == await inspector.limits(letters)
    assert (found.limits.paused, found.limits.concurrency) == (True, 7)
    assert found.oldest_waiting == (await inspector.get(letters, first.id)).enqueued_at
    assert found.next_due is not None
    assert timedelta(minutes=59) < found.next_due - datetime.now(UTC) < timedelta(minutes=61)
    assert (found.completed_total, found.failed_total) == (3, 3)
    assert (sum(found.completed_per_minute), sum(found.failed_per_minute)) == (3, 3)
    assert sum(found.completed_per_minute[-2:]) == 3, "the running minute is the last"
    assert found.last_failure is not None
    assert (found.last_failure.job_id, found.last_failure.reason) == ("bad2", "ValueError: fail 2")
    assert found.last_failure.at is not None
    assert before - MINUTE < found.last_failure.at < before + MINUTE
    later = await inspect(clock=Clock(offset_ms=10 * 60_000)).summary(letters)
    assert sum(later.completed_per_minute[-9:]) == 0
    assert sum(later.completed_per_minute[-12:-9]) == 3
    assert (
        await inspect(clock=Clock(offset_ms=70 * 60_000)).summary(letters)
    ).completed_per_minute == [0] * 60
    await inspector.clean(letters, "completed", timedelta(0))
    assert (await inspector.summary(letters)).completed_total == 3


@pytest.mark.asyncio
async def test_waiting_counts_from_when_a_job_was_due_or_was_tried(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    raw, inspector = workshop.raw, inspect()

    async def waits(**fields: Any) -> datetime | None:
        await raw.hset(
            "bull:letters:a",
            mapping={"name": "letters", "data": "{}", "timestamp": NOW_MS, **fields},
        )
        return (await inspector.summary(letters)).oldest_waiting

    await raw.rpush("bull:letters:wait", "a")
    assert await waits() == at(NOW_MS)
    assert await waits(opts=json.dumps({"delay": 5000})) == at(NOW_MS + 5000)
    assert await waits(opts=json.dumps({"backoff": {"delay": 7}})) == at(NOW_MS)
    assert await waits(processedOn=NOW_MS + 9000) == at(NOW_MS + 9000)
    promoted = await waits(opts=json.dumps({"delay": 10**13}))
    assert promoted is not None
    assert abs(promoted - datetime.now(UTC)) < MINUTE, "nobody waits since a time that has not come"
    for odd in ("[", "[]", json.dumps({"delay": "soon"})):
        assert await waits(opts=odd, processedOn="x") == at(NOW_MS)
    assert await waits(timestamp="soon") is None


@pytest.mark.asyncio
@pytest.mark.parametrize("reset", [False, True])
async def test_a_job_that_is_retried_by_hand_waits_since_then(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector], reset: bool
) -> None:
    inspector = inspect()
    await workshop.producer(letters).enqueue(letters, {"text": "fail"}, job_id="bad", attempts=1)
    await workshop.burst(letters.processed_by(read_out))
    await workshop.raw.hset("bull:letters:bad", "timestamp", NOW_MS)
    before = datetime.now(UTC)
    await inspector.retry(letters, "bad", reset=reset)
    found = (await inspector.summary(letters)).oldest_waiting
    assert found is not None
    assert abs(found - before) < timedelta(seconds=10)
    await workshop.raw.delete("bull:letters:events")
    assert (await inspector.summary(letters)).oldest_waiting == at(NOW_MS)


@pytest.mark.asyncio
async def test_a_job_that_is_promoted_by_hand_waits_since_then(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    inspector = inspect()
    await workshop.producer(letters).enqueue(letters, {}, job_id="later", delay=timedelta(days=2))
    await inspector.promote(letters, "later")
    promoted = datetime.now(UTC)
    day_after = inspect(clock=Clock(offset_ms=24 * 3_600_000))
    found = (await day_after.summary(letters)).oldest_waiting
    assert found is not None
    assert abs(found - promoted) < timedelta(seconds=10)


@pytest.mark.asyncio
@pytest.mark.corral_untidy("BullMQ 5 has put jobs aside, and one job is active for ever")
@pytest.mark.parametrize(
    "place", ["the left of wait", "the right of wait", "paused", "the third priority"]
)
async def test_the_oldest_is_found_wherever_it_stands(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector], place: str
) -> None:
    raw, inspector = workshop.raw, inspect()
    for number in range(200):
        await raw.hset(
            f"bull:letters:{number}", mapping={"name": "letters", "timestamp": NOW_MS + 1}
        )
        await raw.lpush("bull:letters:wait", number)
        await raw.hset(
            f"bull:letters:p{number}", mapping={"name": "letters", "timestamp": NOW_MS + 2}
        )
        await raw.zadd(
            "bull:letters:prioritized", {f"p{number}": (1 + number // 50) * 2**32 + number}
        )
    await raw.hset(
        "bull:letters:old", mapping={"name": "letters", "timestamp": NOW_MS, "processedOn": NOW_MS}
    )
    if place == "the third priority":
        await raw.zadd("bull:letters:prioritized", {"old": 3 * 2**32})
    else:
        await raw.lpush("bull:letters:paused" if place == "paused" else "bull:letters:wait", "old")
        if place == "the right of wait":
            await raw.lmove("bull:letters:wait", "bull:letters:wait", "LEFT", "RIGHT")
    found = await inspector.summary(letters)
    assert found.oldest_waiting == at(NOW_MS)
    assert found.counts["waiting"] + found.counts["prioritized"] == 401
    await raw.lpush("bull:letters:active", "old", "17")
    assert (await inspector.summary(letters)).oldest_active == at(NOW_MS)


@pytest.mark.asyncio
@pytest.mark.corral_untidy("odd content is what it is about")
async def test_odd_content_stops_no_summary(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    raw = workshop.raw
    await raw.set("bull:letters:text", "no hash")
    for container in ("wait", "active"):
        await raw.lpush(f"bull:letters:{container}", "ghost", "text", "0:1", b"\xff")
    for container in ("prioritized", "failed"):
        await raw.zadd(
            f"bull:letters:{container}", {"ghost": 2**33 + 1, "text": "inf", b"\xff": -5}
        )
    await raw.zadd("bull:letters:delayed", {"ghost": "inf"})
    await raw.hset("bull:letters:metrics:completed", mapping={"count": "many", "prevTS": "x"})
    await raw.rpush("bull:letters:metrics:failed:data", "x")
    await raw.hset("bull:letters:metrics:failed", mapping={"count": "3", "prevTS": NOW_MS})
    await raw.hset("bull:letters:meta", mapping={"concurrency": "x", "max": "y"})
    await raw.hset(b"bull:letters:\xff", mapping={b"failedReason": b"\xff\n"})
    inspector = inspect()
    found = await inspector.summary(letters)
    assert (found.counts["waiting"], found.counts["active"], found.counts["failed"]) == (4, 4, 3)
    assert (found.completed_total, found.failed_total) == (0, 3)
    assert (found.oldest_waiting, found.oldest_active, found.next_due) == (None, None, None)
    assert found.last_failure is not None
    assert (found.last_failure.job_id, found.last_failure.reason) == ("\ufffd", "\ufffd")
    assert await inspector.failures(letters) == [FailureGroup("\ufffd", 1, at(-5), "\ufffd")]
    assert await inspector.workers()


@pytest.mark.asyncio
async def test_failures_that_are_alike_are_one(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    for number in range(600):
        reason = (
            f"TimeoutError: user {9000 + number} of 10.0.0.{number % 256}:443\nmore"
            if number % 3
            else "KeyError: 'plan'"
        )
        held = {"name": "letters", "failedReason": reason, "data": "{}"}
        await workshop.raw.hset(f"bull:letters:{number}", mapping=held)
        await workshop.raw.zadd("bull:letters:failed", {str(number): NOW_MS + number})
    assert await inspect().failures(letters) == [
        FailureGroup("TimeoutError: user … of …", 334, at(NOW_MS + 599), "599"),
        FailureGroup("KeyError: 'plan'", 166, at(NOW_MS + 597), "597"),
    ]


@pytest.mark.asyncio
async def test_what_node_counts_is_shown_as_what_we_count(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    """As BullMQ leaves it (wire § 6.23): the list ends before the minute of the last finish."""
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    held = {"count": 10, "prevTS": now_ms - 2 * 60_000, "prevCount": 7}
    await workshop.raw.hset("bull:letters:metrics:completed", mapping=held)
    await workshop.raw.rpush("bull:letters:metrics:completed:data", 4, 0, 2, 1)
    found = await inspect().summary(letters)
    counts = [each for each in found.completed_per_minute if each]
    assert (found.completed_total, counts) == (10, [1, 2, 4, 3])
    assert len(found.completed_per_minute) == 60


@pytest.mark.parametrize(
    ("counted", "tail"),
    [
        ((b"1", b"%d" % NOW_MS, b"0", []), [0, 1]),
        ((b"5", b"%d" % NOW_MS, b"3", [b"2", b"0", b"1"]), [0, 1, 0, 2, 2]),
        ((b"5", b"%d" % (NOW_MS - 60_000), b"3", [b"2", b"0", b"1"]), [0, 1, 0, 2, 2, 0]),
        ((b"5", b"%d" % (NOW_MS - 21_000), b"3", [b"2"]), [0, 2, 2, 0]),
        ((b"5", b"%d" % (NOW_MS - 19_000), b"3", [b"2"]), [0, 2, 2]),
        ((b"5", b"%d" % (NOW_MS + 90_000), b"3", [b"2"]), [0, 2, 2]),
        ((b"5", b"%d" % (NOW_MS - 59 * 60_000), b"3", [b"2"]), [2, *[0] * 59]),
        ((b"5", b"%d" % (NOW_MS - 60 * 60_000), b"3", [b"2"]), [0] * 60),
        ((b"5", b"1", b"3", [b"2"]), [0] * 60),
        ((b"100", b"%d" % NOW_MS, b"40", [b"1"] * 60), [*[1] * 59, 60]),
        ((None, None, None, []), [0] * 60),
    ],
)
def test_counts_per_minute_are_laid_against_the_clock(counted: Any, tail: list[int]) -> None:
    total, minutes = per_minute(counted, NOW_MS)
    assert len(minutes) == 60
    assert list(minutes[-len(tail) :]) == tail
    assert total == int(counted[0] or 0)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("KeyError: 'plan'", "KeyError: 'plan'"),
        (
            "HTTPStatusError: 503 from https://api.example.com/v1/users/17?x=1",
            "HTTPStatusError: 503 from …",
        ),
        ("SMTPError: 550 <ada.lovelace@example.com>: unknown", "SMTPError: 550 <…>: unknown"),
        ("SMTPError: 550 5.1.1 user 17", "SMTPError: 550 5.1.1 user …"),
        ("no user 550e8400-e29b-41d4-a716-446655440000", "no user …"),
        ("no job job_0192ab34cd", "no job …"),
        ("connect to 127.0.0.1:6379 after 2.50 s", "connect to … after … s"),
        ("S3Error and Http404 and utf8 and v2", "S3Error and Http404 and utf8 and v2"),
        ("user_42 is gone; 1,000 rows.", "user_… is gone; … rows."),
        ("digest deadbeef01 differs", "digest … differs"),
        ("30s passed", "…s passed"),
        ("", ""),
    ],
)
def test_reasons_are_alike_but_for_ids_numbers_and_addresses(reason: str, expected: str) -> None:
    assert generalized_reason(reason) == expected
