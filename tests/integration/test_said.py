"""Progress and log lines of a running job: written within 100 ms, and always before its outcome."""

from __future__ import annotations

import asyncio
import resource
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from chaos.proxy import Proxy, every_first_try
from corral import Job, JobOptions, Payload, Queue, Retention
from corral.job import KEEP_LOGS, MAX_LINE_BYTES, MAX_PROGRESS_BYTES
from corral.store.connection import Link
from corral.store.queue_store import Note, QueueStore
from corral.store.scripts import script

pytestmark = pytest.mark.asyncio


class Letter(Payload):
    text: str = ""


letters = Queue("letters", Letter)
MARGIN_MS = 50
"""Two loaded cores: how much later than 100 ms a write may be seen."""
MEBIBYTE = 2**20


@pytest.fixture
def lines(workshop: Any) -> Callable[[str], Awaitable[list[str]]]:
    """`await lines(job_id)`: the log lines of a letter in the store."""

    async def read(job_id: str) -> list[str]:
        return await workshop.raw.lrange(f"bull:letters:{job_id}:logs", 0, -1)

    return read


@pytest_asyncio.fixture
async def proxy(
    workshop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Proxy]:
    """A proxy between the store and this test's workers, but not its producers."""
    store_url = workshop.url
    async with Proxy(tmp_path / "p.sock", Path(store_url.removeprefix("unix://"))) as proxy:
        producer = workshop.producer
        monkeypatch.setattr(workshop, "producer", partial(producer, url=store_url))
        monkeypatch.setattr(workshop, "url", proxy.url)
        yield proxy


async def test_notes_are_written_before_the_outcome(workshop: Any) -> None:
    async def process(job: Job[Letter]) -> None:
        job.log("one")
        job.progress(50)
        job.progress({"done": 2})
        job.log("two")

    enqueued = await workshop.producer(letters).enqueue(letters, Letter())
    await workshop.burst(letters.processed_by(process))
    events = await workshop.events(letters, enqueued.id)
    assert [event["event"] for event in events] == [
        "added",
        "waiting",
        "active",
        "progress",
        "progress",
        "completed",
    ]
    assert [event["data"] for event in events[3:5]] == ["50", '{"done":2}']
    assert (await workshop.hash(letters, enqueued.id))["progress"] == '{"done":2}'
    assert await workshop.raw.lrange(f"bull:letters:{enqueued.id}:logs", 0, -1) == ["one", "two"]


