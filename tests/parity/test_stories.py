"""Golden stories: what each way of ending leaves in the job's hash and in the events, spelled out.

Every story is first run on both sides, which must agree; then ours must have left what is written
here. So a story shows the format, and cannot drift away from what BullMQ for Node 6 does.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from corral.outcome import HandedBack, QueueLimited
from corral.store.codec import Ending, NewJob
from corral.store.connection import Link
from corral.store.queue_store import QueueStore
from parity.keyspace import read
from parity.lane import Lane, open_lane
from parity.lockstep import QUEUE, verdict
from parity.programs import SECOND, Program, Step
from parity.spelling import OURS

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEEP_ALL: dict[str, dict[str, int]] = {
    "removeOnComplete": {"count": 1000},
    "removeOnFail": {"count": 1000},
}
FETCH = Step("advance", {"ends": [], "want": 1})
BACKOFF = {"type": "fixed", "delay": 15 * SECOND}
TRACE = "Error: {}\n    at work"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lane(node_modules: Path) -> AsyncIterator[Lane]:
    with tempfile.TemporaryDirectory(prefix="corral-stories-") as folder:
        async with open_lane(Path(folder), node_modules) as opened:
            yield opened


@dataclass(frozen=True)
class Left:
    """What a story left of its one job.

    Attributes:
        fields: Its hash without what was there from the start, and without times.
        events: `event` or `event<previous state`, in order.
        state: The containers it is in.
    """

    fields: dict[str, str]
    events: list[str]
    state: list[str]


FROM_THE_START = {
    "name",
    "data",
    "priority",
    "timestamp",
    "processedOn",
    "finishedOn",
    "type",
    "expires",
}
CONTAINERS = ("wait", "active", "prioritized", "delayed", "completed", "failed")


def add(**opts: Any) -> Step:
    return Step(
        "add", {"jobs": [{"id": "j1", "name": "mail", "data": {"to": "you"}, "opts": opts}]}
    )


def end(kind: str, want: int = 0, **rest: Any) -> Step:
    return Step("advance", {"ends": [[0, {"kind": kind, **rest}]], "want": want})


def fails(reason: str, *, final: bool = False, delay_ms: int = 0) -> Step:
    return end("fail", reason=reason, final=final, delay_ms=delay_ms)


def wait(seconds: int = 20) -> Step:
    return Step("jump", {"by_ms": seconds * SECOND})


async def run_story(lane: Lane, *steps: Step) -> Left:
    found = await verdict(Program(0, 1, KEEP_ALL, steps), lane)
    assert found.parted is None
    assert [str(entry) for entry in found.entries] == []
    left = await read(lane.client, OURS)
    fields = {field: value for (key, field), value in left.items() if key == f"{QUEUE}:j1"}
    events = []
    for number in range(1, 100):
        event = left.get((f"{QUEUE}:events", f"#{number} event"))
        if event is not None:
            previous = left.get((f"{QUEUE}:events", f"#{number} prev"))
            events.append(f"{event}<{previous}" if previous else event)
    return Left(
        {
            name: value
            for name, value in fields.items()
            if name not in FROM_THE_START and not name.startswith("opts")
        },
        events,
        [name for name in CONTAINERS if (f"{QUEUE}:{name}", "[0]") in left],
    )


def traces(*reasons: str) -> str:
    return json.dumps([TRACE.format(reason) for reason in reasons], separators=(",", ":"))


async def test_a_job_that_succeeds(lane: Lane) -> None:
    assert await run_story(lane, add(), FETCH, end("complete", value={"sent": True})) == Left(
        {"delay": "0", "pb": "worker-1", "ats": "1", "atm": "1", "returnvalue": '{"sent":true}'},
        ["added", "waiting", "active<waiting", "completed<active", "drained"],
        ["completed"],
    )


async def test_fails_twice_then_succeeds(lane: Lane) -> None:
    """The last failed reason stays, as do the traces of both failures."""
    again = (wait(), FETCH)
    story = [add(attempts=3, backoff=BACKOFF), FETCH, fails("one"), *again, fails("two"), *again]
    assert await run_story(lane, *story, end("complete", value="done")) == Left(
        {
            "delay": "0",
            "pb": "worker-1",
            "ats": "3",
            "atm": "3",
            "failedReason": "two",
            "stacktrace": traces("one", "two"),
            "returnvalue": '"done"',
        },
        [
            "added",
            "waiting",
            *["active<waiting", "delayed", "waiting<delayed"] * 2,
            "active<waiting",
            "completed<active",
            "drained",
        ],
        ["completed"],
    )


async def test_always_fails(lane: Lane) -> None:
    """After the last attempt: failed, every trace kept, and `retries-exhausted` written."""
    again = (wait(), FETCH)
    story = [
        add(attempts=3, backoff=BACKOFF),
        FETCH,
        fails("one"),
        *again,
        fails("two"),
        *again,
        fails("three"),
    ]
    assert await run_story(lane, *story) == Left(
        {
            "delay": "0",
            "pb": "worker-1",
            "ats": "3",
            "atm": "3",
            "failedReason": "three",
            "stacktrace": traces("one", "two", "three"),
        },
        [
            "added",
            "waiting",
            *["active<waiting", "delayed", "waiting<delayed"] * 2,
            "active<waiting",
            "failed<active",
            "retries-exhausted",
            "drained",
        ],
        ["failed"],
    )


async def test_fail_for_good_while_attempts_are_left(lane: Lane) -> None:
    """`Fail`: no `retries-exhausted`, for they are not."""
    assert await run_story(
        lane, add(attempts=3, backoff=BACKOFF), FETCH, fails("no such address", final=True)
    ) == Left(
        {
            "delay": "0",
            "pb": "worker-1",
            "ats": "1",
            "atm": "1",
            "failedReason": "no such address",
            "stacktrace": traces("no such address"),
        },
        ["added", "waiting", "active<waiting", "failed<active", "drained"],
        ["failed"],
    )


async def test_retry_after_exactly_that_time(lane: Lane) -> None:
    """`Retry(after=…)`: the processor's own delay, one attempt spent."""
    story = [
        add(attempts=2, backoff={"type": "custom"}),
        FETCH,
        fails("busy", delay_ms=605 * SECOND),
    ]
    assert await run_story(lane, *story) == Left(
        {
            "delay": "605000",
            "pb": "worker-1",
            "ats": "1",
            "atm": "1",
            "failedReason": "busy",
            "stacktrace": traces("busy"),
        },
        ["added", "waiting", "active<waiting", "delayed"],
        ["delayed"],
    )


