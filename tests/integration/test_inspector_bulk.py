"""Operations of `JobInspector` on many jobs.

They work in batches, change each job as the operation on one job does, and change no other job.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from corral import Job, Queue, Retention
from corral.errors import ConfigurationError
from corral.inspector import JobInspector, StoredJob
from corral.store.clock import Clock

pytestmark = pytest.mark.asyncio

BATCH = 500
NOTHING = timedelta(0)
MANY = 5_200
"""More than ten batches."""


async def failed(
    workshop: Any, count: int, reason: str = "no", *, at_ms: int = 1000, name: str = "j"
) -> None:
    """Failed jobs as a worker leaves them: fifty end in each millisecond."""
    async with workshop.raw.pipeline(transaction=False) as writing:
        for number in range(count):
            job = f"{name}{number:05}"
            fields = {
                "name": "letters",
                "data": "{}",
                "opts": '{"attempts":1}',
                "timestamp": 1,
                "priority": number % 3,
            }
            writing.hset(
                f"bull:letters:{job}",
                mapping={**fields, "failedReason": reason, "finishedOn": at_ms},
            )
            writing.zadd("bull:letters:failed", {job: at_ms + number // 50})
        await writing.execute()


class Heard:
    """Collects the reports of progress."""

    def __init__(self) -> None:
        self.reports: list[tuple[int, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.reports.append((done, total))

    def assert_batches(self, total: int) -> None:
        """Check that no report skips more than a batch, and that the last one is at the end."""
        done = [0, *(done for done, _ in self.reports)]
        assert max(after - before for before, after in pairwise(done)) <= BATCH
        assert self.reports[-1] == (total, total)


async def test_thousands_of_failed_jobs_wait_again_in_batches(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    """Each job is placed by its priority, in the order in which the jobs failed."""
    await failed(workshop, MANY)
    heard = Heard()
    assert await inspect().retry_all_failed(letters, on_progress=heard) == MANY
    heard.assert_batches(MANY)
    plain = [f"j{number:05}" for number in range(MANY) if number % 3 == 0]
    assert await workshop.raw.lrange("bull:letters:wait", 0, -1) == plain[::-1]
    urgent = [f"j{number:05}" for priority in (1, 2) for number in range(priority, MANY, 3)]
    assert await workshop.raw.zrange("bull:letters:prioritized", 0, -1) == urgent
    assert await workshop.raw.zcard("bull:letters:failed") == 0
    assert set(await workshop.hash(letters, "j00000")) == {
        "name",
        "data",
        "opts",
        "timestamp",
        "priority",
    }
    assert await workshop.raw.zrange("bull:letters:marker", 0, -1) == ["0"]


async def test_only_jobs_whose_payload_was_refused_are_retried(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    """However many other jobs lie between them, also in the same millisecond."""
    await failed(workshop, 1200, "TypeError: not this one", name="other")
    await failed(workshop, 700, "payload refused: to: Field required", at_ms=1010, name="refused")
    await failed(
        workshop, 300, "ValueError: payload refused: by the processor", at_ms=1012, name="late"
    )
    heard = Heard()
    assert await inspect().retry_refused(letters, on_progress=heard) == 700
    heard.assert_batches(2200)
    left = await workshop.raw.zrange("bull:letters:failed", 0, -1)
    assert len(left) == 1500
    assert not any(job.startswith("refused") for job in left)


async def test_an_id_without_a_job_is_not_put_back(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    await failed(workshop, 3)
    await workshop.raw.zadd("bull:letters:failed", {"ghost": 1000})
    assert await inspect().retry_all_failed(letters) == 3


async def test_thousands_of_delayed_jobs_are_promoted(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    jobs = workshop.producer(letters)
    await jobs.enqueue_many(letters, [{} for _ in range(1200)], delay=timedelta(days=1))
    heard = Heard()
    assert await inspect().promote_all(letters, on_progress=heard) == 1200
    heard.assert_batches(1200)
    counts = await inspect().counts(letters)
    assert (counts["waiting"], counts["delayed"]) == (1200, 0)


async def test_clean_removes_thousands_in_batches_or_as_many_as_asked(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    await failed(workshop, MANY)
    inspector = inspect()
    assert await inspector.clean(letters, "failed", NOTHING, limit=700) == 700
    assert await workshop.raw.zrange("bull:letters:failed", 0, 0) == ["j00700"], (
        "the oldest went first"
    )
    heard = Heard()
    assert await inspector.clean(letters, "failed", NOTHING, on_progress=heard) == MANY - 700
    heard.assert_batches(MANY - 700)
    assert await workshop.raw.keys("bull:letters:j*") == []
    cleaned = [
        int(event["count"])
        for event in await workshop.events(letters)
        if event["event"] == "cleaned"
    ]
    assert (sum(cleaned), max(cleaned)) == (MANY, BATCH)


async def test_clean_takes_age_from_the_stores_time(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    async def fails(_job: Job[Any]) -> None:
        raise ValueError

    await workshop.producer(letters).enqueue(letters, {}, job_id="bad", attempts=1)
    await workshop.burst(letters.processed_by(fails))
    week, day = timedelta(days=7), 86_400_000
    assert await inspect().clean(letters, "failed", week) == 0
    assert await inspect(clock=Clock(6 * day)).clean(letters, "failed", week) == 0
    assert await inspect(clock=Clock(8 * day)).clean(letters, "failed", week) == 1


async def test_clean_leaves_what_is_younger_where_it_was(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    """Old and young jobs are mixed in the list, over more than one batch."""
    jobs = workshop.producer(letters)
    ids = [each.id for each in await jobs.enqueue_many(letters, [{} for _ in range(1100)])]
    old = ids[::4]
    for job in old:
        await workshop.raw.hset(f"bull:letters:{job}", "timestamp", 1)
    assert await inspect().clean(letters, "waiting", timedelta(hours=1)) == len(old)
    left = [job for job in ids if job not in set(old)]
    assert await workshop.raw.lrange("bull:letters:wait", 0, -1) == left[::-1]


async def test_drain_removes_what_waits_and_leaves_the_rest(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    jobs, inspector = workshop.producer(letters), inspect()
    await jobs.enqueue_many(letters, [{} for _ in range(1100)])
    await jobs.enqueue_many(letters, [{} for _ in range(600)], priority=3)
    await jobs.enqueue(letters, {}, job_id="later", delay=timedelta(days=1))
    await failed(workshop, 3)
    heard = Heard()
    assert await inspector.drain(letters, on_progress=heard) == 1700
    heard.assert_batches(1700)
    counts = await inspector.counts(letters)
    assert counts == {**dict.fromkeys(counts, 0), "delayed": 1, "failed": 3}
    assert await inspector.drain(letters, delayed=True) == 1
    assert await workshop.raw.exists("bull:letters:later") == 0


@pytest.mark.trap(13)
async def test_drain_keeps_the_next_run_of_a_schedule_wherever_it_waits(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    """BullMQ cuts the list by count, and may lose the run, and thus the schedule (trap T13)."""
    tick = "repeat:hourly:1700000000000"
    jobs = workshop.producer(letters)
    await jobs.enqueue_many(letters, [{} for _ in range(600)])
    await workshop.raw.zadd("bull:letters:repeat", {"hourly": 1700000000000})
    await workshop.raw.hset(
        "bull:letters:repeat:hourly", mapping={"name": "tick", "every": 3600000, "ic": 1}
    )
    await workshop.raw.hset(
        f"bull:letters:{tick}", mapping={"name": "tick", "data": "{}", "rjk": "hourly"}
    )
    await workshop.raw.lpush("bull:letters:wait", tick)
    await jobs.enqueue_many(letters, [{} for _ in range(600)])
    assert await inspect().drain(letters) == 1200
    assert await workshop.raw.lrange("bull:letters:wait", 0, -1) == [tick]
    assert await inspect().clean(letters, "waiting", NOTHING) == 0


async def test_scrub_empties_finished_jobs_that_contain_a_text(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    """In any field, in any JSON spelling, and in the events."""
    who = 'jürgen "j" o\'neil'

    async def talk(job: Job[Any]) -> str:
        if job.payload.text == "logs":
            job.log(f"wrote to {who}")
        if job.payload.text == "raises":
            raise ValueError(f"{who} is unknown")
        return who if job.payload.text == "returns" else "fine"

    jobs = workshop.producer(letters)
    for text in (who, "logs", "raises", "returns", "nobody"):
        await jobs.enqueue(
            letters, {"text": text}, job_id=text if text.isalpha() else "payload", attempts=1
        )
    await workshop.burst(letters.processed_by(talk))
    await workshop.raw.hset(
        "bull:letters:python", mapping={"name": "x", "data": json.dumps({"to": who})}
    )
    await workshop.raw.zadd("bull:letters:completed", {"python": 1})
    await jobs.enqueue(letters, {"text": who}, job_id="waits")

    assert await inspect().scrub(letters, who) == 5
    for job in ("payload", "logs", "raises", "returns", "python"):
        found = await inspect().get(letters, job)
        assert found.data == {}, job
        assert found.returnvalue is None
        assert found.stacktrace == ()
        assert found.failed_reason == ("scrubbed" if job == "raises" else None)
        assert found.log_lines == 0
    assert (await inspect().get(letters, "nobody")).data == {"text": "nobody"}
    assert (await inspect().get(letters, "nobody")).returnvalue == "fine"
    assert (await inspect().get(letters, "waits")).data == {"text": who}, "it needs its payload"
    logged = json.dumps(await workshop.events(letters), ensure_ascii=False)
    assert "fine" in logged
    assert "neil" not in logged
    assert await inspect().scrub(letters, who) == 0


async def test_scrub_asks_a_function(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    await failed(workshop, 250)
    for number in (3, 120, 249):
        await workshop.raw.hset(f"bull:letters:j{number:05}", "data", '{"user": 7}')
    heard = Heard()
    assert (
        await inspect().scrub(letters, lambda job: job.data.get("user") == 7, on_progress=heard)
        == 3
    )
    assert heard.reports[-1] == (250, 250)
    assert (await workshop.hash(letters, "j00120"))["data"] == "{}"
    assert (await workshop.hash(letters, "j00120"))["failedReason"] == "scrubbed"
    assert (await workshop.hash(letters, "j00121"))["failedReason"] == "no"


async def test_a_function_is_shown_everything_and_the_events_of_its_jobs_go_with_them(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    async def talk(job: Job[Any]) -> str:
        job.log(f"wrote to {job.id}")
        job.progress({"now": job.id})
        return f"result of {job.id}"

    jobs = workshop.producer(letters)
    for job_id in ("ada", "nada"):
        await jobs.enqueue(letters, {}, job_id=job_id)
    await workshop.burst(letters.processed_by(talk))
    await workshop.raw.hset(
        "bull:letters:nada:processed", "bull:letters:below", '{"from": "below"}'
    )

    seen = {}

    def is_ada(job: StoredJob) -> bool:
        seen[job.id] = (job.returnvalue, job.logs, job.log_lines, job.child_results)
        return job.id == "ada"

    assert await inspect().scrub(letters, is_ada) == 1
    assert seen == {
        "ada": ("result of ada", ("wrote to ada",), 1, ()),
        "nada": ("result of nada", ("wrote to nada",), 1, ({"from": "below"},)),
    }
    logged = await workshop.events(letters)
    assert {
        event["jobId"] for event in logged if not {"returnvalue", "data"}.isdisjoint(event)
    } == {"nada"}
    assert {event.get("jobId") for event in logged} >= {"ada", "nada"}, (
        "that it was added, and started, says nothing"
    )


async def test_events_of_jobs_that_are_gone_are_scrubbed_by_what_they_say(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    async def refused(job: Job[Any]) -> None:
        raise ValueError(f"{job.payload.text} is unknown")

    jobs = workshop.producer(letters)
    texts = [f"ada{number % 2}" for number in range(600)]
    await jobs.enqueue_many(
        letters, [{"text": text} for text in texts], attempts=1, keep_failed=Retention(count=0)
    )
    await workshop.burst(letters.processed_by(refused))
    assert await inspect().scrub(letters, lambda _: True) == 0
    assert await inspect().scrub_events(letters, lambda text: "ada1" in text) == 300
    logged = json.dumps(await workshop.events(letters))
    assert "ada0 is unknown" in logged
    assert "ada1 is unknown" not in logged


async def test_what_cannot_be_meant_is_refused(inspect: Callable[..., JobInspector]) -> None:
    with pytest.raises(ConfigurationError, match="an empty text is in every job"):
        await inspect().scrub("letters", "")
    with pytest.raises(ConfigurationError, match="waiting-children are not cleaned"):
        await inspect().clean("letters", "waiting-children", NOTHING)
