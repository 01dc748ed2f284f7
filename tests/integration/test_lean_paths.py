"""The scripts' lean paths do the same as the general path, with fewer commands.

Each test runs on both, by the fixture `path`, on the embedded server and on Redis 7.0.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from corral import JobOptions, Retention
from corral.outcome import Completed, Outcome, Retried
from corral.store.codec import Advanced, Ending, FetchedJob, NewJob, encode_options
from corral.store.connection import Link
from corral.store.queue_store import QueueStore
from integration.servers import KINDS, Server, server

pytestmark = pytest.mark.asyncio

BASE = "bull:letters:"
KEEP = JobOptions(attempts=2, keep_completed=Retention(), keep_failed=Retention())
DONE = Completed(b'"done"')
NODE_COMMANDS = 22.5
"""What BullMQ for Node runs per job at concurrency 1."""
MANY = 100_000


@pytest.fixture(params=KINDS)
def own_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with server(request.param) as on:
        yield on


class Worker:
    """A worker whose calls the test makes, and what its queue contains.

    Args:
        on: The server.
        options: The queue's.
    """

    def __init__(self, on: Server, options: JobOptions = KEEP) -> None:
        self.raw: Any = on.admin
        self.store = QueueStore(Link(on.url()), "bull", "letters", options=options)
        self.running: dict[str, FetchedJob] = {}
        self._seq = 0

    async def add(self, *ids: str) -> None:
        assert all(
            await self.store.add(
                [NewJob(job, "letters", b"{}", encode_options(KEEP)) for job in ids]
            )
        )

    async def advance(self, *ended: str, want: int = 0, outcome: Outcome = DONE) -> Advanced:
        """End jobs in this order, and fetch."""
        self._seq += 1
        endings = [Ending(self.running.pop(job), outcome) for job in ended]
        advanced = await self.store.advance("w", self._seq, endings, want)
        self.running |= {job.id: job for job in advanced.jobs}
        return advanced

    def active(self) -> list[str]:
        """The jobs that run, the newest first."""
        found: list[str] = self.raw.lrange(f"{BASE}active", 0, -1)
        return found

    def jobs_of_event(self, event: str) -> list[str]:
        """Return the jobs that have this event, in order."""
        entries = self.raw.xrange(f"{BASE}events")
        return [fields["jobId"] for _, fields in entries if fields["event"] == event]

    def commands(self) -> dict[str, int]:
        """Return how often scripts ran each command since `CONFIG RESETSTAT`."""
        outside = {"evalsha", "eval", "info", "config|resetstat"}
        stats = self.raw.info("commandstats")
        return {name[8:]: each["calls"] for name, each in stats.items() if name[8:] not in outside}


@pytest_asyncio.fixture
async def worker(own_server: Server) -> AsyncIterator[Worker]:
    hired = Worker(own_server)
    yield hired
    await hired.store.close()


async def test_a_plain_job_costs_fewer_commands_than_with_bullmq(worker: Worker, path: str) -> None:
    """Shows that the lean path is taken: for a job at concurrency 1, and for fifty in one call."""
    await worker.add(*(f"j{number}" for number in range(160)))
    await worker.advance(want=1)
    await worker.advance(*worker.running, want=1)
    worker.raw.config_resetstat()
    await worker.advance(*worker.running, want=1)
    single = worker.commands()
    await worker.advance(*worker.running, want=50)
    worker.raw.config_resetstat()
    await worker.advance(*worker.running, want=50)
    per_job = sum(worker.commands().values()) / 50
    print(
        f"{path}: {sum(single.values())} commands for a single job,"
        f" {per_job:.2f} each for fifty: {single}"
    )
    if path == "lean":
        # LLEN once a second
        assert sum(single.values()) - single.get("llen", 0) == 19 < NODE_COMMANDS
        assert per_job < 7.5
    else:
        assert sum(single.values()) > NODE_COMMANDS


@pytest.mark.parametrize(
    "gone", [[], ["j2"], ["j0"], ["j4"], ["j0", "j1", "j2", "j3", "j4"]], ids=len
)
@pytest.mark.parametrize("others", [0, 2], ids=["all-that-run", "beside-older-ones"])
async def test_a_job_that_is_not_active_any_more_does_not_change_the_order_of_the_others(
    worker: Worker, path: str, gone: list[str], others: int
) -> None:
    older = [f"older{number}" for number in range(others)]
    await worker.add(*older, *(f"j{number}" for number in range(8)))
    await worker.advance(want=others + 8)
    for job in gone:
        worker.raw.lrem(f"{BASE}active", 0, job)
        worker.raw.zadd(f"{BASE}failed", {job: 1})  # as if another client had failed it
    ending = ["j2", "j0", "j1", "j3", "j4"]
    codes = (await worker.advance(*ending)).codes
    assert list(codes) == [-3 if job in gone else 0 for job in ending]
    assert worker.active() == ["j7", "j6", "j5", *reversed(older)]
    assert set(worker.raw.zrange(f"{BASE}completed", 0, -1)) == set(ending) - set(gone)
    assert worker.jobs_of_event("completed") == [job for job in ending if job not in gone]


@pytest.mark.parametrize(
    "key", ["events", "completed", "active", "marker", "metrics:completed", "limiter", "stalled"]
)
@pytest.mark.parametrize("size", [1, 5])
async def test_beside_a_damaged_key_no_job_is_lost_or_ended_twice(
    worker: Worker, path: str, key: str, size: int
) -> None:
    """The damaged key goes to the quarantine, now or with the next stalled check.

    `active` must be repaired by an operator.
    """
    await worker.add(*(f"j{number}" for number in range(3 * size)))
    await worker.advance(want=size)
    worker.raw.delete(BASE + key)
    worker.raw.set(BASE + key, "damaged")
    ended = list(worker.running)
    reply = await worker.advance(*ended, want=size)
    places = (
        [worker.raw.zscore(f"{BASE}completed", job) for job in ended] if key != "active" else []
    )
    if key == "active":
        assert list(reply.codes) == [-20] * size
        assert worker.raw.llen(f"{BASE}wait") == 2 * size
        return
    assert list(reply.codes) == [0] * size
    assert None not in places
    assert worker.active() == [f"j{number}" for number in reversed(range(size, 2 * size))]
    assert worker.raw.lrange(f"{BASE}wait", 0, -1) == [
        f"j{number}" for number in reversed(range(2 * size, 3 * size))
    ]
    assert worker.raw.exists(*(f"{BASE}{job}:lock" for job in ended)) == 0
    if key == "events":
        assert worker.jobs_of_event("completed") == ended
        assert worker.jobs_of_event("active") == list(worker.running)


async def test_a_repeated_call_repeats_the_reply_and_changes_nothing(
    worker: Worker, path: str
) -> None:
    await worker.add(*(f"j{number}" for number in range(6)))
    await worker.advance(want=2)
    endings = [Ending(job, DONE) for job in worker.running.values()]
    first = await worker.store.advance("w", 2, endings, 2)
    before = worker.raw.execute_command("XLEN", f"{BASE}events")
    again = await worker.store.advance("w", 2, endings, 2)
    assert (again.repeated, first.repeated) == (True, False)
    assert (list(again.codes), again.now_ms) == ([0, 0], first.now_ms)
    assert [(job.id, job.token, job.attempts_started) for job in again.jobs] == [
        (job.id, job.token, job.attempts_started) for job in first.jobs
    ]
    assert worker.raw.execute_command("XLEN", f"{BASE}events") == before


async def test_a_failed_job_and_one_that_completed_end_in_one_call(
    worker: Worker, path: str
) -> None:
    await worker.add("a", "b", "c", "d")
    await worker.advance(want=3)
    endings = [
        Ending(worker.running["a"], DONE),
        Ending(worker.running["b"], Retried("no stamp", 0, "at work")),
    ]
    reply = await worker.store.advance("w", 2, [*endings, Ending(worker.running["c"], DONE)], 1)
    assert list(reply.codes) == [0, 0, 0]
    assert [job.id for job in reply.jobs] == ["d"]
    assert worker.jobs_of_event("completed") == ["a", "c"]
    assert worker.raw.lrange(f"{BASE}wait", 0, -1) == ["b"]
    assert worker.raw.hmget(f"{BASE}b", "failedReason", "atm") == ["no stamp", "1"]


@pytest.mark.parametrize("left", ["nothing", "active", "delayed", "prioritized"])
async def test_only_an_emptied_queue_says_that_it_is_drained(
    worker: Worker, path: str, left: str
) -> None:
    ids = ["a", "b"] if left == "active" else ["a"]
    await worker.add(*ids)
    await worker.advance(want=2)
    if left in {"delayed", "prioritized"}:
        how = {"delay_ms": 60_000} if left == "delayed" else {"priority": 1}
        assert await worker.store.add(
            [NewJob("z", "letters", b"{}", encode_options(KEEP), **how)]
        ) == [True]
    reply = await worker.advance("a", want=2)
    assert [job.id for job in reply.jobs] == (["z"] if left == "prioritized" else [])
    assert (reply.due_ms is not None) == (left == "delayed")
    drained = [
        fields for _, fields in worker.raw.xrange(f"{BASE}events") if fields["event"] == "drained"
    ]
    assert drained == ([{"event": "drained"}] if left == "nothing" else [])


async def test_a_job_that_gets_a_parent_while_it_runs_releases_it(
    worker: Worker, path: str
) -> None:
    await worker.add("child", "other")
    await worker.advance(want=2)
    worker.raw.hset(
        f"{BASE}mother", mapping={"name": "letters", "data": "{}", "opts": "{}", "timestamp": 1}
    )
    worker.raw.zadd(f"{BASE}waiting-children", {"mother": 1})
    worker.raw.sadd(f"{BASE}mother:dependencies", f"{BASE}child")
    worker.raw.hset(f"{BASE}child", "parentKey", f"{BASE}mother")
    await worker.advance("child", "other")
    assert worker.raw.lrange(f"{BASE}wait", 0, -1) == ["mother"]
    assert worker.raw.hget(f"{BASE}mother:processed", f"{BASE}child") == '"done"'


@pytest.mark.timing
@pytest.mark.parametrize("own_server", ["valkey"], indirect=True)
async def test_a_job_that_just_started_ends_fast_beside_100_000_running_ones(
    worker: Worker, path: str
) -> None:
    """LREM from the tail walks past all of them; a job that started long ago is near the tail."""
    for start in range(0, MANY, 5000):
        worker.raw.lpush(
            f"{BASE}active", *(f"long{number}" for number in range(start, start + 5000))
        )
    for job in worker.raw.lrange(f"{BASE}active", MANY // 2 - 10, MANY // 2 + 10):
        worker.raw.hset(f"{BASE}{job}", "processedOn", 1000)
    await worker.add("a", "b", "c")
    await worker.advance(want=2)

    async def end(job: str) -> int:
        """Return how many microseconds it took to find the job, with all commands for that."""
        worker.raw.config_resetstat()
        assert list((await worker.advance(job, want=1)).codes) == [0]
        stats = worker.raw.info("commandstats")
        return sum(
            stats.get(f"cmdstat_{name}", {}).get("usec", 0)
            for name in ("lrem", "llen", "lindex", "hget")
        )

    young = await end("a")
    worker.raw.lrem(f"{BASE}active", 1, "b")
    worker.raw.rpush(f"{BASE}active", "b")
    worker.raw.hset(f"{BASE}b", "processedOn", 999)
    old = await end("b")
    worker.raw.config_resetstat()
    worker.raw.lrem(f"{BASE}active", -1, "c")
    past_all = worker.raw.info("commandstats")["cmdstat_lrem"]["usec"]
    print(
        f"{path}: {young} us for the youngest of {MANY:,}, {old} us for the oldest;"
        f" past all of them {past_all} us"
    )
    assert max(young, old) < past_all / 4
