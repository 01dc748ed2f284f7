"""What a page costs the store where a queue holds 100,000 jobs: what it costs with few, and never long at once."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from statistics import median
from types import MappingProxyType
from typing import Any

import pytest
import pytest_asyncio
import redis

from corral import Payload, Queue
from corral.catalog import Catalog, Entry
from corral.inspector import JobInspector
from corral.plugins import Provider
from corral.store.connection import Link

pytestmark = [pytest.mark.asyncio, pytest.mark.timing, pytest.mark.corral_untidy("its jobs are written by hand")]

CALL_MS = 50.0
"""What one read may cost the store."""
SCRIPT_MS = 10.0
"""How long one script may keep workers waiting."""
REPEATS = 5
SHARE = {"completed": 60_000, "failed": 15_000, "wait": 14_900, "delayed": 5_000, "prioritized": 5_000, "active": 100}


class Letter(Payload):
    text: str = ""


letters = Queue("letters", Letter)


@pytest.fixture
def full(store_url: str) -> redis.Redis:
    """A store with a queue of 100,000 jobs of some 500 bytes, and a full log."""
    client = redis.Redis.from_url(store_url, decode_responses=True)
    now_ms = int(time.time() * 1000)
    number = 0
    opts = json.dumps({"attempts": 3, "backoff": {"type": "exponential", "delay": 1000}})
    traces = json.dumps(["Traceback (most recent call last):\n" + "  File …\n" * 50 + "ValueError: no"] * 3)
    for container, count in SHARE.items():
        is_list, scale = container in {"wait", "active"}, {"delayed": 4096, "prioritized": 2**32}.get(container, 1)
        for start in range(0, count, 1000):
            with client.pipeline(transaction=False) as writing:
                numbers = range(number, number + min(1000, count - start))
                for each in numbers:
                    data = {"userId": each, "to": f"user{each}@example.com", "text": "Grüße " * 60, "deep": {"n": each}}
                    held = {"name": "letters", "data": json.dumps(data), "opts": opts, "timestamp": now_ms, "delay": 0}
                    if container == "failed":
                        held |= {"failedReason": f"ValueError: no {each}", "stacktrace": traces, "atm": 3, "ats": 3}
                    writing.hset(f"bull:letters:j{each}", mapping=held)
                key = f"bull:letters:{container}"
                if is_list:
                    writing.lpush(key, *(f"j{each}" for each in numbers))
                else:
                    writing.zadd(key, {f"j{each}": (now_ms + each) * scale for each in numbers})
                for each in numbers if start < 2000 else ():
                    writing.xadd("bull:letters:events", {"event": "completed", "jobId": f"j{each}", "returnvalue": "1"})
                writing.execute()
            number = numbers.stop
    client.config_set("slowlog-log-slower-than", 0)
    client.config_set("slowlog-max-len", 2000)
    yield client
    client.config_set("slowlog-log-slower-than", 10_000)
    client.config_set("slowlog-max-len", 128)
    client.close()


@pytest_asyncio.fixture
async def inspector(store_url: str) -> AsyncIterator[JobInspector]:
    catalog = Catalog(MappingProxyType({letters.name: Entry(letters, Provider("acme", "1.0", "wheel"), "")}))
    inspector = JobInspector(catalog, Link(store_url), prefix="bull")
    yield inspector
    await inspector.close()


async def test_every_read_is_cheap_in_a_queue_of_100_000_jobs(full: redis.Redis, inspector: JobInspector) -> None:
    assert sum((await inspector.counts(letters)).values()) == 100_000
    job = await inspector.get(letters, "j70000")

    def hides(_job: object) -> bool:
        return False

    reads: dict[str, Callable[[], Awaitable[Any]]] = {
        "summary": lambda: inspector.summary(letters),
        "failures": lambda: inspector.failures(letters),
        "workers": inspector.workers,
        "timeline": lambda: inspector.timeline(letters, job),
        "one job": lambda: inspector.get(letters, "j70000"),
        "a page of 100 failed jobs": lambda: inspector.list(letters, "failed", limit=100),
        "a page deep in the waiting list": lambda: inspector.list(letters, "waiting", start=7000, limit=100),
        "search: absent text": lambda: inspector.search(letters, "nobody@example.com"),
        "search: absent text beyond ASCII": lambda: inspector.search(letters, "Grüße, Zoë"),
        "search: absent member": lambda: inspector.search(letters, field=("deep.n", "-1")),
        "search: id of a job": lambda: inspector.search(letters, "j70000"),
        "search: all hidden": lambda: inspector.search(letters, "example", match=hides),
        "search: no text": lambda: inspector.search(letters, limit=100),
    }
    costs = {name: await _cost(full, read) for name, read in reads.items()}
    for name, (total, longest, calls) in costs.items():
        print(f"{name}: {total:.2f} ms in {calls} calls, the longest {longest:.2f} ms")
    assert {name: total for name, (total, _, _) in costs.items() if total > CALL_MS} == {}
    assert {name: longest for name, (_, longest, _) in costs.items() if longest > SCRIPT_MS} == {}

    found = await inspector.search(letters, "nobody@example.com")
    assert (found.total, found.cut) == (100_000, True)
    assert 4_000 < found.looked_at < 10_000
    looked, calls = found.looked_at, 1
    while found.next:
        found = await inspector.search(letters, '"userId": 7,', after=found.next)
        looked, calls = looked + found.looked_at, calls + 1
        if found.jobs:
            break
    assert [each.id for each in found.jobs] == ["j7"], "an old job is found by going on"
    print(f"an old job is found after {looked} jobs, in {calls} searches")


async def _cost(store: redis.Redis, read: Callable[[], Awaitable[Any]]) -> tuple[float, float, int]:
    """What a read costs the store: milliseconds in all, of its longest command, and how many commands; medians."""
    costs = []
    for _ in range(REPEATS):
        store.slowlog_reset()
        await read()
        commands = [each["duration"] for each in store.slowlog_get(1000) if "SLOWLOG" not in str(each["command"])]
        costs.append((sum(commands), max(commands), len(commands)))
    total, longest, calls = zip(*costs, strict=True)
    return median(total) / 1000, median(longest) / 1000, max(calls)