async def test_immediate_retry(lane: Lane) -> None:
    """Without a backoff the job goes to the back of the waiting list at once."""
    assert await run_story(lane, add(attempts=2), FETCH, fails("flaky")) == Left(
        {
            "delay": "0",
            "pb": "worker-1",
            "ats": "1",
            "atm": "1",
            "failedReason": "flaky",
            "stacktrace": traces("flaky"),
        },
        ["added", "waiting", "active<waiting", "waiting<active"],
        ["wait"],
    )


async def test_snooze(lane: Lane) -> None:
    """Not an attempt: `atm` is not written, the start is counted."""
    snoozed = add(attempts=1), FETCH, end("snooze", delay_ms=25 * SECOND)
    assert await run_story(lane, *snoozed) == Left(
        {"delay": "25000", "pb": "worker-1", "ats": "1"},
        ["added", "waiting", "active<waiting", "delayed"],
        ["delayed"],
    )


async def test_hand_back(lane: Lane) -> None:
    assert await run_story(lane, add(), FETCH, end("hand_back")) == Left(
        {"delay": "0", "pb": "worker-1", "ats": "1"},
        ["added", "waiting", "active<waiting", "waiting<active"],
        ["wait"],
    )


async def test_rate_limited(lane: Lane) -> None:
    """Given back unspent, and nobody starts a job of this queue until the time is over."""
    limit = Step("rate_limit", {"max": 10, "duration_ms": 60 * SECOND})
    story = [add(), limit, FETCH, end("rate_limit", delay_ms=60 * SECOND), FETCH]
    unspent = ["added", "waiting", "active<waiting", "waiting<active"]
    assert await run_story(lane, *story) == Left(
        {"delay": "0", "pb": "worker-1", "ats": "1"}, unspent, ["wait"]
    )
    again = await run_story(lane, *story, Step("window_ends", {}), FETCH)
    assert again == Left(
        {"delay": "0", "pb": "worker-1", "ats": "2"}, [*unspent, "active<waiting"], ["active"]
    )


