"""What a page costs the store if a queue holds 100,000 jobs.

It must cost the same as with few jobs, and no single script may run for long.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from statistics import median
from types import MappingProxyType
from typing import Any

import pytest
import pytest_asyncio
import redis

from corral import Payload, Queue
from corral.catalog import Catalog, CatalogEntry
from corral.inspector import JobInspector
from corral.plugins import Provider
from corral.store.connection import Link
from machine import slowness

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.timing,
    pytest.mark.corral_untidy("its jobs are written by hand"),
]

CALL_MS = 50.0
"""What one read may cost the store."""
SCRIPT_MS = 10.0
"""How long one script may keep workers waiting."""
REPEATS = 5
SHARE = {
    "completed": 60_000,
    "failed": 15_000,
    "wait": 14_900,
    "delayed": 5_000,
    "prioritized": 5_000,
    "active": 100,
}


class Letter(Payload):
    text: str = ""


letters = Queue("letters", Letter)


FILL = """
local container, now, traces = ARGV[1], ARGV[4], ARGV[5]
local first, last = tonumber(ARGV[2]), tonumber(ARGV[3])
local key = KEYS[1] .. container
local text = string.rep('Gr\\\\u00fc\\\\u00dfe ', 25)
for n = first, last do
  local id, job = 'j' .. n, KEYS[1] .. 'j' .. n
  local rest = '@acme.com", "deep": {"n": 1}, "text": "' .. text .. '"}'
  local data = '{"userId": ' .. n .. ', "to": "user' .. n .. rest
  local opts = '{"attempts": 3}'
  redis.call('HSET', job, 'name', 'letters', 'data', data, 'timestamp', now - 90000, 'opts', opts)
  if container == 'failed' then
    local reason = 'ValueError: no ' .. n
    redis.call('HSET', job, 'failedReason', reason, 'stacktrace', traces, 'atm', 3, 'ats', 3)
  end
  if container == 'wait' or container == 'active' then
    redis.call('LPUSH', key, id)
  else
    local factor = container == 'delayed' and 4096 or 1
    redis.call('ZADD', key, string.format('%.0f', (now + n) * factor), id)
  end
  if n % 10 == 0 then
    local events = KEYS[1] .. 'events'
    redis.call('XADD', events, '*', 'event', 'completed', 'jobId', id, 'returnvalue', 1)
  end
end
"""
"""Within the store: from here it would take longer than what is measured."""


@pytest.fixture
def full(store_url: str) -> Iterator[redis.Redis]:
    """A store with a queue of 100,000 jobs, with payloads of some 500 bytes, and 10,000 events."""
    client = redis.Redis.from_url(store_url, decode_responses=True)
    now_ms = int(time.time() * 1000)
    traces = json.dumps(
        ["Traceback (most recent call last):\n" + "  File …\n" * 50 + "ValueError: no"] * 3
    )
    first = 0
    for container, count in SHARE.items():
        for start in range(first, first + count, 1000):
            last = min(start + 1000, first + count) - 1
            client.eval(FILL, 1, "bull:letters:", container, start, last, now_ms, traces)
        first += count
    yield client
    client.close()


@pytest_asyncio.fixture
async def inspector(store_url: str) -> AsyncIterator[JobInspector]:
    catalog = Catalog(
        MappingProxyType(
            {letters.name: CatalogEntry(letters, Provider("acme", "1.0", "wheel"), "")}
        )
    )
    inspector = JobInspector(catalog, Link(store_url), prefix="bull")
    yield inspector
    await inspector.close()


async def test_every_read_is_cheap_in_a_queue_of_100_000_jobs(
    full: redis.Redis, inspector: JobInspector
) -> None:
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
        "a page deep in the waiting list": lambda: inspector.list(
            letters, "waiting", start=7000, limit=100
        ),
        "search: absent text": lambda: inspector.search(letters, "nobody@example.com"),
        "search: absent text beyond ASCII": lambda: inspector.search(letters, "Grüße, Zoë"),
        "search: absent member": lambda: inspector.search(letters, field=("deep.n", "-1")),
        "search: id of a job": lambda: inspector.search(letters, "j70000"),
        "search: all hidden": lambda: inspector.search(letters, "acme", match=hides),
        "search: no text": lambda: inspector.search(letters, limit=100),
    }
    costs = {name: await _cost(full, read) for name, read in reads.items()}
    slow = slowness()
    for name, (total, calls) in costs.items():
        print(f"{name}: {total:.2f} ms in {calls} calls")
    assert {name: total for name, (total, _) in costs.items() if total > CALL_MS * slow} == {}
    # The scripts of a search do the same work, each for its share of the jobs; no other script is
    # long in all.
    script = {
        name: total / (calls if name.startswith("search") else 1)
        for name, (total, calls) in costs.items()
    }
    assert {name: each for name, each in script.items() if each > SCRIPT_MS * slow} == {}

    found = await inspector.search(letters, "nobody@example.com")
    assert (found.total, found.cut) == (100_000, True)
    assert 2_500 < found.looked_at < 10_000
    looked, calls = found.looked_at, 1
    while found.next:
        found = await inspector.search(letters, '"userId": 7,', after=found.next)
        looked, calls = looked + found.looked_at, calls + 1
        if found.jobs:
            break
    assert [each.id for each in found.jobs] == ["j7"], "an old job is found by going on"
    print(f"an old job is found after {looked} jobs, in {calls} searches")


SAME = """
for n = tonumber(ARGV[1]), tonumber(ARGV[2]) do
  local key = KEYS[1] .. 'j' .. n
  redis.call('HSET', key, 'name', 'letters', 'data', ARGV[3], 'timestamp', 1, 'opts', '{}')
  redis.call('LPUSH', KEYS[1] .. 'wait', 'j' .. n)
