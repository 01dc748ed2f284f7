"""Several workers and several queues: who is listed, who gets which job, no lost wake-up."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from corral import Deps, Job, Payload, Queue, Snooze
from corral.store.codec import Advanced
from corral.store.connection import Link
from corral.store.queue_store import QueueStore
from corral.worker import leases
from corral.worker.consumer import Consumer, Stage
from logged import capture_logs

pytestmark = pytest.mark.asyncio

BEFORE_THE_BLOCK_ENDS = 2.5
"""Seconds. A wake-up that is lost is noticed when the blocking wait ends, after four."""


class Letter(Payload):
    text: str = ""


letters = Queue("letters", Letter)


async def nothing(_job: Job[Letter]) -> None:
    pass


@pytest.fixture
def blocked(workshop: Any) -> Any:
    """`await blocked(2)`: wait until this many clients block on a marker."""

    async def blocked(count: int) -> None:
        async def met() -> bool:
            return bool((await workshop.raw.info("clients"))["blocked_clients"] == count)

        await workshop.wait_until(met, f"{count} clients block")

    return blocked


class Held:
    """Holds back the replies of `advance` once `hold` is set, like a slow network."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hold, self.has_one, self.may_go = asyncio.Event(), asyncio.Event(), asyncio.Event()
        advance = QueueStore.advance

        async def slow(store: QueueStore, *arguments: Any, **more: Any) -> Advanced:
            reply = await advance(store, *arguments, **more)
            if self.hold.is_set():
                self.has_one.set()
                await self.may_go.wait()
            return reply

        monkeypatch.setattr(QueueStore, "advance", slow)

    def release(self) -> None:
        self.hold.clear()
        self.may_go.set()