async def test_stalled_twice(lane: Lane) -> None:
    """Once is forgiven; the second time the next worker fails the job without running it."""
    crash = Step("crash", {"picks": [0]})
    once = [add(attempts=3), FETCH, crash]
    stalled = ["waiting<active", "stalled"]
    assert await run_story(lane, *once) == Left(
        {"delay": "0", "pb": "worker-1", "ats": "1", "stc": "1"},
        ["added", "waiting", "active<waiting", *stalled],
        ["wait"],
    )
    # the first worker's late ending is refused, which changes nothing
    twice = [*once, end("complete", value=None), FETCH, crash]
    defa = "job stalled more than allowable limit"
    events = ["added", "waiting", *["active<waiting", *stalled] * 2]
    assert await run_story(lane, *twice) == Left(
        {"delay": "0", "pb": "worker-1", "ats": "2", "stc": "2", "defa": defa}, events, ["wait"]
    )
    failed = [*twice, end("complete", value=None), FETCH, end("complete", value="never ran")]
    assert await run_story(lane, *failed) == Left(
        {
            "delay": "0",
            "pb": "worker-1",
            "ats": "3",
            "stc": "2",
            "atm": "1",
            "failedReason": defa,
            "stacktrace": traces(defa),
        },
        [*events, "active<waiting", "failed<active", "drained"],
        ["failed"],
    )


async def test_counts_per_minute_reach_back_two_weeks(lane: Lane) -> None:
    """`metrics:*:data`: the newest minute first, zeros for the minutes without, nothing older than
    20,160 minutes.
    """

    async def minutes_after(days: int) -> list[int]:
        """Two jobs, one more so many days later, and another a minute after it."""
        jobs = [{"id": f"j{number}", "name": "mail", "data": {}, "opts": {}} for number in range(4)]
        done = end("complete", value=None, want=1)
        story = [
            Step("add", {"jobs": jobs}),
            FETCH,
            done,
            done,
            wait(days * 86_400),
            done,
            wait(60),
            done,
        ]
        await run_story(lane, *story)
        return [
            int(count)
            for count in await lane.client.lrange(f"{OURS}:{QUEUE}:metrics:completed:data", 0, -1)
        ]

    assert await minutes_after(1) == [1, *[0] * 1440, 2]
    assert await minutes_after(15) == [1, *[0] * 20_159]


async def fetched(lane: Lane, **options: Any) -> tuple[QueueStore, Link, Any]:
    """One job, fetched by us."""
    await lane.client.flushall()
    link = Link(lane.url)
    store = QueueStore(link, OURS, QUEUE)
    await store.add([NewJob("j1", "mail", b"{}", b"{}", **options)])
    await lane.client.delete(f"{OURS}:{QUEUE}:marker")  # as the worker that fetches has taken it
    return store, link, (await store.advance("worker-1", 1, [], 1)).jobs[0]


@pytest.mark.trap(18)
async def test_a_manual_rate_limit_holds_without_a_limit_of_the_queue(lane: Lane) -> None:
    """Ours alone: BullMQ's workers look at it only where there is another, and would fetch the job
    again at once.
    """
    store, link, job = await fetched(lane)
    limited = await store.advance("worker-1", 2, [Ending(job, QueueLimited(60 * SECOND))], 1)
    assert limited.jobs == []
    assert 59 * SECOND < limited.limited_ms <= 60 * SECOND
    await lane.client.delete(f"{OURS}:{QUEUE}:limiter")
    assert [job.id for job in (await store.advance("worker-1", 3, [], 1)).jobs] == ["j1"]
    await link.close()


@pytest.mark.parametrize("priority", [0, 3])
async def test_a_hand_back_wakes_an_idle_worker(lane: Lane, priority: int) -> None:
    """Ours alone where the job has a priority: BullMQ writes no marker then, and an idle worker
    sleeps on for 5 s.
    """
    store, link, job = await fetched(lane, priority=priority)
    await store.advance("worker-1", 2, [Ending(job, HandedBack())], 0)
    assert await lane.client.zscore(f"{OURS}:{QUEUE}:marker", "0") == 0
    await link.close()
