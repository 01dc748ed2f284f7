"""The timeline of a job, built from its own fields and from the queue's events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from corral import Fixed, Job, Queue, Snooze
from corral.inspector import JobInspector, StoredJob, TimelineEntry
from corral.inspector.stored_job import decode_stored
from corral.inspector.timeline import JobEvent, build_timeline

AGAIN = ["waiting", "active", "attempt-failed"]


async def fail(job: Job[Any]) -> None:
    raise ValueError(f"no {job.attempt}")


def whats(found: Sequence[TimelineEntry]) -> list[str]:
    """The entries' names; in brackets those without a time."""
    return [each.what if each.at else f"({each.what})" for each in found]


@pytest.mark.asyncio
async def test_three_failed_attempts_are_shown_with_their_times_and_traces(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    jobs = workshop.producer(letters)
    await jobs.enqueue(
        letters, {}, job_id="bad", attempts=3, backoff=Fixed(timedelta(milliseconds=20))
    )
    async with workshop.working(letters.processed_by(fail), name="reader-1"):
        await workshop.until(letters, "bad", "failed")
    inspector = inspect()
    found = await inspector.timeline(letters, await inspector.get(letters, "bad"))
    assert whats(found) == ["added", *AGAIN, "delayed", *AGAIN, "delayed", *AGAIN, "failed"]
    times = [each.at for each in found]
    assert times == sorted(times)
    failed = [each for each in found if each.what == "attempt-failed"]
    assert [each.detail for each in failed] == [
        f"attempt {each} of 3: ValueError: no {each}" for each in (1, 2, 3)
    ]
    assert ["no 1" in failed[0].trace, "no 2" in failed[1].trace, "no 3" in failed[2].trace] == [
        True,
        True,
        True,
    ]
    assert [each.trace for each in found if each.what != "attempt-failed"] == [None] * 10
    assert found[4].detail.startswith("until 20")
    assert f"until {found[4].due:%Y-%m-%d %H:%M:%S} UTC" == found[4].detail
    assert [each.due is None for each in found].count(False) == whats(found).count("delayed")


@pytest.mark.asyncio
@pytest.mark.parametrize("others", [50, 3000], ids=["a few", "many"])
async def test_the_beginning_and_the_end_of_a_job_in_a_busy_queue_are_shown(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector], others: int
) -> None:
    """Events are read from both ends of a job's life; times in between are not guessed."""
    jobs, inspector = workshop.producer(letters), inspect()
    policy: Any = {"attempts": 4, "backoff": Fixed(timedelta(0))}

    async def crowd(_job: Job[Any]) -> None:
        async with workshop.raw.pipeline(transaction=False) as noise:
            for number in range(others):
                noise.xadd("bull:letters:events", {"event": "added", "jobId": f"other{number}"})
            await noise.execute()

    async def busy(job: Job[Any]) -> None:
        if job.attempt in {2, 3}:
            await crowd(job)
        await fail(job)

    await jobs.enqueue(letters, {}, job_id="bad", **policy)
    async with workshop.working(letters.processed_by(busy), name="reader-1"):
        await workshop.until(letters, "bad", "failed")
    found = await inspector.timeline(letters, await inspector.get(letters, "bad"))
    known = (
        [*AGAIN, *AGAIN, *AGAIN]
        if others < 1000
        else [*AGAIN, *AGAIN[:2], "(attempt-failed)", "attempt-failed"]
    )
    assert whats(found) == ["added", *known, *AGAIN, "failed"]
    assert [each.detail[:12] for each in found if each.trace] == [
        f"attempt {each} of" for each in (1, 2, 3, 4)
    ]


