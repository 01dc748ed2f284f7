"""A failing script: its work is sent again in smaller calls; one bad ending delays no other."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from corral import Job, JobOptions, Payload, Queue, Retention
from corral.store.queue_store import QueueStore
from corral.store.replies import ResponseError
from logged import capture_logs

pytestmark = pytest.mark.asyncio

BAD = "bad"


class Letter(Payload):
    pass


letters = Queue(
    "letters", Letter, options=JobOptions(keep_completed=Retention(), keep_failed=Retention())
)


class Failing:
    """Makes the script of `advance` fail while `fails` is true.

    Attributes:
        calls: `(seq, endings, failed)` of each call.
        fails: Whether calls that end the job `BAD` fail.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[int, int, bool]] = []
        self.fails = True
        advance = QueueStore.advance

        async def failing(
            store: QueueStore, worker: str, seq: int, endings: Any, want: int, **rest: Any
        ) -> Any:
            failed = self.fails and any(ending.job.id == BAD for ending in endings)
            self.calls.append((seq, len(endings), failed))
            if failed:
                raise ResponseError("ERR user_script:1: something that nobody has foreseen")
            return await advance(store, worker, seq, endings, want, **rest)

        monkeypatch.setattr(QueueStore, "advance", failing)


@pytest.fixture
def store_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Failing]:
    return Failing(monkeypatch)


@pytest.mark.parametrize("concurrency", [1, 10, 100])
async def test_one_ending_that_cannot_be_written_holds_up_no_other(
    workshop: Any, store_calls: Failing, concurrency: int
) -> None:
    jobs = workshop.producer(letters)
    others = [(await jobs.enqueue(letters, Letter())).id for _ in range(60)]
    await jobs.enqueue(letters, Letter(), job_id=BAD)
    others += [(await jobs.enqueue(letters, Letter())).id for _ in range(60)]
    runs: Counter[str] = Counter()

    async def process(job: Job[Letter]) -> None:
        runs[job.id] += 1

    with capture_logs() as logged:
        processor = letters.processed_by(process)
        async with workshop.working(processor, concurrency={"letters": concurrency}) as working:

            async def others_ended() -> bool:
                return await workshop.raw.zcard("bull:letters:completed") == len(others)

            await workshop.wait_until(others_ended, "all others are completed")
            await workshop.wait_until(lambda: working.worker.troubles, "it is reported")
            assert repr(BAD) in working.worker.troubles["letters", "ending"]
            assert await workshop.state(letters, BAD) == "active", (
                "its lock is held, and it is not lost"
            )
            store_calls.fails = False
            await workshop.until(letters, BAD, "completed")
            await workshop.wait_until(lambda: not working.worker.troubles, "it is true no longer")
    assert runs == Counter([*others, BAD]), "each ran once"
    assert max(Counter(seq for seq, _, _ in store_calls.calls).values()) == 1, (
        "an error is never repeated under its number"
    )
    assert not [line for line in logged if "lock" in line["event"]]
    assert not [line for line in logged if line["event"].startswith("store ")], "it is no outage"
    errors = [line for line in logged if line["log_level"] == "error"]
    assert [line["event"] for line in errors] == [
        "a job's ending cannot be written, and is tried again"
    ]


async def test_a_batch_is_split_down_to_the_one(workshop: Any, store_calls: Failing) -> None:
    jobs = workshop.producer(letters)
    for number in range(32):
        await jobs.enqueue(letters, Letter(), job_id=BAD if number == 20 else None)

    async def process(_job: Job[Letter]) -> None:
        pass

    async with workshop.working(letters.processed_by(process), concurrency={"letters": 32}):

        async def others_ended() -> bool:
            return await workshop.raw.zcard("bull:letters:completed") == 31

        await workshop.wait_until(others_ended, "all others are completed")
        failed = [endings for _, endings, failed in store_calls.calls if failed]
        store_calls.fails = False
        await workshop.until(letters, BAD, "completed")
    assert failed[0] > 1
    assert min(failed) == 1
    assert all(
        after <= -(-before // 2) for before, after in itertools.pairwise(failed) if before > 1
    )
