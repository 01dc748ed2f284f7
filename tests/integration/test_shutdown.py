"""How a worker stops: jobs that can finish do, the others go back with no attempt spent.

Nothing keeps the process alive.
"""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest
import redis

from corral import Job, Payload, Queue
from corral.embedded.server import embedded_store
from corral.worker.worker import StopReport

pytestmark = pytest.mark.asyncio


class Letter(Payload):
    text: str = ""


letters, threads = Queue("acme-letters", Letter), Queue("acme-threads", Letter)
SERVED = ("acme-letters", "acme-threads")


@pytest.fixture
def started(workshop: Any, command: Any) -> Any:
    """`await started("sleep 1", queue=threads)`: a worker process that runs jobs, and their ids."""

    async def started(
        *texts: str, queue: Any = letters, timeout: float = 0.5, **environment: str
    ) -> tuple[Any, Any]:
        jobs = workshop.producer(letters, threads)
        made = [(await jobs.enqueue(queue, Letter(text=text))).id for text in texts]
        worker = command("worker", *SERVED, "--shutdown-timeout", str(timeout), **environment)
        for job_id in made:
            await workshop.until(queue, job_id, "active")
        return worker, made

    return started


async def ended(worker: Any, seconds: float = 10) -> int:
    return int(await asyncio.to_thread(worker.wait, seconds))


async def assert_handed_back(workshop: Any, queue: Any, job_id: str) -> None:
    assert await workshop.state(queue, job_id) == "wait"
    job = await workshop.hash(queue, job_id)
    assert "atm" not in job, "no attempt is spent"
    assert job["ats"] == "1"
    assert not await workshop.raw.exists(f"bull:{queue.name}:{job_id}:lock")
    assert (await workshop.events(queue, job_id))[-1] == {
        "event": "waiting",
        "jobId": job_id,
        "prev": "active",
    }
    assert await workshop.raw.zscore(f"bull:{queue.name}:marker", "0") == 0, (
        "an idle worker is woken"
    )


async def test_jobs_that_can_finish_do_and_the_others_go_back(workshop: Any, started: Any) -> None:
    worker, (quick, slow) = await started("sleep 0.4", "sleep 60", timeout=0.8)
    worker.process.send_signal(signal.SIGTERM)
    assert await ended(worker) == 5
    assert await workshop.state(letters, quick) == "completed"
    await assert_handed_back(workshop, letters, slow)
    assert "job handed back" in worker.said
    assert "Traceback" not in worker.said


async def test_where_everything_finishes_the_exit_code_is_zero(workshop: Any, started: Any) -> None:
    worker, made = await started("sleep 0.3", "sleep 0.3", timeout=5)
    waiting = [
        await workshop.producer(threads).enqueue(threads, Letter(text="sleep 0.2"))
        for _ in range(4)
    ]
    await workshop.until(threads, waiting[-1].id, "active")
    worker.process.send_signal(signal.SIGINT)
    assert await ended(worker) == 0
    assert [await workshop.state(letters, job_id) for job_id in made] == ["completed"] * 2
    assert [await workshop.state(threads, each.id) for each in waiting] == ["completed"] * 4


async def test_jobs_that_wait_when_the_worker_stops_are_not_started(
    workshop: Any, started: Any
) -> None:
    worker, _ = await started(*["sleep 0.4"] * 4, timeout=5)
    worker.process.send_signal(signal.SIGTERM)
    await workshop.wait_until(lambda: "worker stopping" in worker.said, "it stops")
    late = await workshop.producer(letters).enqueue(letters, Letter())
    assert await ended(worker) == 0
    assert await workshop.state(letters, late.id) == "wait"
    assert "ats" not in await workshop.hash(letters, late.id)
    assert await workshop.raw.zscore("bull:acme-letters:marker", "0") == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("text", "queue"),
    [
        ("sleep 60", letters),
        ("block 60", letters),
        ("in-c", letters),
        ("deaf", letters),
        ("block 60", threads),
    ],
    ids=["async def", "blocks the loop", "blocks the loop in C", "deaf", "def"],
)
async def test_a_second_signal_hands_the_jobs_back_at_once(
    workshop: Any, started: Any, text: str, queue: Any, number: int
) -> None:
    worker, (job_id,) = await started(text, queue=queue, timeout=60)
    worker.process.send_signal(number)
    await workshop.wait_until(
        lambda: "a second signal hands them back at once" in worker.said,
        "it announces what a second signal does",
    )
    assert worker.process.poll() is None
    assert await workshop.state(queue, job_id) == "active"
    worker.process.send_signal(number)
    assert await ended(worker, 5) == 5
    await assert_handed_back(workshop, queue, job_id)


@pytest.mark.parametrize(
    ("text", "queue"),
    [("block 60", threads), ("deaf", letters)],
    ids=["a thread", "a deaf coroutine"],
)
async def test_a_processor_that_never_returns_is_handed_back_and_not_waited_for(
    workshop: Any, started: Any, text: str, queue: Any
) -> None:
    worker, (job_id,) = await started(text, queue=queue, timeout=0.2)
    worker.process.send_signal(signal.SIGTERM)
    assert await ended(worker, 8) == 5
    await assert_handed_back(workshop, queue, job_id)
    assert "worker stopped" in worker.said


