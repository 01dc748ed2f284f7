"""`JobInspector` on the real store: what it reads of jobs, and what its changes do to them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from corral import Fail, Fixed, Job, Queue
from corral.errors import ConfigurationError, PayloadRefused, UnknownQueue
from corral.inspector import (
    JobInspector,
    JobLocked,
    JobNotFound,
    PayloadChanged,
    WrongState,
    of_worker,
)
from corral.settings import WorkerSettings
from corral.worker.worker import Worker

pytestmark = pytest.mark.asyncio

HOUR = timedelta(hours=1)


async def read_out(job: Job[Any]) -> str:
    if job.payload.text.startswith("fail"):
        job.progress({"read": 1})
        job.log("one line")
        job.log("another")
        raise ValueError(job.payload.text)
    return job.payload.text.upper()


async def test_everything_of_a_failed_job_is_shown(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    jobs = workshop.producer(letters)
    policy: Any = {"attempts": 2, "backoff": Fixed(timedelta(0))}
    job_id = (await jobs.enqueue(letters, {"text": "fail twice"}, job_id="twice", **policy)).id
    assert (await inspect().get(letters, job_id)).state == "waiting"
    await workshop.burst(letters.processed_by(read_out), name="reader-1")

    found = await inspect().get(letters, job_id)
    assert (found.id, found.queue, found.name, found.state) == (
        "twice",
        "letters",
        "letters",
        "failed",
    )
    assert found.data == {"text": "fail twice"}
    assert found.opts["attempts"] == 2
    assert (found.attempts_made, found.attempts_started, found.max_attempts) == (2, 2, 2)
    assert found.failed_reason == "ValueError: fail twice"
    assert len(found.stacktrace) == 2
    assert "in read_out" in found.stacktrace[0]
    assert found.progress == {"read": 1}
    assert found.log_lines == 4
    assert found.processed_by == "reader-1"
    assert before < found.enqueued_at <= found.processed_on <= found.finished_on
    assert (found.stalled, found.priority, found.delay, found.locked_for) == (
        0,
        0,
        timedelta(0),
        None,
    )
    assert (found.parent_key, found.deduplication_id, found.schedule_id, found.due_at) == (
        None,
        None,
        None,
        None,
    )
    assert await inspect().logs(letters, job_id) == ["one line", "another"] * 2
    assert await inspect().logs(letters, job_id, start=-1, limit=1) == ["another"]
    assert await inspect().logs(letters, job_id, start=1, limit=2) == ["another", "one line"]


async def test_a_running_job_shows_its_lock_and_cannot_be_removed(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    seen: list[object] = []
    inspector = inspect()

    async def look(job: Job[Any]) -> None:
        found = await inspector.get(letters, job.id)
        seen.append(found.state)
        seen.append(
            found.locked_for is not None
            and timedelta(0) < found.locked_for <= timedelta(seconds=30)
        )
        for refused in (inspector.remove, inspector.retry, inspector.promote):
            with pytest.raises((JobLocked, WrongState)) as caught:
                await refused(letters, job.id)
            seen.append(type(caught.value))

    await workshop.producer(letters).enqueue(letters, {}, job_id="mine")
    await workshop.burst(letters.processed_by(look))
    assert seen == ["active", True, JobLocked, WrongState, WrongState]
    assert (await inspector.get(letters, "mine")).state == "completed"


async def test_a_processor_finds_jobs_through_its_deps(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    async def count(_job: Job[Any], inspector: JobInspector) -> int:
        return (await inspector.counts("letters"))["active"]

    processor = letters.processed_by(count, using=of_worker)
    jobs = workshop.producer(letters)
    await jobs.enqueue(letters, {}, job_id="count")
    with pytest.raises(RuntimeError, match="made without an inspector"):
        await workshop.burst(processor)
    worker = Worker(
        [processor],
        url=workshop.url,
        prefix="bull",
        settings=WorkerSettings(),
        plugins=workshop.plugins,
        jobs=jobs,
        provided={of_worker: inspect()},
        burst=True,
    )
    await worker.run()
    assert (await inspect().get(letters, "count")).returnvalue == 1


async def test_a_state_is_listed_page_by_page(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    """The jobs that run next come first; of finished jobs, those that ended last."""
    inspector, jobs = inspect(), workshop.producer(letters)
    for number in range(7):
        await jobs.enqueue(letters, {"text": str(number)}, job_id=f"w{number}")
    first = await inspector.list(letters, "waiting", limit=3)
    assert [job.id for job in first.jobs] == ["w0", "w1", "w2"]
    assert (first.total, first.start) == (7, 0)
    last = await inspector.list(letters, "waiting", start=5, limit=3)
    assert [(job.id, job.state, job.data) for job in last.jobs] == [
        ("w5", "waiting", {"text": "5"}),
        ("w6", "waiting", {"text": "6"}),
    ]
    assert (await inspector.list(letters, "waiting", start=7)).jobs == []

    await workshop.burst(letters.processed_by(read_out), concurrency={"letters": 1})
    ended = await inspector.list(letters, "completed", limit=2)
    assert [job.id for job in ended.jobs] == ["w6", "w5"]
    await jobs.enqueue(letters, {}, job_id="later", delay=2 * HOUR)
    await jobs.enqueue(letters, {}, job_id="sooner", delay=HOUR)
    delayed = await inspector.list(letters, "delayed")
    assert [job.id for job in delayed.jobs] == ["sooner", "later"]
    assert delayed.jobs[0].due_at
    assert abs(delayed.jobs[0].due_at - datetime.now(UTC) - HOUR) < timedelta(minutes=1)
    counts = await inspector.counts(letters)
    assert counts == {**dict.fromkeys(counts, 0), "completed": 7, "delayed": 2}


@pytest.mark.parametrize(("start", "limit"), [(0, 0), (0, 101), (-1, 5)])
async def test_a_page_has_bounds(
    inspect: Callable[..., JobInspector], start: int, limit: int
) -> None:
    with pytest.raises(ConfigurationError, match="a page has 1 to 100 jobs"):
        await inspect().list("letters", "waiting", start=start, limit=limit)


async def test_what_is_not_there_is_refused_by_name(inspect: Callable[..., JobInspector]) -> None:
    inspector = inspect()
    with pytest.raises(UnknownQueue) as unknown:
        await inspector.counts("leters")
    assert unknown.value.hint == "did you mean 'letters'?"
    for operation in (
        inspector.get,
        inspector.logs,
        inspector.remove,
        inspector.retry,
        inspector.promote,
    ):
        with pytest.raises(JobNotFound) as missing:
            await operation("letters", "nobody")
        assert (missing.value.queue, missing.value.job_id) == ("letters", "nobody")
        assert missing.value.exit_code == 1


async def test_a_damaged_job_can_be_shown_and_removed(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    """Jobs of any client, with any contents, can be read."""
    damaged = {
        "data": "{no json",
        "opts": "[",
        "timestamp": "soon",
        "stacktrace": "{}",
        "atm": "x",
        "delay": "nan",
    }
    await workshop.raw.hset("bull:letters:odd", mapping=damaged)
    await workshop.raw.zadd("bull:letters:failed", {"odd": 1})
    found = await inspect().get(letters, "odd")
    assert (found.data, found.opts, found.enqueued_at, found.stacktrace) == (
        "{no json",
        "[",
        None,
        (),
    )
    assert (found.attempts_made, found.max_attempts, found.delay) == (0, 1, timedelta(0))
    await inspect().retry(letters, "odd")
    assert await workshop.state(letters, "odd") == "wait"
    await inspect().remove(letters, "odd")
    assert await workshop.state(letters, "odd") == "gone"


async def test_a_removed_job_leaves_no_key(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    jobs = workshop.producer(letters)
    await jobs.enqueue(letters, {"text": "fail"}, job_id="bad", attempts=1)
    await workshop.burst(letters.processed_by(read_out))
    assert await workshop.raw.exists("bull:letters:bad:logs")
    await inspect().remove(letters, "bad")
    assert await workshop.raw.keys("bull:letters:bad*") == []
    assert (await workshop.events(letters, "bad"))[-1] == {
        "event": "removed",
        "jobId": "bad",
        "prev": "failed",
    }


async def test_a_retried_job_runs_again_and_counts_on_or_from_zero(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    async def always_fails(job: Job[Any]) -> None:
        raise Fail(f"attempt {job.attempt}")

    jobs = workshop.producer(letters)
    await jobs.enqueue(letters, {}, job_id="bad", attempts=1)
    processor = letters.processed_by(always_fails)
    await workshop.burst(processor)
    await inspect().retry(letters, "bad")
    await workshop.burst(processor)
    assert (await inspect().get(letters, "bad")).failed_reason == "Fail: attempt 2"
    await inspect().retry(letters, "bad", reset=True)
    await workshop.burst(processor)
    assert (await inspect().get(letters, "bad")).failed_reason == "Fail: attempt 1"


@pytest.mark.timing
async def test_what_an_operator_does_wakes_an_idle_worker(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    """Without a wake-up, a worker looks every four seconds."""
    inspector, jobs = inspect(), workshop.producer(letters)
    await jobs.enqueue(letters, {}, job_id="later", delay=HOUR)
    async with workshop.working(letters.processed_by(read_out)):
        await inspector.promote(letters, "later")
        await workshop.until(letters, "later", "completed")
        await inspector.retry(letters, "later")

        async def ended_twice() -> bool:
            return (await inspector.get(letters, "later")).attempts_made == 2

        await workshop.wait_until(ended_twice, "it ran again")
    stamps = [
        at
        for event, at in await workshop.stamps(letters, "later")
        if event in {"waiting", "active"}
    ]
    waited = [started - waiting for waiting, started in zip(stamps[::2], stamps[1::2], strict=True)]
    print(f"waited {waited} ms")
    assert len(waited) == 2
    assert max(waited) < 1000


async def test_a_paused_queue_starts_nothing(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    inspector, jobs = inspect(), workshop.producer(letters)
    assert await inspector.pause(letters)
    assert not await inspector.pause(letters), "it was paused already"
    await jobs.enqueue(letters, {}, job_id="held")
    assert await workshop.raw.exists("bull:letters:marker") == 0
    await workshop.burst(letters.processed_by(read_out))
    assert await workshop.state(letters, "held") == "wait"
    assert await inspector.resume(letters)
    assert not await inspector.resume(letters), "it was not paused"
    assert await workshop.raw.zrange("bull:letters:marker", 0, -1) == ["0"]
    await workshop.burst(letters.processed_by(read_out))
    assert await workshop.state(letters, "held") == "completed"
    assert [event["event"] for event in await workshop.events(letters) if "jobId" not in event][
        :2
    ] == [
        "paused",
        "resumed",
    ]


async def test_a_wider_limit_lets_waiting_jobs_start(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    """An idle worker is woken; it does not have to wait until it looks the next time."""
    inspector, jobs = inspect(), workshop.producer(letters)
    most: list[int] = []

    async def count(_job: Job[Any]) -> None:
        most.append((await inspector.counts(letters))["active"])

    await inspector.set_concurrency(letters, 2)
    await jobs.enqueue_many(letters, [{} for _ in range(20)])
    await workshop.burst(letters.processed_by(count), concurrency={"letters": 10})
    assert (len(most), max(most)) == (20, 2)
    await jobs.enqueue(letters, {})
    await workshop.raw.delete("bull:letters:marker")
    await inspector.set_concurrency(letters, None)
    assert await workshop.raw.zrange("bull:letters:marker", 0, -1) == ["0"]
    assert (await inspector.limits(letters)).concurrency is None
    for limit, per in ((0, HOUR), (5, None), (5, timedelta(0))):
        with pytest.raises(ConfigurationError):
            await inspector.set_rate_limit(letters, limit, per)
    with pytest.raises(ConfigurationError):
        await inspector.set_concurrency(letters, 0)


@pytest.mark.parametrize("state", ["wait", "prioritized", "delayed", "failed"])
async def test_a_job_that_is_edited_runs_with_its_new_payload(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector], state: str
) -> None:
    jobs, inspector = workshop.producer(letters), inspect()
    options: dict[str, Any] = {"prioritized": {"priority": 3}, "delayed": {"delay": HOUR}}.get(
        state, {}
    )
    await jobs.enqueue(letters, {"text": "fail"}, job_id="a", attempts=1, **options)
    if state == "failed":
        await workshop.burst(letters.processed_by(read_out))
    before = await workshop.hash(letters, "a")
    await inspector.edit(letters, "a", {"text": "Grüße"})
    assert await workshop.state(letters, "a") == state
    assert await workshop.hash(letters, "a") == {**before, "data": '{"text":"Grüße"}'}
    if state == "failed":
        await inspector.retry(letters, "a", reset=True)
    if state == "delayed":
        await inspector.promote(letters, "a")
    await workshop.burst(letters.processed_by(read_out))
    assert (await inspector.get(letters, "a")).returnvalue == "GRÜSSE"


async def test_a_job_that_runs_or_is_completed_is_not_edited(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    inspector = inspect().acting_as("ada")

    async def look(job: Job[Any]) -> None:
        with pytest.raises(JobLocked):
            await inspector.edit(letters, job.id, {"text": "too late"})

    await workshop.producer(letters).enqueue(letters, {"text": "as it was"}, job_id="mine")
    with pytest.raises(PayloadRefused, match="text"):
        await inspector.edit(letters, "mine", {"text": ["no text"]})
    await workshop.burst(letters.processed_by(look))
    with pytest.raises(WrongState, match="not waiting, prioritized, delayed or failed"):
        await inspector.edit(letters, "mine", {"text": "too late"})
    found = await inspector.get(letters, "mine")
    assert (found.state, found.data) == ("completed", {"text": "as it was"})
    with pytest.raises(JobNotFound):
        await inspector.edit(letters, "nobody", {"text": "a"})
    assert [each for each in await inspector.audit.read() if each.what == "edit"] == []


async def test_an_edit_keeps_the_bytes_of_what_it_does_not_change(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    inspector = inspect()
    job_id = (await workshop.producer(letters).enqueue(letters, {"text": "a"})).id
    key = f"bull:letters:{job_id}"
    odd = '{ "newer" : [1.50, 1e21] ,\n"text":"\\u0061" }'
    await workshop.raw.hset(key, "data", odd)
    same = (await inspector.get(letters, job_id)).data
    assert await inspector.edit(letters, job_id, same) is False
    assert await workshop.raw.hget(key, "data") == odd
    assert [each for each in await inspector.audit.read() if each.what == "edit"] == []
    assert await inspector.edit(letters, job_id, {"text": "b"}) is True
    assert await workshop.raw.hget(key, "data") == odd.replace("\\u0061", "b")

    await workshop.raw.hset(key, "data", '{"text":7}')
    assert await inspector.edit(letters, job_id, {"text": 7}) is False, "though no worker reads it"


async def test_an_edit_never_undoes_another_one(
    workshop: Any,
    letters: Queue[Any],
    inspect: Callable[..., JobInspector],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inspector, other = inspect(), inspect()
    job_id = (await workshop.producer(letters).enqueue(letters, {"text": "a"})).id
    read = (await inspector.get(letters, job_id)).data
    await other.edit(letters, job_id, {"text": "by another"})
    with pytest.raises(PayloadChanged, match="was changed meanwhile"):
        await inspector.edit(letters, job_id, {"text": "mine"}, before=read)

    run = inspector._access.run

    async def read_late(*arguments: Any) -> Any:
        """Read the job, which somebody else changes before it is written."""
        reply = await run(*arguments)
        await other.edit(letters, job_id, {"text": "just now"})
        return reply

    with monkeypatch.context() as patch:
        patch.setattr(inspector._access, "run", read_late)
        with pytest.raises(PayloadChanged):
            await inspector.edit(letters, job_id, {"text": "mine"}, before={"text": "by another"})
    assert (await inspector.get(letters, job_id)).data == {"text": "just now"}
    assert await inspector.edit(letters, job_id, {"text": "mine"}, before={"text": "just now"})


async def test_the_audit_of_an_edit_names_fields_and_no_value_and_what_another_release_wrote_stays(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    inspector = inspect().acting_as("ada")
    job_id = (await workshop.producer(letters).enqueue(letters, {"text": "a"})).id
    await inspector._access.link.call(
        "HSET", f"bull:letters:{job_id}", "data", '{"text": "a", "newer": [1]}'
    )
    await inspector.edit(letters, job_id, {"text": "b"})
    assert (await inspector.get(letters, job_id)).data == {"text": "b", "newer": [1]}
    entry = (await inspector.audit.read())[0]
    assert (entry.who, entry.what, entry.job_id, entry.before) == ("ada", "edit", job_id, None)
    assert entry.after == {"changed": ["text"]}


async def test_an_inspector_takes_queues_that_nobody_declares(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    """By name, with what a queue of the catalog can do; the inspector that it is made of does not."""
    parcels = Queue("parcels", letters.payload)
    await workshop.producer(parcels).enqueue(parcels, {"text": "fail"}, job_id="x", attempts=1)
    await workshop.burst(parcels.processed_by(read_out))
    inspector = inspect()
    assert await inspector.find_undeclared(scans=None) == ["parcels"]

    including = await inspector.including_undeclared("parcels", letters.name)
    assert (await including.get("parcels", "x")).failed_reason == "ValueError: fail"
    assert await including.scrub("parcels", "fail") == 1
    assert (await including.get("parcels", "x")).data == {}
    await including.remove("parcels", "x")
    assert await including.counts(letters, ["failed"]) == {"failed": 0}
    with pytest.raises(UnknownQueue):
        await inspector.counts("parcels")


async def test_undeclared_queues_are_found_behind_any_number_of_keys(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    parcels = Queue("parcels", letters.payload)
    await workshop.producer(parcels).enqueue(parcels, {"text": "x"})
    inspector = inspect()
    assert await inspector.find_undeclared(scans=0) == []
    assert await inspector.find_undeclared(scans=None) == ["parcels"]