class TestWakeUps:
    async def test_a_marker_taken_while_a_call_is_on_its_way_is_not_forgotten(
        self, workshop: Any, blocked: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The call's reply does not contain a job that was added later."""
        finish = asyncio.Event()

        async def process(job: Job[Letter]) -> None:
            if job.payload.text == "first":
                await finish.wait()

        held = Held(monkeypatch)
        jobs = workshop.producer(letters)
        async with workshop.working(letters.processed_by(process)):
            await jobs.enqueue(letters, Letter(text="first"))
            await workshop.wait_until(lambda: workshop.raw.llen("bull:letters:active"), "it runs")
            await blocked(1)
            held.hold.set()
            finish.set()
            await held.has_one.wait()
            second = await jobs.enqueue(letters, Letter())
            await blocked(0)
            held.release()
            await workshop.until(letters, second.id, "completed", seconds=BEFORE_THE_BLOCK_ENDS)

    async def test_a_marker_taken_by_a_worker_whose_slots_fill_is_handed_on(
        self, workshop: Any, blocked: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        finish, end = asyncio.Event(), asyncio.Event()

        async def process(job: Job[Letter]) -> None:
            await {"first": finish.wait, "long": end.wait}[job.payload.text]()

        held = Held(monkeypatch)
        jobs = workshop.producer(letters)
        async with workshop.working(letters.processed_by(process), concurrency={"letters": 2}):
            await jobs.enqueue(letters, Letter(text="first"))
            await workshop.wait_until(lambda: workshop.raw.llen("bull:letters:active"), "it runs")
            await blocked(1)
            async with workshop.working(letters.processed_by(nothing)):
                await blocked(
                    2
                )  # a marker goes to the client that has blocked for longest: the first
                for job_id in (
                    "long-1",
                    "long-2",
                ):  # without a marker: they are for the worker that asks next
                    await workshop.raw.hset(
                        f"bull:letters:{job_id}", mapping={"data": '{"text":"long"}', "opts": "{}"}
                    )
                    await workshop.raw.lpush("bull:letters:wait", job_id)
                held.hold.set()
                finish.set()
                await held.has_one.wait()
                last = await jobs.enqueue(letters, Letter())

                async def taken() -> bool:
                    return not await workshop.raw.exists("bull:letters:marker")

                await workshop.wait_until(taken, "its marker is taken")
                held.release()
                await workshop.until(letters, last.id, "completed", seconds=BEFORE_THE_BLOCK_ENDS)
                end.set()

    async def test_a_marker_taken_by_a_worker_that_stops_is_handed_on(
        self, workshop: Any, blocked: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        consumers: list[Consumer] = []
        made, call = Consumer.__init__, Link.call

        def remembered(consumer: Consumer, *arguments: Any, **more: Any) -> None:
            made(consumer, *arguments, **more)
            consumers.append(consumer)

        async def stopping(link: Link, *command: Any, **how: Any) -> Any:
            reply = await call(link, *command, **how)
            if (
                command[0] == "BZPOPMIN"
                and reply is not None
                and consumers[0]._stage is not Stage.DRAINING
            ):
                consumers[0].stop()
            return reply

        monkeypatch.setattr(Consumer, "__init__", remembered)
        monkeypatch.setattr(Link, "call", stopping)
        async with workshop.working(letters.processed_by(nothing)):
            await blocked(1)
            async with workshop.working(letters.processed_by(nothing)):
                await blocked(2)
                enqueued = await workshop.producer(letters).enqueue(letters, Letter())
                await workshop.until(
                    letters, enqueued.id, "completed", seconds=BEFORE_THE_BLOCK_ENDS
                )

    async def test_a_worker_that_stops_while_it_waits_leaves_the_marker_to_the_others(
        self, workshop: Any, blocked: Any
    ) -> None:
        """The interrupted wait may have taken it; an extra wake-up costs one empty fetch."""
        async with workshop.working(letters.processed_by(nothing)) as working:
            await blocked(1)
            await working.stop()
            assert await workshop.raw.zrange("bull:letters:marker", 0, -1) == ["0"]


class TestLateAnswers:
    async def test_a_job_whose_lock_has_expired_before_we_heard_of_it_is_left_to_others(
        self, workshop: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As in a frozen process: the locks of jobs fetched meanwhile were not renewed."""
        monkeypatch.setattr(leases, "LOOP_SILENCE_SECONDS", -1.0)
        ran: list[str] = []

        def worker(name: str) -> Any:
            async def process(_job: Job[Letter]) -> None:
                ran.append(name)

            settings = {"lock_seconds": 0.3, "stalled_interval_seconds": 0.2}
            return workshop.working(letters.processed_by(process), name=name, **settings)

        held = Held(monkeypatch)
        enqueued = await workshop.producer(letters).enqueue(letters, Letter())
        held.hold.set()
        with capture_logs() as logged:
            async with worker("late"):
                await held.has_one.wait()
                held.hold.clear()  # for the other worker's calls
                async with worker("other"):
                    await workshop.until(letters, enqueued.id, "completed")
                    held.release()
                    await workshop.wait_until(
                        lambda: "jobs are dropped" in str(logged), "it has heard of it"
                    )
        assert ran == ["other"]

    @pytest.mark.timing
    async def test_a_lock_is_renewed_at_once_where_its_job_came_late(
        self, workshop: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The time runs from the store's answer, not from ours."""
        held = Held(monkeypatch)
        lock_ms: list[int] = []

        async def process(job: Job[Letter]) -> None:
            for _ in range(20):
                lock_ms.append(await workshop.raw.pttl(f"bull:letters:{job.id}:lock"))
                await asyncio.sleep(0.02)

        enqueued = await workshop.producer(letters).enqueue(letters, Letter())
        held.hold.set()
        async with workshop.working(letters.processed_by(process), lock_seconds=1):
            await held.has_one.wait()
            await asyncio.sleep(0.7)  # what is left is less than the time to a first renewal
            held.release()
            await workshop.until(letters, enqueued.id, "completed")
        print(f"{lock_ms[0]} ms were left of its lock, and never less than {min(lock_ms)}")
        assert min(lock_ms) > 0


class TestSharing:
    async def test_each_job_runs_once_however_many_workers_share_the_queue(
        self, workshop: Any
    ) -> None:
        ran: list[tuple[str, str]] = []

        def worker(name: str) -> Any:
            async def process(job: Job[Letter]) -> None:
                ran.append((job.id, name))
                await asyncio.sleep(0.002)

            return workshop.working(
                letters.processed_by(process), concurrency={"letters": 5}, name=name
            )

        made = await workshop.producer(letters).enqueue_many(
            letters, [Letter() for _ in range(300)]
        )
        async with worker("one"), worker("two"), worker("three"):
            for enqueued in made:
                await workshop.until(letters, enqueued.id, "completed")
        assert Counter(job_id for job_id, _ in ran) == dict.fromkeys(
            (enqueued.id for enqueued in made), 1
        )
        shares = Counter(name for _, name in ran)
        assert min(shares[name] for name in ("one", "two", "three")) > 20, shares
        assert {(await workshop.hash(letters, enqueued.id))["pb"] for enqueued in made} == {
            "one",
            "two",
            "three",
        }

    async def test_a_worker_is_seen_once_under_its_name(self, workshop: Any, blocked: Any) -> None:
        other = Queue("data-exports", Letter)
        async with workshop.working(
            letters.processed_by(nothing), other.processed_by(nothing), name="w-1"
        ):
            await blocked(2)
            names = [
                client["name"] for client in await workshop.raw.client_list() if client["name"]
            ]
        encoded = [base64.b64encode(name.encode()).decode() for name in ("letters", "data-exports")]
        assert sorted(names) == sorted(f"bull:{name}:w:w-1" for name in encoded)

    async def test_a_made_up_name_is_unique(self, workshop: Any, blocked: Any) -> None:
        async with (
            workshop.working(letters.processed_by(nothing)),
            workshop.working(letters.processed_by(nothing)),
        ):
            await blocked(2)
            names = [
                client["name"] for client in await workshop.raw.client_list() if client["name"]
            ]
        assert len(set(names)) == 2


class TestBurst:
    async def test_ends_when_nothing_waits_and_nothing_runs(self, workshop: Any) -> None:
        async def process(job: Job[Letter]) -> None:
            if job.attempt == 1:
                raise ConnectionError

        queue = Queue("letters", Letter)
        jobs = workshop.producer(queue)
        await workshop.raw.hset(
            "bull:letters:again", mapping={"data": "{}", "opts": '{"attempts":2}'}
        )
        await workshop.raw.lpush("bull:letters:wait", "again")
        delayed = await jobs.enqueue(queue, Letter(), delay=timedelta(hours=1))
        await workshop.burst(queue.processed_by(process))
        assert await workshop.state(queue, "again") == "completed", "a retry at once is worked off"
        assert await workshop.state(queue, delayed.id) == "delayed", "a delayed job is not awaited"

    async def test_ends_at_once_where_there_is_nothing(self, workshop: Any) -> None:
        await workshop.burst(letters.processed_by(nothing))
        assert await workshop.raw.keys("bull:*") in ([], ["bull:letters:stalled-check"])

    async def test_works_off_what_a_job_enqueues_into_a_queue_that_was_empty(
        self, workshop: Any
    ) -> None:
        first, second, third = (Queue(name, Letter) for name in ("first", "second", "third"))
        jobs = workshop.producer(first, second, third)
        done: list[str] = []

        async def on_third(job: Job[Letter]) -> None:
            await asyncio.sleep(0.05)
            await jobs.enqueue(second, Letter())

        async def on_second(job: Job[Letter]) -> None:
            await asyncio.sleep(0.05)
            await jobs.enqueue(first, Letter())

        async def on_first(job: Job[Letter]) -> None:
            done.append(job.id)

        await jobs.enqueue(third, Letter())
        await workshop.burst(
            first.processed_by(on_first),
            second.processed_by(on_second),
            third.processed_by(on_third),
        )
        assert len(done) == 1

    async def test_waits_for_the_end_of_a_rate_limit(self, workshop: Any) -> None:
        await workshop.raw.hset("bull:letters:meta", mapping={"max": 1, "duration": 30})
        made = await workshop.producer(letters).enqueue_many(letters, [Letter() for _ in range(3)])
        await workshop.burst(letters.processed_by(nothing))
        assert [await workshop.state(letters, enqueued.id) for enqueued in made] == [
            "completed"
        ] * 3

    async def test_does_not_wait_for_what_snoozes(self, workshop: Any) -> None:
        async def process(_job: Job[Letter]) -> None:
            raise Snooze(after=timedelta(hours=1))

        enqueued = await workshop.producer(letters).enqueue(letters, Letter())
        await workshop.burst(letters.processed_by(process))
        assert await workshop.state(letters, enqueued.id) == "delayed"


class TestResources:
    async def test_a_resource_is_opened_once_before_the_first_job_and_closed_after_the_last(
        self, workshop: Any
    ) -> None:
        from contextlib import asynccontextmanager

        log: list[str] = []

        @asynccontextmanager
        async def open_pool(_deps: Deps) -> Any:
            log.append("pool opened")
            yield "pool"
            log.append("pool closed")

        @asynccontextmanager
        async def open_mail(deps: Deps) -> Any:
            yield f"mail over {await deps.enter(open_pool)}"
            log.append("mail closed")

        @asynccontextmanager
        async def open_files(deps: Deps) -> Any:
            yield f"files over {await deps.enter(open_pool)}"
            log.append("files closed")

        async def on_loop(_job: Job[Letter], mail: str) -> None:
            log.append(mail)

        def on_thread(_job: Job[Letter], files: str) -> None:
            log.append(files)

        exports = Queue("exports", Letter)
        jobs = workshop.producer(letters, exports)
        await jobs.enqueue(letters, Letter())
        await jobs.enqueue(exports, Letter())
        await workshop.burst(
            letters.processed_by(on_loop, using=open_mail),
            exports.processed_by(on_thread, using=open_files),
        )
        assert log[0] == "pool opened"
        assert sorted(log[1:3]) == ["files over pool", "mail over pool"]
        assert log[3:] == ["files closed", "mail closed", "pool closed"]

    async def test_a_thread_reaches_the_loop_through_its_resource(self, workshop: Any) -> None:
        from contextlib import asynccontextmanager

        @asynccontextmanager
        async def with_deps(deps: Deps) -> Any:
            yield deps

        def process(job: Job[Letter], deps: Deps) -> None:
            if not job.payload.text:
                deps.wait(
                    deps.jobs.enqueue(
                        letters, Letter(text="follow-up"), job_id=job.key("follow-up")
                    )
                )

        enqueued = await workshop.producer(letters).enqueue(letters, Letter())
        await workshop.burst(letters.processed_by(process, using=with_deps))
        assert await workshop.state(letters, f"letters.{enqueued.id}.follow-up") == "completed"


async def test_a_mistake_of_ours_ends_the_worker_and_says_which(
    workshop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must not wait for ever for a call that will never be answered."""

    async def broken(*_arguments: Any, **_more: Any) -> Advanced:
        raise ZeroDivisionError("in the middle of a call")

    monkeypatch.setattr(QueueStore, "advance", broken)
    with pytest.raises(ZeroDivisionError):
        async with workshop.working(letters.processed_by(nothing)) as working:
            await asyncio.wait_for(asyncio.shield(working.running), BEFORE_THE_BLOCK_ENDS)


async def test_the_next_job_that_stalled_before_starts_when_the_store_has_the_ending_of_the_last(
    workshop: Any, blocked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then, a new job that killed the process would cost the last one a second stall."""
    held, go = Held(monkeypatch), asyncio.Event()
    started: list[str] = []

    async def run(job: Job[Letter]) -> None:
        started.append(job.id)
        await go.wait()

    jobs = workshop.producer(letters)
    for job_id in ("one", "two"):
        await jobs.enqueue(letters, Letter(), job_id=job_id)
        await workshop.raw.hset(f"bull:letters:{job_id}", "stc", 1)
    async with workshop.working(
        letters.processed_by(run), concurrency={"letters": 4}, max_stalled=5
    ):
        await workshop.wait_until(lambda: started == ["one"], "the first has started")
        await blocked(1)  # no other call is on its way: the next one is that of the ending
        held.hold.set()
        go.set()
        await asyncio.wait_for(held.has_one.wait(), 5)
        assert await workshop.state(letters, "one") == "completed"
        assert await workshop.state(letters, "two") == "wait", (
            "the call that wrote the first one's ending"
        )
        held.release()
        await workshop.until(letters, "two", "completed")
