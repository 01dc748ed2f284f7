"""The lease thread renews locks whatever the event loop does, and no error ends the thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from corral import Job, Payload, Queue
from corral.store.connection import Link, ThreadLink
from corral.store.queue_store import QueueStore
from corral.worker import leases as leases_module
from corral.worker.leases import Lease, Leases
from corral.worker.outage import ConnectionReport, Outage
from logged import capture_logs

pytestmark = pytest.mark.asyncio

LOCK_SECONDS = 0.4


class Letter(Payload):
    pass


@pytest_asyncio.fixture
async def leases(store_url: str) -> AsyncIterator[Leases]:
    leases = Leases(store_url, LOCK_SECONDS, ConnectionReport(Outage()))
    leases.start()
    yield leases
    leases.stop()
    assert "corral-leases" not in {thread.name for thread in threading.enumerate()}


@pytest.fixture
def lease(store_url: str, raw: Any) -> Any:
    """`await lease("a", lost, until)`: a lease, and its lock in the store for `LOCK_SECONDS`."""

    async def lease(
        job_id: str, lost: Callable[[], object], until: float | None = None, token: str = "t:1"
    ) -> Lease:
        await raw.set(f"bull:letters:{job_id}:lock", token, px=int(LOCK_SECONDS * 1000))
        return Lease(
            QueueStore(Link(store_url), "bull", "letters"),
            job_id,
            "t:1",
            lambda held: held(),
            lost,
            time.monotonic(),
            until,
        )

    return lease


async def outlives(raw: Any, job_id: str, locks: int) -> bool:
    """Return whether a lock exists at every check, for a number of its lifetimes."""
    deadline = time.monotonic() + locks * LOCK_SECONDS
    while time.monotonic() < deadline:
        if not await raw.exists(f"bull:letters:{job_id}:lock"):
            return False
        await asyncio.sleep(LOCK_SECONDS / 20)
    return True


@pytest.mark.timing
async def test_a_lock_lives_as_long_as_its_lease_and_no_longer(
    leases: Leases, lease: Any, raw: Any
) -> None:
    lost: list[str] = []
    held = await lease("a", lambda: lost.append("a"))
    leases.hold([held])
    assert await outlives(raw, "a", 3)
    leases.release([held])
    assert not await outlives(raw, "a", 2)
    assert lost == []


async def test_a_lock_of_another_worker_is_reported_once_and_left_alone(
    leases: Leases, lease: Any, raw: Any, wait_until: Any
) -> None:
    lost: list[str] = []
    taken = await lease("a", lambda: lost.append(threading.current_thread().name), token="other:7")
    gone = await lease("b", lambda: lost.append("gone"))
    await raw.delete("bull:letters:b:lock")
    leases.hold([taken, gone])
    await wait_until(lambda: len(lost) == 2, "both are reported")
    assert not await outlives(raw, "a", 2), "it is not ours to renew"
    assert sorted(lost) == ["corral-leases", "gone"]
    assert not await raw.exists("bull:letters:b:lock"), "no key is made for a job that is gone"


@pytest.mark.corral_untidy("its locks belong to no job, and are never released")
@pytest.mark.timing
async def test_whatever_is_raised_the_thread_goes_on(leases: Leases, lease: Any, raw: Any) -> None:
    def broken() -> None:
        raise ZeroDivisionError("while it is reported")

    with capture_logs():
        leases.hold([await lease("a", broken, token="other:7"), await lease("b", lambda: None)])
        assert await outlives(raw, "b", 4)


@pytest.mark.timing
async def test_a_lease_with_an_end_is_renewed_until_then(
    leases: Leases, lease: Any, raw: Any
) -> None:
    leases.hold([await lease("a", lambda: None, until=time.monotonic() + 2 * LOCK_SECONDS)])
    assert await outlives(raw, "a", 2)
    assert not await outlives(raw, "a", 2)


async def test_a_process_whose_loop_has_stopped_for_good_loses_its_locks(
    leases: Leases, lease: Any, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases_module, "LOOP_SILENCE_SECONDS", LOCK_SECONDS)
    leases.note_turn()
    leases.hold([await lease("a", lambda: None)])
    assert not await outlives(raw, "a", 4)


@pytest.mark.parametrize("kind", ["async def", "def"])
async def test_a_run_whose_lock_is_lost_is_stopped_and_its_result_dropped(
    workshop: Any, kind: str
) -> None:
    queue = Queue("letters", Letter)
    entered, seen = threading.Event(), []

    async def on_loop(job: Job[Letter]) -> str:
        entered.set()
        try:
            await asyncio.sleep(60)
        finally:
            seen.append(job.cancelled)
        return "too late"

    def on_thread(job: Job[Letter]) -> str:
        entered.set()
        while not job.cancelled:
            time.sleep(0.005)
        seen.append(job.cancelled)
        return "too late"

    enqueued = await workshop.producer(queue).enqueue(queue, Letter())
    lock = f"bull:letters:{enqueued.id}:lock"
    with capture_logs() as logged:
        processor = queue.processed_by(on_loop if kind == "async def" else on_thread)
        async with workshop.working(
            processor, lock_seconds=LOCK_SECONDS, stalled_interval_seconds=60
        ):
            await workshop.wait_until(entered.is_set, "it runs")
            await workshop.raw.set(lock, "another:1")
            await workshop.wait_until(lambda: seen, "it is reported", seconds=3)
    assert [line["job_id"] for line in logged if line["event"].startswith("lock lost")] == [
        enqueued.id
    ]
    assert "returnvalue" not in await workshop.hash(queue, enqueued.id)
    assert await workshop.state(queue, enqueued.id) == "active", "it is the other's"
    assert await workshop.raw.get(lock) == "another:1"
    await workshop.raw.delete(lock, f"bull:letters:{enqueued.id}", "bull:letters:active")


async def test_no_result_of_200_is_written_if_another_worker_has_the_locks(workshop: Any) -> None:
    """The worker still sends their endings: only its next renewal, in seconds, shows the loss."""
    queue, count = Queue("letters", Letter), 200
    running, results_are_due = [], asyncio.Event()

    async def late(job: Job[Letter]) -> str:
        running.append(job.id)
        await results_are_due.wait()
        return "late"

    made = await workshop.producer(queue).enqueue_many(queue, [Letter()] * count)
    locks = [f"bull:letters:{enqueued.id}:lock" for enqueued in made]
    with capture_logs() as logged:
        async with workshop.working(
            queue.processed_by(late), concurrency={"letters": count}, lock_seconds=30
        ):
            await workshop.wait_until(lambda: len(running) == count, "all of them run")
            await workshop.raw.mset(dict.fromkeys(locks, "another:1"))
            results_are_due.set()

            def refused() -> list[str]:
                return [line["job_id"] for line in logged if line["event"].startswith("lock lost")]

            await workshop.wait_until(lambda: len(refused()) == count, "all results are refused")
    assert sorted(refused()) == sorted(enqueued.id for enqueued in made)
    assert await workshop.raw.zcard("bull:letters:completed") == 0
    assert set(await workshop.raw.mget(locks)) == {"another:1"}
    assert await workshop.raw.llen("bull:letters:active") == count
    for enqueued in made:
        assert "returnvalue" not in await workshop.hash(queue, enqueued.id)
    await workshop.raw.delete(
        "bull:letters:active", *locks, *(f"bull:letters:{enqueued.id}" for enqueued in made)
    )


@pytest.mark.parametrize("kept", ["all", "all but one", "none"])
async def test_a_reply_read_after_its_record_has_expired_starts_only_what_is_still_locked(
    workshop: Any, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    """All that goes between the worker and the store was held back so long.

    With all locks kept it is the call that waited, and not its reply.
    """
    queue, count = Queue("letters", Letter), 3
    advance, fetched, is_late = QueueStore.advance, asyncio.Event(), asyncio.Event()
    ran = []

    async def read_late(store: QueueStore, *arguments: Any, **options: Any) -> Any:
        reply = await advance(store, *arguments, **options)
        if reply.jobs and not fetched.is_set():
            fetched.set()
            await is_late.wait()
        return reply

    async def run(job: Job[Letter]) -> None:
        ran.append(job.id)

    monkeypatch.setattr(QueueStore, "advance", read_late)
    monkeypatch.setattr(Leases, "expect", lambda *_: None)  # renewals are held back
    made = await workshop.producer(queue).enqueue_many(queue, [Letter()] * count)
    held = made[: {"all": count, "all but one": count - 1, "none": 0}[kept]]
    locks = {each.id: f"bull:letters:{each.id}:lock" for each in made}
    lost = locks.keys() - {each.id for each in held}
    sent = time.monotonic()
    with capture_logs() as logged:
        async with workshop.working(
            queue.processed_by(run),
            concurrency={"letters": count},
            lock_seconds=LOCK_SECONDS,
            stalled_interval_seconds=60,
        ):
            await workshop.wait_until(fetched.is_set, "the jobs are fetched")
            records = [key async for key in workshop.raw.scan_iter("corral:bull:letters:call:*")]
            assert await workshop.raw.delete(*records) == 1
            for job, lock in locks.items():
                if job in lost:
                    await workshop.raw.set(lock, "another:1")
                else:
                    assert await workshop.raw.pexpire(lock, 60_000)
            await workshop.wait_until(
                lambda: time.monotonic() > sent + 2 * LOCK_SECONDS, "a lock's life is over"
            )
            is_late.set()
            await workshop.wait_until(lambda: len(ran) == len(held), "what is still locked runs")
            if lost:
                await workshop.wait_until(lambda: dropped(logged), "the others are dropped")
    assert sorted(ran) == sorted(each.id for each in held)
    assert dropped(logged) == ([len(lost)] if lost else [])
    for job in lost:
        assert await workshop.raw.get(locks[job]) == "another:1", "it is the other's"
        await workshop.raw.delete(locks[job], f"bull:letters:{job}")
    if lost:
        await workshop.raw.delete("bull:letters:active")


def dropped(logged: list[Any]) -> list[int]:
    return [line["jobs"] for line in logged if line["event"].startswith("fetched jobs are dropped")]


async def test_a_full_store_renews_locks(lease: Any, raw: Any, store_url: str) -> None:
    link = ThreadLink(store_url, read_seconds=5.0)
    held = await lease("a", lambda: None)
    await raw.config_set("maxmemory", 1)
    try:
        assert held.store.extend(link, [("a", "t:1")], 60_000) == (set(), set())
    finally:
        await raw.config_set("maxmemory", 0)
        link.close()
    assert await raw.pttl("bull:letters:a:lock") > 50_000
    await raw.delete("bull:letters:a:lock")


@pytest.mark.parametrize(
    ("record", "is_renewed"),
    [(7, True), (6, False), (None, False)],
    ids=["its record", "the record of the call before", "no record"],
)
async def test_a_call_on_its_way_counts_as_renewed_only_if_the_store_knows_it(
    workshop: Any, store_url: str, record: int | None, is_renewed: bool
) -> None:
    queue = Queue("letters", Letter)
    enqueued = await workshop.producer(queue).enqueue(queue, Letter())
    link = Link(store_url)
    store = QueueStore(link, "bull", "letters")
    if record is not None:
        await store.advance("w", record, [], 1, lock_ms=1000, ticks=b"", suspects=0)
    thread_link = ThreadLink(store_url, read_seconds=5.0)
    _, not_renewed = store.extend(thread_link, [], 60_000, worker="w", calls=[(store.lane, 7)])
    assert not_renewed == (set() if is_renewed else {0})
    lock = f"bull:letters:{enqueued.id}:lock"
    assert (await workshop.raw.pttl(lock) > 50_000) is is_renewed
    thread_link.close()
    await link.close()
    await workshop.raw.delete(lock)
