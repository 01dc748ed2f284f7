"""What a job says while it runs, progress and log lines: written within 100 ms, and always before its outcome."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from corral import Job, Payload, Queue
from corral.store.queue_store import QueueStore

pytestmark = pytest.mark.asyncio


class Letter(Payload):
    text: str = ""


letters = Queue("letters", Letter)
MARGIN_MS = 50
"""Two loaded cores: how much later than 100 ms a write may be seen."""


async def test_what_was_said_is_there_before_the_outcome(workshop: Any) -> None:
    async def process(job: Job[Letter]) -> None:
        job.log("one")
        job.progress(50)
        job.progress({"done": 2})
        job.log("two")

    enqueued = await workshop.producer(letters).enqueue(letters, Letter())
    await workshop.burst(letters.processed_by(process))
    events = await workshop.events(letters, enqueued.id)
    assert [event["event"] for event in events] == ["added", "waiting", "active", "progress", "progress", "completed"]
    assert [event["data"] for event in events[3:5]] == ["50", '{"done":2}']
    assert (await workshop.hash(letters, enqueued.id))["progress"] == '{"done":2}'
    assert await workshop.raw.lrange(f"bull:letters:{enqueued.id}:logs", 0, -1) == ["one", "two"]


async def test_a_job_that_ends_while_others_notes_are_written_has_its_own_written_first(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ending would otherwise overtake them, and a job that is not kept would lose them."""
    writing, go_on = asyncio.Event(), asyncio.Event()
    note = QueueStore.note

    async def slow(store: QueueStore, notes: Any) -> Any:
        writing.set()
        await go_on.wait()
        return await note(store, notes)

    monkeypatch.setattr(QueueStore, "note", slow)

    async def process(job: Job[Letter]) -> None:
        if job.payload.text == "second":
            await writing.wait()
            asyncio.get_running_loop().call_later(0.02, go_on.set)
        job.progress(1)

    jobs = workshop.producer(letters)
    made = [await jobs.enqueue(letters, Letter(text=text)) for text in ("first", "second")]
    async with workshop.working(letters.processed_by(process)):
        for enqueued in made:
            await workshop.until(letters, enqueued.id, "completed")
    for enqueued in made:
        assert [name for name, _ in await workshop.stamps(letters, enqueued.id)][3:] == ["progress", "completed"]


@pytest.mark.timing
@pytest.mark.parametrize("kind", ["async def", "def"])
async def test_a_running_jobs_progress_is_seen_within_100_ms(workshop: Any, kind: str) -> None:
    go_on, go_on_too = threading.Event(), asyncio.Event()
    said: list[float] = []

    def on_thread(job: Job[Letter]) -> None:
        for value in range(3):
            said.append(time.time() * 1000)
            job.progress(value)
            time.sleep(0.15)
        go_on.wait(10)

    async def on_loop(job: Job[Letter]) -> None:
        for value in range(3):
            said.append(time.time() * 1000)
            job.progress(value)
            await asyncio.sleep(0.15)
        await asyncio.wait_for(go_on_too.wait(), 10)

    enqueued = await workshop.producer(letters).enqueue(letters, Letter())
    async with workshop.working(letters.processed_by(on_thread if kind == "def" else on_loop)):

        async def all_seen() -> bool:
            return (await workshop.hash(letters, enqueued.id)).get("progress") == "2"

        await workshop.wait_until(all_seen, "its last progress is in the store")
        assert await workshop.state(letters, enqueued.id) == "active"
        go_on.set()
        go_on_too.set()
    seen = [at for name, at in await workshop.stamps(letters, enqueued.id) if name == "progress"]
    late = [round(at - spoken) for at, spoken in zip(seen, said, strict=True)]
    print(f"seen after {late} ms")
    assert max(late) <= 100 + MARGIN_MS


async def test_many_words_cost_few_calls(workshop: Any) -> None:
    async def process(job: Job[Letter]) -> None:
        for number in range(100):
            job.progress(number)
            job.log(str(number))

    jobs = workshop.producer(letters)
    for _ in range(5):
        await jobs.enqueue(letters, Letter())
    await workshop.burst(letters.processed_by(process))  # once, so that every script is known
    for _ in range(5):
        await jobs.enqueue(letters, Letter())
    before = (await workshop.raw.info("commandstats"))["cmdstat_evalsha"]["calls"]
    await workshop.burst(letters.processed_by(process))
    assert (await workshop.raw.info("commandstats"))["cmdstat_evalsha"]["calls"] - before < 20


async def test_several_threads_of_one_job_may_speak_at_once(workshop: Any) -> None:
    def process(job: Job[Letter]) -> None:
        speakers = [threading.Thread(target=lambda: [job.log("x") for _ in range(100)]) for _ in range(4)]
        for speaker in speakers:
            speaker.start()
        for speaker in speakers:
            speaker.join()

    enqueued = await workshop.producer(letters).enqueue(letters, Letter())
    await workshop.burst(letters.processed_by(process))
    assert await workshop.raw.llen(f"bull:letters:{enqueued.id}:logs") == 400


async def test_a_line_that_cannot_be_written_is_mended_and_harms_nobody(workshop: Any) -> None:
    async def process(job: Job[Letter]) -> None:
        job.log("half \ud83d of it")
        job.log(7)  # type: ignore[arg-type]  # what an untyped program would do
        job.log(None)  # type: ignore[arg-type]  # what an untyped program would do

    enqueued = await workshop.producer(letters).enqueue(letters, Letter())
    await workshop.burst(letters.processed_by(process))
    assert await workshop.raw.lrange(f"bull:letters:{enqueued.id}:logs", 0, -1) == ["half ? of it", "7", "None"]


async def test_progress_that_is_no_json_is_the_processors_mistake(workshop: Any) -> None:
    async def process(job: Job[Letter]) -> None:
        job.progress(object())

    enqueued = await workshop.producer(letters).enqueue(letters, Letter(), attempts=1)
    await workshop.burst(letters.processed_by(process))
    assert "PydanticSerializationError" in (await workshop.hash(letters, enqueued.id))["failedReason"]


async def test_logs_keep_as_many_lines_as_the_job_asks_for(workshop: Any) -> None:
    async def process(job: Job[Letter]) -> None:
        for number in range(5):
            job.log(str(number))

    await workshop.raw.hset("bull:letters:a", mapping={"data": "{}", "opts": '{"kl":2}'})
    await workshop.raw.lpush("bull:letters:wait", "a")
    await workshop.burst(letters.processed_by(process))
    assert await workshop.raw.lrange("bull:letters:a:logs", 0, -1) == ["3", "4"]