async def test_a_job_that_ends_while_others_notes_are_written_has_its_own_written_first(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise its ending would be written first, and a job that is not kept would lose them."""
    writing, go_on = asyncio.Event(), asyncio.Event()
    note = QueueStore.note

    async def slow(store: QueueStore, *call: Any) -> Any:
        writing.set()
        await go_on.wait()
        return await note(store, *call)

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
        assert [name for name, _ in await workshop.stamps(letters, enqueued.id)][3:] == [
            "progress",
            "completed",
        ]


@pytest.mark.timing
@pytest.mark.parametrize("kind", ["async def", "def"])
async def test_a_running_jobs_progress_is_seen_within_100_ms(workshop: Any, kind: str) -> None:
    go_on, go_on_too = threading.Event(), asyncio.Event()
    written: list[float] = []

    def on_thread(job: Job[Letter]) -> None:
        for value in range(3):
            written.append(time.time() * 1000)
            job.progress(value)
            time.sleep(0.15)
        go_on.wait(10)

    async def on_loop(job: Job[Letter]) -> None:
        for value in range(3):
            written.append(time.time() * 1000)
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
    late = [round(at - noted) for at, noted in zip(seen, written, strict=True)]
    print(f"seen after {late} ms")
    assert max(late) <= 100 + MARGIN_MS


async def test_many_notes_cost_few_calls(workshop: Any) -> None:
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


async def test_several_threads_of_one_job_may_log_at_once(workshop: Any) -> None:
    def process(job: Job[Letter]) -> None:
        threads = [
            threading.Thread(target=lambda: [job.log("x") for _ in range(100)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    enqueued = await workshop.producer(letters).enqueue(letters, Letter())
    await workshop.burst(letters.processed_by(process))
    assert await workshop.raw.llen(f"bull:letters:{enqueued.id}:logs") == 400


async def test_a_line_that_cannot_be_written_is_mended_and_harms_no_other_job(
    workshop: Any,
) -> None:
    async def process(job: Job[Letter]) -> None:
        job.log("half \ud83d of it")
        job.log(7)  # type: ignore[arg-type]  # what an untyped program would do
        job.log(None)  # type: ignore[arg-type]  # what an untyped program would do

    enqueued = await workshop.producer(letters).enqueue(letters, Letter())
    await workshop.burst(letters.processed_by(process))
    assert await workshop.raw.lrange(f"bull:letters:{enqueued.id}:logs", 0, -1) == [
        "half ? of it",
        "7",
        "None",
    ]


async def test_progress_that_is_no_json_is_the_processors_mistake(workshop: Any) -> None:
    async def process(job: Job[Letter]) -> None:
        job.progress(object())

    enqueued = await workshop.producer(letters).enqueue(letters, Letter(), attempts=1)
    await workshop.burst(letters.processed_by(process))
    assert (
        "PydanticSerializationError" in (await workshop.hash(letters, enqueued.id))["failedReason"]
    )


async def test_logs_keep_as_many_lines_as_the_job_asks_for(workshop: Any) -> None:
    async def process(job: Job[Letter]) -> None:
        for number in range(5):
            job.log(str(number))

    await workshop.raw.hset("bull:letters:a", mapping={"data": "{}", "opts": '{"kl":2}'})
    await workshop.raw.lpush("bull:letters:wait", "a")
    await workshop.burst(letters.processed_by(process))
    assert await workshop.raw.lrange("bull:letters:a:logs", 0, -1) == ["3", "4"]


async def test_a_job_keeps_as_many_lines_as_the_setting_says(workshop: Any, lines: Any) -> None:
    async def process(job: Job[Letter]) -> None:
        for number in range(30):
            job.log(str(number))
            if number % 10 == 9:
                await asyncio.sleep(0)

    enqueued = await workshop.producer(letters).enqueue(letters, Letter())
    await workshop.raw.hset("bull:letters:a", mapping={"data": "{}", "opts": '{"kl":20}'})
    await workshop.raw.lpush("bull:letters:wait", "a")
    await workshop.burst(letters.processed_by(process), keep_logs=3)
    assert await lines(enqueued.id) == ["27", "28", "29"]
    assert await lines("a") == [str(number) for number in range(10, 30)], "its own keepLogs wins"


class TestFloods:
    async def test_three_million_lines_leave_the_last_thousand_and_their_job_completes(
        self, workshop: Any, lines: Any
    ) -> None:
        """As one script they ran longer than a reply may take, and were sent again for ever."""
        many = 3_000_000

        def process(job: Job[Letter]) -> int:
            for number in range(many):
                job.log(f"row {number} done")
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        enqueued = await workshop.producer(letters).enqueue(letters, Letter())
        async with workshop.working(letters.processed_by(process)):
            await workshop.until(letters, enqueued.id, "completed", seconds=60)
        assert await lines(enqueued.id) == [
            f"row {number} done" for number in range(many - KEEP_LOGS, many)
        ]
        grown = int((await workshop.hash(letters, enqueued.id))["returnvalue"]) - before
        assert grown < 32 * 1024, f"{grown} KiB"

    async def test_a_line_of_100_mb_is_cut(self, workshop: Any, lines: Any) -> None:
        async def process(job: Job[Letter]) -> None:
            job.log("x" * 100_000_000)

        enqueued = await workshop.producer(letters).enqueue(letters, Letter())
        await workshop.burst(letters.processed_by(process))
        (line,) = await lines(enqueued.id)
        assert (len(line.encode()), line[-2:]) == (MAX_LINE_BYTES, "x…")

    async def test_90_mb_of_progress_leave_the_last_value_and_a_bounded_stream(
        self, workshop: Any
    ) -> None:
        last = f'"{"y" * (MAX_PROGRESS_BYTES - 2)}"'

        async def process(job: Job[Letter]) -> None:
            for _ in range(90_000_000 // MAX_PROGRESS_BYTES // 10):
                for _ in range(10):
                    job.progress("x" * (MAX_PROGRESS_BYTES - 2))
                await asyncio.sleep(0)
            job.progress("y" * (MAX_PROGRESS_BYTES - 2))

        enqueued = await workshop.producer(letters).enqueue(letters, Letter())
        async with workshop.working(letters.processed_by(process)):
            await workshop.until(letters, enqueued.id, "completed", seconds=30)
        assert (await workshop.hash(letters, enqueued.id))["progress"] == last
        events = await workshop.events(letters, enqueued.id)
        assert (events[-2]["event"], events[-2]["data"], events[-1]["event"]) == (
            "progress",
            last,
            "completed",
        )

    async def test_progress_that_is_too_large_fails_the_attempt_and_names_the_limit(
        self, workshop: Any
    ) -> None:
        async def process(job: Job[Letter]) -> None:
            job.progress("x" * 1_000_000)

        enqueued = await workshop.producer(letters).enqueue(letters, Letter(), attempts=1)
        await workshop.burst(letters.processed_by(process))
        failed = await workshop.hash(letters, enqueued.id)
        assert (
            failed["failedReason"] == "ValueError: the progress has 1000002 bytes, more than 65536"
        )

    @pytest.mark.parametrize("what", ["results", "progress"])
    async def test_large_values_are_kept_whole_in_a_stream_that_is_bounded_by_bytes(
        self, workshop: Any, what: str
    ) -> None:
        queue = Queue("letters", Letter, options=JobOptions(keep_completed=Retention(count=0)))
        value = "x" * 40_000

        async def process(job: Job[Letter]) -> str | None:
            if what == "results":
                return value
            job.progress(value)
            return None

        async def stream() -> tuple[int, int]:
            key = "bull:letters:events"
            return await workshop.raw.memory_usage(key, samples=0), await workshop.raw.xlen(key)

        jobs, most = workshop.producer(queue), 0
        for _ in range(6):
            await jobs.enqueue_many(queue, [Letter()] * 400)
            await workshop.burst(queue.processed_by(process), concurrency={"letters": 50})
            size, entries = await stream()
            assert entries >= 1_000
            most = max(most, size)
        assert most <= 20 * MEBIBYTE, f"{most} bytes"
        field = {"results": "returnvalue", "progress": "data"}[what]
        events = [
            event[field] for event in await workshop.events(queue) if len(event.get(field, "")) > 4
        ]
        assert len(events) >= 150
        assert set(events) == {f'"{value}"'}

    async def test_small_values_leave_the_stream_as_long_as_the_queue_wants_it(
        self, workshop: Any
    ) -> None:
        async def process(job: Job[Letter]) -> str:
            job.progress("x" * 4_000)
            return "x" * 4_000

        await workshop.producer(letters).enqueue_many(letters, [Letter()] * 500)
        await workshop.burst(letters.processed_by(process), concurrency={"letters": 50})
        assert await workshop.raw.xlen("bull:letters:events") >= 2_500


async def test_each_call_writes_a_bounded_number_of_notes_and_bytes(
    workshop: Any, lines: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int, int]] = []
    note = QueueStore.note

    async def counted(store: QueueStore, notes: Any, worker: str, seq: int) -> Any:
        calls.append((seq, len(notes), sum(len(each.text) for each in notes)))
        return await note(store, notes, worker, seq)

    monkeypatch.setattr(QueueStore, "note", counted)

    async def process(job: Job[Letter]) -> None:
        for number in range(1_000):
            job.log("x" * int(job.payload.text) + str(number))

    jobs = workshop.producer(letters)
    made = [(await jobs.enqueue(letters, Letter(text=size))).id for size in ("0", "8000")]
    await workshop.burst(letters.processed_by(process))
    for job_id in made:
        assert [line.lstrip("x") for line in await lines(job_id)] == [
            str(number) for number in range(1_000)
        ]
    seqs, numbers, sizes = zip(*calls, strict=True)
    assert seqs == tuple(range(1, len(calls) + 1))
    assert (max(numbers), max(sizes) <= 256 * 1024, len(calls) < 50) == (500, True, True)


class TestAStoreThatDoesNotAnswer:
    async def test_a_note_whose_reply_is_lost_is_written_once(
        self, workshop: Any, lines: Any, proxy: Proxy
    ) -> None:
        proxy.cut = every_first_try("note")

        async def process(job: Job[Letter]) -> None:
            job.log("one")
            job.progress(50)
            job.log("two")

        jobs = workshop.producer(letters)
        made = [(await jobs.enqueue(letters, Letter())).id for _ in range(3)]
        async with workshop.working(letters.processed_by(process), concurrency={"letters": 1}):
            for job_id in made:
                await workshop.until(letters, job_id, "completed")
        assert proxy.cuts >= 3
        for job_id in made:
            assert await lines(job_id) == ["one", "two"]
            events = [event["event"] for event in await workshop.events(letters, job_id)]
            assert events == ["added", "waiting", "active", "progress", "completed"]

    async def test_notes_that_get_no_answer_are_dropped_and_their_jobs_complete(
        self, workshop: Any, lines: Any, proxy: Proxy, caplog: pytest.LogCaptureFixture
    ) -> None:
        digest = script("note").digest.encode()
        proxy.cut = lambda request: digest in request

        async def process(job: Job[Letter]) -> None:
            job.log("one")

        jobs = workshop.producer(letters)
        made = [(await jobs.enqueue(letters, Letter())).id for _ in range(2)]
        async with workshop.working(
            letters.processed_by(process), concurrency={"letters": 1}
        ) as working:
            for job_id in made:
                await workshop.until(letters, job_id, "completed")
            await workshop.wait_until(
                lambda: "progress and log lines dropped" in caplog.text, "it is logged"
            )
            assert (await working.stop()).in_order
        assert await lines(made[0]) == ["one"], (
            "the first try wrote it, and two more changed nothing"
        )

    async def test_a_store_that_is_away_while_jobs_log_loses_no_ending_and_blocks_no_stop(
        self, workshop: Any, proxy: Proxy
    ) -> None:
        noted, ended = asyncio.Event(), list[str]()

        async def process(job: Job[Letter]) -> None:
            await noted.wait()
            for _ in range(20):
                job.log("x")
                job.progress(1)
                await asyncio.sleep(0.05)
            ended.append(job.id)

        jobs = workshop.producer(letters)
        made = [(await jobs.enqueue(letters, Letter())).id for _ in range(10)]
        async with workshop.working(
            letters.processed_by(process), concurrency={"letters": 10}
        ) as working:
            for job_id in made:
                await workshop.until(letters, job_id, "active")
            proxy.hold()
            noted.set()
            await workshop.wait_until(lambda: len(ended) == len(made), "all have ended")
            proxy.let_go()
            for job_id in made:
                await workshop.until(letters, job_id, "completed")
            assert (await working.stop()).in_order
        for job_id in made:
            assert (await workshop.hash(letters, job_id))["ats"] == "1"

    async def test_an_earlier_note_that_comes_late_writes_nothing(
        self, workshop: Any, lines: Any
    ) -> None:
        link = Link(workshop.url)
        store = QueueStore(link, "bull", "letters")
        enqueued = await workshop.producer(letters).enqueue(letters, Letter())
        for seq, line in ((1, "a"), (1, "a"), (3, "c"), (2, "b"), (0, "d"), (0, "d")):
            await store.note([Note(enqueued.id, "l", line)], "w", seq)
        await store.note([Note(enqueued.id, "l", "of another")], "v", 1)
        await link.close()
        assert await lines(enqueued.id) == ["a", "c", "d", "d", "of another"]
        assert await workshop.raw.ttl("corral:bull:letters:call:w:notes") > 0