end
"""


@pytest.mark.parametrize("size", [300, 1_000, 20_000, 400_000])
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        pytest.param("a", {"text": "a" * 199 + "b"}, id="one character, over and over"),
        pytest.param(
            "a",
            {"text": "a" * 200, "match": lambda _job: False},
            id="which is found, and is not meant",
        ),
        pytest.param("ab", {"text": "ab" * 99 + "c"}, id="two of them"),
        pytest.param("é", {"text": "é" * 99 + "e"}, id="one beyond ASCII"),
        pytest.param('","', {"text": '","' * 60 + "-"}, id="what JSON is made of"),
        pytest.param('"},{"text":"', {"field": ("text", ",")}, id="a member of many objects"),
        pytest.param("1", {"field": ("text", "1" * 60 + "2")}, id="a number"),
    ],
)
async def test_a_search_costs_no_more_where_everything_nearly_matches(
    store_url: str, inspector: JobInspector, text: str, wanted: dict[str, Any], size: int
) -> None:
    data = '[{"text":"' + text * (size // len(text)) + '"},","]'
    count = 20_000_000 // (len(data) + 1_000)
    with redis.Redis.from_url(store_url, decode_responses=True) as client:
        for start in range(0, count, 200):
            client.eval(SAME, 1, "bull:letters:", start, min(start + 200, count) - 1, data)
        total, calls = await _cost(client, lambda: inspector.search(letters, **wanted))
    found = await inspector.search(letters, **wanted)
    print(f"{total:.2f} ms in {calls} calls for {found.looked_at} jobs")
    assert found.cut, "this was all: nothing was shown"
    slow = slowness()
    assert total <= CALL_MS * slow
    assert total / calls <= SCRIPT_MS * slow


async def _cost(store: redis.Redis, read: Callable[[], Awaitable[Any]]) -> tuple[float, int]:
    """The cost of a read to the store: milliseconds of its thread, and the number of calls.

    It is CPU time, not time on the clock: other processes use this machine, and a script that
    waited for the CPU would look slow.
    """
    used, calls = [], []
    for _ in range(REPEATS):
        store.config_resetstat()
        before = _used_ms(store)
        await read()
        used.append(_used_ms(store) - before)
        stats = [
            store.info("commandstats").get(f"cmdstat_{name}", {})
            for name in ("evalsha", "eval", "client|list")
        ]
        calls.append(sum(each.get("calls", 0) for each in stats))
    return median(used), max(calls)


def _used_ms(store: redis.Redis) -> float:
    used = store.info("cpu")
    return 1000 * float(used["used_cpu_user_main_thread"] + used["used_cpu_sys_main_thread"])