async def test_a_def_that_sees_that_it_is_cancelled_may_return_in_time(
    workshop: Any, started: Any
) -> None:
    worker, (job_id,) = await started("obedient", queue=threads, timeout=0.2)
    worker.process.send_signal(signal.SIGTERM)
    assert await ended(worker) == 5
    await assert_handed_back(workshop, threads, job_id)


async def test_a_worker_whose_store_is_away_does_not_wait_for_it_where_nothing_runs(
    command: Any, data_dir: Any, wait_until: Any
) -> None:
    with embedded_store(data_dir) as url:
        worker = command(
            "worker", *SERVED, REDIS_URL=url, CORRAL_WORKER__SHUTDOWN_TIMEOUT_SECONDS="60"
        )
        await wait_until(lambda: "worker started" in worker.said, "it has started")
        with redis.Redis.from_url(url) as client:
            client.shutdown(nosave=True)
        await wait_until(lambda: "store unavailable" in worker.said, "it has noticed")
        worker.process.send_signal(signal.SIGTERM)
        assert await ended(worker, 30) == 0, "it waited for the store, which it may do for 60 s"
        assert worker.said.count("store unavailable") == 1


@pytest.mark.timing
async def test_a_processor_that_blocks_for_three_locks_starts_once(
    workshop: Any, command: Any
) -> None:
    """The lease thread renews the locks that the loop cannot; another worker waits beside it."""
    blocked_ms = 3 * 800
    settings = {
        "CORRAL_WORKER__LOCK_SECONDS": "0.8",
        "CORRAL_WORKER__STALLED_INTERVAL_SECONDS": "0.4",
    }
    text = f"block {blocked_ms / 1000}"
    jobs = workshop.producer(letters, threads)
    threaded = await jobs.enqueue(threads, Letter(text=text))
    first = command("worker", *SERVED, **settings)
    await workshop.until(threads, threaded.id, "active")
    looping = (await jobs.enqueue(letters, Letter(text=text))).id
    await workshop.until(letters, looping, "active")
    second = command("worker", *SERVED, **settings)
    for queue, job_id in ((letters, looping), (threads, threaded.id)):
        await workshop.until(queue, job_id, "completed")
        stamps = await workshop.stamps(queue, job_id)
        ran_ms = stamps[-1][1] - dict(stamps)["active"]
        print(f"{queue.name}: ran for {ran_ms} ms under locks of 800 ms")
        assert [name for name, _ in stamps] == ["added", "waiting", "active", "completed"]
        assert (await workshop.hash(queue, job_id))["ats"] == "1"
        assert stamps[-1][1] - dict(stamps)["active"] >= blocked_ms
    # on a busy machine it may start later than the jobs end; before it has started, a SIGTERM is
    # not its own to handle
    await workshop.wait_until(
        lambda: "worker started" in second.said, "the second worker has started"
    )
    for worker in (first, second):
        worker.process.send_signal(signal.SIGTERM)
    assert [await ended(worker) for worker in (first, second)] == [0, 0]


class TestInProcess:
    async def test_a_stopped_worker_reports_what_it_handed_back_and_leaves_nothing_running(
        self, workshop: Any
    ) -> None:
        entered = asyncio.Event()

        async def process(_job: Job[Letter]) -> None:
            entered.set()
            await asyncio.sleep(60)

        enqueued = await workshop.producer(letters).enqueue(letters, Letter())
        async with workshop.working(
            letters.processed_by(process), shutdown_timeout_seconds=0.05
        ) as working:
            await entered.wait()
            assert await working.stop() == StopReport(handed_back=1, stuck=0)
        await assert_handed_back(workshop, letters, enqueued.id)

    async def test_a_cancelled_processor_may_clean_up_and_its_log_lines_are_kept(
        self, workshop: Any
    ) -> None:
        entered = asyncio.Event()

        async def process(job: Job[Letter]) -> None:
            try:
                entered.set()
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0.05)
                job.log("cleaned up")

        enqueued = await workshop.producer(letters).enqueue(letters, Letter())
        async with workshop.working(
            letters.processed_by(process), shutdown_timeout_seconds=0.05
        ) as working:
            await entered.wait()
            await working.stop()
        assert await workshop.raw.lrange(f"bull:acme-letters:{enqueued.id}:logs", 0, -1) == [
            "cleaned up"
        ]
        await assert_handed_back(workshop, letters, enqueued.id)

    async def test_a_job_goes_back_to_the_head_of_the_queue(self, workshop: Any) -> None:
        entered = asyncio.Event()

        async def process(_job: Job[Letter]) -> None:
            entered.set()
            await asyncio.sleep(60)

        jobs = workshop.producer(letters)
        first, second = await jobs.enqueue_many(letters, [Letter(), Letter()])
        settings = {"shutdown_timeout_seconds": 0.05, "concurrency": {"acme-letters": 1}}
        async with workshop.working(letters.processed_by(process), **settings):
            await entered.wait()
        assert await workshop.raw.lrange("bull:acme-letters:wait", 0, -1) == [second.id, first.id]

    async def test_a_worker_that_is_stopped_before_it_runs_ends_at_once(
        self, workshop: Any
    ) -> None:
        async def process(_job: Job[Letter]) -> None:
            pass

        async with workshop.working(letters.processed_by(process)) as working:
            assert await working.stop() == StopReport()
