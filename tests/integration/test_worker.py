"""How workers fetch: in batches, in order, within their limits, without delay, and side by side."""

from __future__ import annotations

import asyncio
import contextvars
import time
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from corral import Job, Payload, Queue
from corral.store.codec import Advanced
from corral.store.queue_store import QueueStore
from logged import capture_logs

pytestmark = pytest.mark.asyncio


class Letter(Payload):
    text: str = ""


letters = Queue("letters", Letter)
word = contextvars.ContextVar("word", default="of no worker")
MS = timedelta(milliseconds=1)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The numbers of endings and of jobs of every `advance` in this process that had any."""
    made: list[tuple[int, int]] = []
    advance = QueueStore.advance

    async def counting(
        store: QueueStore, worker: str, seq: int, endings: Any, want: int, **more: Any
    ) -> Advanced:
        reply = await advance(store, worker, seq, endings, want, **more)
        if endings or reply.jobs:
            made.append((len(endings), len(reply.jobs)))
        return reply

    monkeypatch.setattr(QueueStore, "advance", counting)
    return made


async def nothing(_job: Job[Letter]) -> None:
    pass


class TestBatches:
    async def test_endings_gather_while_a_call_is_on_its_way(
        self, workshop: Any, calls: Any
    ) -> None:
        await workshop.producer(letters).enqueue_many(letters, [Letter() for _ in range(1000)])
        await workshop.burst(letters.processed_by(nothing), concurrency={"letters": 100})
        assert sum(fetched for _, fetched in calls) == sum(ended for ended, _ in calls) == 1000
        assert len(calls) <= 40, "a hundred jobs at a time cost about a dozen calls"
        assert await workshop.raw.zcard("bull:letters:completed") == 1000

    async def test_with_one_slot_each_job_costs_one_call(self, workshop: Any, calls: Any) -> None:
        await workshop.producer(letters).enqueue_many(letters, [Letter() for _ in range(20)])
        await workshop.burst(letters.processed_by(nothing), concurrency={"letters": 1})
        assert calls == [(0, 1), *[(1, 1)] * 19, (1, 0)], "each ends one job and brings the next"

    async def test_more_slots_than_a_script_takes_are_filled_by_several_calls(
        self, workshop: Any, calls: Any
    ) -> None:
        queue = Queue("letters", Letter, concurrency=1200)
        running, enough = 0, asyncio.Event()

        async def process(_job: Job[Letter]) -> None:
            nonlocal running
            running += 1
            if running == 1200:
                enough.set()
            await asyncio.wait_for(enough.wait(), 10)

        await workshop.producer(queue).enqueue_many(queue, [Letter() for _ in range(1200)])
        await workshop.burst(queue.processed_by(process))
        assert max(calls) <= (500, 500)
        assert sum(fetched for _, fetched in calls) == 1200


class TestIdling:
    @pytest.mark.parametrize(
        ("slots", "running"), [(10, 0), (10, 1), (10, 3), (10, 9), (10, 10), (1, 1), (1200, 100)]
    )
    async def test_free_slots_and_an_empty_queue_cost_few_calls(
        self, workshop: Any, monkeypatch: pytest.MonkeyPatch, slots: int, running: int
    ) -> None:
        asked: list[int] = []
        advance = QueueStore.advance

        async def counting(
            store: QueueStore, worker: str, seq: int, endings: Any, want: int, **more: Any
        ) -> Advanced:
            asked.append(want)
            return await advance(store, worker, seq, endings, want, **more)

        monkeypatch.setattr(QueueStore, "advance", counting)
        go_on = asyncio.Event()

        async def process(_job: Job[Letter]) -> None:
            await go_on.wait()

        queue = Queue("letters", Letter, concurrency=slots)
        made = await workshop.producer(queue).enqueue_many(
            queue, [Letter() for _ in range(running)]
        )
        async with workshop.working(queue.processed_by(process)):
            for enqueued in made[-1:]:
                await workshop.until(queue, enqueued.id, "active")
            await asyncio.sleep(0.2)  # long enough for a thousand calls
            assert len(asked) <= 6, "it waits for a marker instead of asking again and again"
            go_on.set()


class TestConcurrency:
    @pytest.mark.parametrize("kind", ["async def", "def"])
    async def test_no_more_jobs_run_at_once_than_there_are_slots_and_all_slots_are_used(
        self, workshop: Any, kind: str
    ) -> None:
        running: list[int] = []
        held = 0

        async def on_loop(_job: Job[Letter]) -> None:
            nonlocal held
            held += 1
            running.append(held)
            await asyncio.sleep(0.005)
            held -= 1

        def on_thread(job: Job[Letter]) -> None:
            running.append(0)
            time.sleep(0.005)

        queue = Queue("letters", Letter, concurrency=4)
        jobs = workshop.producer(queue)
        await jobs.enqueue_many(queue, [Letter() for _ in range(40)])
        await workshop.burst(queue.processed_by(on_loop if kind == "async def" else on_thread))
        assert len(running) == 40
        if kind == "async def":
            assert max(running) == 4
        active, most = 0, 0
        for event in await workshop.events(queue):
            active += {"active": 1, "completed": -1}.get(event["event"], 0)
            most = max(most, active)
        assert most == 4

    async def test_the_command_overrides_the_declaration_and_the_declaration_the_setting(
        self, workshop: Any
    ) -> None:
        declared, plain = Queue("declared", Letter, concurrency=3), Queue("plain", Letter)
        both = (declared.processed_by(nothing), plain.processed_by(nothing))
        for given, expected in (
            ({}, {"declared": 3, "plain": 10}),
            ({"declared": 2}, {"declared": 2, "plain": 10}),
        ):
            with capture_logs() as logged:
                await workshop.burst(*both, concurrency=given)
            assert logged[0]["queues"] == expected

    async def test_global_concurrency_holds_over_two_workers_and_nothing_gets_stuck(
        self, workshop: Any
    ) -> None:
        async def process(_job: Job[Letter]) -> None:
            await asyncio.sleep(0.003)

        await workshop.raw.hset("bull:letters:meta", "concurrency", 2)
        made = await workshop.producer(letters).enqueue_many(letters, [Letter() for _ in range(30)])
        async with (
            workshop.working(letters.processed_by(process)),
            workshop.working(letters.processed_by(process)),
        ):
            for enqueued in made:
                await workshop.until(letters, enqueued.id, "completed", seconds=8)
        active, most = 0, 0
        for event in await workshop.events(letters):
            active += {"active": 1, "completed": -1}.get(event["event"], 0)
            most = max(most, active)
        assert most == 2

    async def test_a_queues_rate_limit_holds_in_every_window(self, workshop: Any) -> None:
        await workshop.raw.hset("bull:letters:meta", mapping={"max": 3, "duration": 100})
        made = await workshop.producer(letters).enqueue_many(letters, [Letter() for _ in range(9)])
        async with workshop.working(letters.processed_by(nothing)):
            for enqueued in made:
                await workshop.until(letters, enqueued.id, "completed")
        starts = sorted(
            [dict(await workshop.stamps(letters, enqueued.id))["active"] for enqueued in made]
        )
        windows = [starts[index : index + 3] for index in (0, 3, 6)]
        assert all(window[-1] - window[0] < 50 for window in windows), "three at once"
        assert all(later[0] - earlier[0] >= 100 for earlier, later in pairwise(windows))


class TestIsolation:
    @pytest.mark.parametrize("concurrency", [1, 3, 20])
    async def test_no_job_sees_the_context_variables_that_another_has_set(
        self, workshop: Any, concurrency: int
    ) -> None:
        """The ending of one job may send the call that fetches the next."""
        seen: list[str] = []

        async def process(job: Job[Letter]) -> None:
            seen.append(word.get())
            word.set(job.payload.text)

        await workshop.producer(letters).enqueue_many(
            letters, [Letter(text=f"of job {n}") for n in range(60)]
        )
        await workshop.burst(letters.processed_by(process), concurrency={"letters": concurrency})
        assert seen == ["of no worker"] * 60


class TestOrder:
    async def test_first_in_first_out_then_by_priority_and_lifo_first_of_all(
        self, workshop: Any
    ) -> None:
        order: list[str] = []

        async def process(job: Job[Letter]) -> None:
            order.append(job.payload.text)

        jobs = workshop.producer(letters)
        for text, options in (
            ("low", {"priority": 9}),
            ("high", {"priority": 1}),
            ("high too", {"priority": 1}),
            ("first", {}),
            ("second", {}),
            ("last in", {"lifo": True}),
        ):
            await jobs.enqueue(letters, Letter(text=text), **options)
        await workshop.burst(letters.processed_by(process), concurrency={"letters": 1})
        assert order == ["last in", "first", "second", "high", "high too", "low"]

    async def test_a_paused_queue_starts_nothing_until_it_is_resumed(self, workshop: Any) -> None:
        jobs = workshop.producer(letters)
        async with workshop.working(letters.processed_by(nothing)):
            await workshop.raw.hset("bull:letters:meta", "paused", 1)
            await workshop.raw.delete("bull:letters:marker")
            paused = [
                await jobs.enqueue(letters, Letter(), delay=delay) for delay in (0 * MS, 20 * MS)
            ]
            await workshop.raw.zadd(
                "bull:letters:marker", {"0": 0}
            )  # a marker that another worker has left

            async def due() -> bool:
                return bool(await workshop.raw.llen("bull:letters:wait") == 2)

            await workshop.wait_until(due, "the delayed job is promoted, and waits")
            assert await workshop.raw.llen("bull:letters:active") == 0
            await workshop.raw.hdel("bull:letters:meta", "paused")
            await workshop.raw.zadd("bull:letters:marker", {"0": 0})
            for enqueued in paused:
                await workshop.until(letters, enqueued.id, "completed")


class TestWaking:
    """Tests whose limits are shorter than a blocking pop.

    A lost wake-up delays a job by up to four seconds, the length of a blocking pop.
    """

    @pytest.mark.timing
    async def test_an_idle_worker_starts_a_job_at_once(self, workshop: Any) -> None:
        jobs = workshop.producer(letters)
        await jobs.enqueue(letters, Letter())
        late: list[int] = []
        async with workshop.working(letters.processed_by(nothing)):
            for _ in range(20):
                enqueued = await jobs.enqueue(letters, Letter())
                await workshop.until(letters, enqueued.id, "completed", every=0.002)
                at = dict(await workshop.stamps(letters, enqueued.id))
                late.append(at["active"] - at["added"])
                await asyncio.sleep(0.02)
        print(f"picked up after {sorted(late)} ms")
        assert sorted(late)[10] <= 10
        assert max(late) <= 100

    @pytest.mark.timing
    async def test_a_delayed_job_starts_when_it_is_due(self, workshop: Any) -> None:
        jobs = workshop.producer(letters)
        late = {}
        async with workshop.working(letters.processed_by(nothing)):
            made = {
                delay: await jobs.enqueue(letters, Letter(), delay=delay * MS)
                for delay in (400, 1, 150, 60)
            }
            for delay, enqueued in made.items():
                await workshop.until(letters, enqueued.id, "completed")
                at = dict(await workshop.stamps(letters, enqueued.id))
                late[delay] = at["active"] - at["added"] - delay
        print(f"started {late} ms after they were due")
        assert min(late.values()) >= 0
        assert max(late.values()) <= 60

    async def test_waiting_for_a_due_time_costs_one_timer_however_much_happens_meanwhile(
        self, workshop: Any
    ) -> None:
        jobs = workshop.producer(letters)
        later = await jobs.enqueue(letters, Letter(), delay=3000 * MS)
        async with workshop.working(letters.processed_by(nothing), concurrency={"letters": 2}):
            for enqueued in await jobs.enqueue_many(letters, [Letter() for _ in range(50)]):
                await workshop.until(letters, enqueued.id, "completed")
            pending = [
                handle for handle in asyncio.get_running_loop()._scheduled if not handle.cancelled()
            ]
            assert len([handle for handle in pending if "Lookout.look" in repr(handle)]) == 1
        assert await workshop.state(letters, later.id) == "delayed"