@pytest.mark.asyncio
async def test_where_the_log_is_gone_the_job_tells_what_it_knows(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    jobs, inspector = workshop.producer(letters), inspect()
    for job_id, state in (("bad", "failed"), ("well", "completed")):
        await jobs.enqueue(letters, {}, job_id=job_id, attempts=2, backoff=Fixed(timedelta(0)))

        async def once(job: Job[Any]) -> None:
            if job.id == "bad" or job.attempt == 1:
                await fail(job)

        async with workshop.working(letters.processed_by(once), name=f"reader-{job_id}"):
            await workshop.until(letters, job_id, state)
    await jobs.enqueue(letters, {}, job_id="later", delay=timedelta(hours=1))
    await jobs.enqueue(letters, {}, job_id="new")
    await workshop.raw.delete("bull:letters:events")

    async def story(job_id: str) -> Sequence[TimelineEntry]:
        return await inspector.timeline(letters, await inspector.get(letters, job_id))

    bad = await story("bad")
    assert whats(bad) == ["added", "(attempt-failed)", "active", "attempt-failed", "failed"]
    assert bad[-1].detail == "ValueError: no 2"
    assert bad[2].detail == "by reader-bad"
    assert whats(await story("well")) == ["added", "(attempt-failed)", "active", "completed"]
    assert whats(later := await story("later")) == ["added", "(delayed)"]
    assert later[-1].detail.startswith("until 20")
    assert later[-1].due == (await inspector.get(letters, "later")).due_at
    assert whats(await story("new")) == ["added"]


@pytest.mark.asyncio
async def test_postponed_starts_are_no_failed_attempts(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    """The events do not distinguish them: which of the starts failed is not guessed."""

    async def snoozes(job: Job[Any]) -> None:
        if job.starts in {1, 3}:
            raise Snooze(after=timedelta(milliseconds=5))
        await fail(job)

    jobs, inspector = workshop.producer(letters), inspect()
    await jobs.enqueue(letters, {}, job_id="bad", attempts=2, backoff=Fixed(timedelta(0)))
    async with workshop.working(letters.processed_by(snoozes)):
        await workshop.until(letters, "bad", "failed")
    found = await inspector.timeline(letters, await inspector.get(letters, "bad"))
    assert [each for each in whats(found) if "attempt" in each] == [
        "(attempt-failed)",
        "attempt-failed",
    ]
    assert whats(found)[-4:] == ["(attempt-failed)", "active", "attempt-failed", "failed"]
    assert whats(found).count("active") == 4


@pytest.mark.asyncio
async def test_a_job_that_was_retried_by_hand_tells_all_of_its_attempts(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    jobs, inspector = workshop.producer(letters), inspect()
    await jobs.enqueue(letters, {}, job_id="bad", attempts=1)
    for reset in (False, True, False):
        await workshop.burst(letters.processed_by(fail))
        await inspector.retry(letters, "bad", reset=reset)
    found = await inspector.timeline(letters, await inspector.get(letters, "bad"))
    assert whats(found) == ["added", *[*AGAIN, "failed"] * 3, "waiting"]
    assert found[-1].detail == "it was retried by hand"
    assert len([each for each in found if each.trace]) == 3


@pytest.mark.asyncio
async def test_an_attempt_that_never_ran_has_no_trace_of_another(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    jobs, inspector = workshop.producer(letters), inspect()
    await jobs.enqueue(letters, {}, job_id="bad", attempts=3, backoff=Fixed(timedelta(hours=1)))
    async with workshop.working(letters.processed_by(fail)):
        await workshop.until(letters, "bad", "delayed")
    await workshop.raw.hset("bull:letters:bad", "data", "[")
    await inspector.promote(letters, "bad")
    await workshop.burst(letters.processed_by(fail))
    found = await inspector.timeline(letters, await inspector.get(letters, "bad"))
    first, second = (each for each in found if each.what == "attempt-failed")
    assert first.detail == "attempt 1 of 3: ValueError: no 1"
    assert "no 1" in (first.trace or "")
    assert second.detail.startswith("attempt 2 of 3: payload refused")
    assert second.trace is None


@pytest.mark.asyncio
async def test_what_another_job_of_that_id_did_is_not_shown(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    jobs, inspector = workshop.producer(letters), inspect()
    await jobs.enqueue(letters, {}, job_id="same")
    await inspector.remove(letters, "same")
    await jobs.enqueue(letters, {}, job_id="same", priority=1)
    found = await inspector.timeline(letters, await inspector.get(letters, "same"))
    assert whats(found) == ["added", "waiting"]


@pytest.mark.asyncio
@pytest.mark.corral_untidy("odd content is what it is about")
async def test_odd_content_stops_no_story(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    odd = {
        "timestamp": "soon",
        "atm": "1e9",
        "ats": "-3",
        "stacktrace": '[1, null, "x"]',
        "opts": '{"attempts": 1e400}',
    }
    await workshop.raw.hset(
        "bull:letters:odd", mapping={**odd, "failedReason": "\n", "delay": "-1e299"}
    )
    await workshop.raw.zadd("bull:letters:failed", {"odd": 1})
    for fields in (
        {"event": "failed", "jobId": "odd"},
        {"jobId": "odd"},
        {"event": "delayed", "jobId": "odd", "delay": "x"},
    ):
        await workshop.raw.xadd("bull:letters:events", fields)
    inspector = inspect()
    assert await inspector.timeline(letters, await inspector.get(letters, "odd"))


T0 = datetime(2030, 1, 1, tzinfo=UTC)


def stored(**fields: Any) -> StoredJob:
    flat = [str(each).encode() for pair in fields.items() for each in pair]
    state = fields.pop("state", "failed")
    return decode_stored("letters", "1", state, flat)


def events(*names: str) -> list[JobEvent]:
    """`waiting<active` is the event `waiting` of a job that was active before."""
    parts = [name.partition("<") for name in names]
    return [
        JobEvent(T0 + timedelta(seconds=place), what, before, None, "")
        for place, (what, _, before) in enumerate(parts)
    ]


@pytest.mark.parametrize(
    ("job", "log", "gap", "found"),
    [
        pytest.param(
            {"atm": 1, "ats": 2, "stc": 1},
            ["added", "waiting", "active", "waiting<active", "stalled", "active", "failed"],
            -1,
            [
                "added",
                "waiting",
                "active",
                "waiting",
                "stalled",
                "active",
                "attempt-failed",
                "failed",
            ],
            id="a stall is no failed attempt",
        ),
        pytest.param(
            {"atm": 3, "ats": 3},
            ["active", "failed"],
            -1,
            [
                "(added)",
                "(attempt-failed)",
                "(attempt-failed)",
                "active",
                "attempt-failed",
                "failed",
            ],
            id="the log has lost the beginning",
        ),
        pytest.param(
            {"atm": 4, "ats": 4},
            ["added", "waiting", "active", "waiting<active", "waiting<active", "active", "failed"],
            4,
            [
                *("added", "waiting", "active", "attempt-failed", "waiting", "(attempt-failed)"),
                *("attempt-failed", "waiting", "active", "attempt-failed", "failed"),
            ],
            id="some of the middle was not looked at",
        ),
        pytest.param(
            {"atm": 1, "ats": 2, "state": "active"},
            ["added", "waiting", "active", "delayed", "waiting<delayed", "active", "progress"],
            -1,
            ["added", "waiting", "active", "attempt-failed", "delayed", "waiting", "active"],
            id="the second attempt runs",
        ),
        pytest.param(
            {"atm": 1, "ats": 1, "state": "completed"},
            ["added", "delayed", "delayed", "waiting<delayed", "active", "completed"],
            -1,
            ["added", "delayed", "delayed", "waiting", "active", "completed"],
            id="a delay that was changed is no failed attempt",
        ),
    ],
)
def test_what_ended_each_attempt_is_read_from_the_log(
    job: dict[str, Any], log: list[str], gap: int, found: list[str]
) -> None:
    assert whats(build_timeline(stored(**job), events(*log), gap)) == found
