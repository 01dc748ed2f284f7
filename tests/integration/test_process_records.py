"""The record that each process keeps in the store, beside processes of the release before it.

That release wrote heartbeats into `corral:<prefix>:alive` and catalogs into
`corral:<prefix>:catalog`. Both kinds run beside each other during a deployment, and where a package
is upgraded under a running parent: its next worker process is of the new release.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import pytest
import pytest_asyncio

import corral
from corral.catalog.record import parsed
from corral.catalog.unserved import warn_of_unserved
from corral.fleet.processes import GONE_MS, OwnRecord, ProcessRecord, ProcessRecords
from corral.observe.health import judge_heartbeats
from corral.observe.queue_figures import read_queue_figures
from corral.store.connection import Link

pytestmark = pytest.mark.asyncio

HEARTBEATS, CATALOGS = "corral:bull:alive", "corral:bull:catalog"
TROUBLE = "the key bull:letters:meta is a list, not a hash: no job of queue 'letters' starts"


@pytest_asyncio.fixture
async def link(store_url: str) -> AsyncIterator[Link]:
    link = Link(store_url)
    yield link
    await link.close()


class FormerRelease:
    """What the release before wrote and read, word for word."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    async def write_heartbeat(self, process: str, now_ms: int, *troubles: str) -> None:
        text = f"{now_ms} 0 0 {now_ms} {os.getpid()} 0.1.0"
        if troubles:
            text += f" {json.dumps(troubles)}"
        await self._raw.hset(HEARTBEATS, process, text)

    async def write_catalog(self, process: str, now_ms: int, queue: str, role: str) -> None:
        record = {
            "distribution": f"acme-{queue}",
            "version": "1.2",
            "fingerprint": "abc",
            "role": role,
            "time": now_ms,
        }
        text = json.dumps({queue: record}, separators=(",", ":"))
        await self._raw.hset(CATALOGS, process, f"{now_ms} {text}")

    async def read_heartbeats(self) -> dict[str, ProcessRecord]:
        """As `Heartbeats.read` did: the first six words, then a list of sentences."""
        found: dict[str, ProcessRecord] = {}
        now_ms = int(time.time() * 1000)
        for name, value in (await self._raw.hgetall(HEARTBEATS)).items():
            fields = value.split(maxsplit=6)
            troubles = json.loads(fields.pop()) if len(fields) == 7 else []
            *numbers, release = (*fields, "0", "0", "")[:6]
            if len(numbers) != 5 or not all(each.isdecimal() for each in numbers):
                continue
            seen_ms, draining, processes, started_ms, pid = map(int, numbers)
            sentences = tuple(each for each in troubles if isinstance(each, str))
            seconds = (now_ms - seen_ms) / 1000
            found[name] = ProcessRecord(
                seconds, bool(draining), processes, started_ms, pid, release, sentences
            )
        return found

    async def read_catalogs(self) -> dict[str, str]:
        """As `ProcessRecords.others` did."""
        found = await self._raw.hgetall(CATALOGS)
        return {name: value.partition(" ")[2] for name, value in found.items()}

    async def count_workers(self) -> int:
        """As `figures.lua` did."""
        heads = [re.match(r"(\d+) \d+ (\d+)", text) for text in await self._raw.hvals(HEARTBEATS)]
        return sum(1 for head in heads if head and head[2] == "0")


async def test_old_and_new_processes_live_beside_each_other(
    command: Any,
    workshop: Any,
    link: Link,
    acme: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    former = FormerRelease(workshop.raw)
    now_ms = int(time.time() * 1000)
    await former.write_heartbeat("old-1-a", now_ms, TROUBLE)
    await former.write_catalog("old-1-a", now_ms, "letters", "worker")
    await former.write_catalog("old-2-b", now_ms, "letters", "producer")
    worker = command("worker", "acme-letters")
    monkeypatch.syspath_prepend(acme)
    monkeypatch.setenv("REDIS_URL", workshop.url)
    records = ProcessRecords(link, "bull")

    async with corral.connect() as jobs:
        await jobs.enqueue("acme-letters", {"text": "hello"})

        async def all_are_there() -> bool:
            found = await records.read()
            return len(found) == 4 and sum(each.gives_heartbeats for each in found.values()) == 2

        await workshop.wait_until(all_are_there, "two old and two new processes are there")
        await workshop.wait_until(lambda: "worker started" in worker.said, "it works")

        # A new process reads all four.
        found = await records.read()
        served = {
            name: [queue for queue, each in parsed(record.catalog).items() if each.role == "worker"]
            for name, record in found.items()
        }
        (new,) = [name for name, queues in served.items() if queues == ["acme-letters"]]
        assert served["old-1-a"] == ["letters"]
        assert found["old-1-a"].troubles == (TROUBLE,)
        assert not found["old-2-b"].gives_heartbeats
        assert (found[new].pid, found[new].version) == (worker.process.pid, version("corral"))
        workers = await records.read_workers()
        assert workers.keys() == {"old-1-a", new}
        assert {each.state for each in judge_heartbeats(workers, "no worker").workers} == {
            "working"
        }
        catalogs = [parsed(record.catalog) for record in found.values()]
        queues = ["letters", "acme-letters"]
        assert await warn_of_unserved(queues, catalogs, link, "bull") == ()
        assert (await read_queue_figures(link, "bull", "letters")).workers == 2

        # An old process sees the two workers, and takes the new producer for none.
        heartbeats = await former.read_heartbeats()
        assert heartbeats.keys() == {"old-1-a", new}
        assert {each.state for each in judge_heartbeats(heartbeats, "no worker").workers} == {
            "working"
        }
        assert heartbeats[new].pid == worker.process.pid
        assert await former.count_workers() == 2
        assert (await former.read_catalogs()).keys() == {"old-1-a", "old-2-b"}

    worker.process.terminate()
    assert await asyncio.to_thread(worker.wait) == 0
    assert (await records.read()).keys() == {"old-1-a", "old-2-b"}, "the new ones removed theirs"
    assert await workshop.raw.hkeys(HEARTBEATS) == ["old-1-a"]
    await workshop.raw.delete(HEARTBEATS, CATALOGS)


async def test_an_old_process_reads_the_troubles_of_a_new_one(raw: Any, link: Link) -> None:
    record = ProcessRecord(1.5, troubles=(TROUBLE,), catalog=b'{"letters": {"role": "worker"}}')
    await ProcessRecords(link, "bull").write("new-1-a", record)
    (heartbeat,) = (await FormerRelease(raw).read_heartbeats()).values()
    assert heartbeat.troubles == (TROUBLE,)
    assert 1.5 <= heartbeat.seconds < 60


async def test_a_record_is_read_as_it_was_written(link: Link) -> None:
    records = ProcessRecords(link, "bull")
    catalog = json.dumps({"größe": {"role": "worker", "of": ["a b", "\n"]}}).encode()
    worker = ProcessRecord(
        0.0,
        draining=True,
        processes=2,
        started_ms=1,
        pid=7,
        version="9.9",
        troubles=(TROUBLE, 'a "quoted" one'),
        catalog=catalog,
    )
    producer = replace(worker, draining=False, processes=0, troubles=(), gives_heartbeats=False)
    await records.write("w", worker)
    await records.write("p", producer)
    found = await records.read()
    assert {name: replace(each, seconds=0.0) for name, each in found.items()} == {
        "w": worker,
        "p": producer,
    }
    assert (await records.read_workers()).keys() == {"w"}


async def test_the_record_of_a_dead_process_is_removed(raw: Any, link: Link) -> None:
    records, former = ProcessRecords(link, "bull"), FormerRelease(raw)
    gone_ms = int(time.time() * 1000) - GONE_MS - 5_000
    await records.write("w", ProcessRecord(GONE_MS / 1000 + 5))
    await records.write("p", ProcessRecord(GONE_MS / 1000 + 5, gives_heartbeats=False))
    await former.write_heartbeat("old", gone_ms)
    await former.write_catalog("old", gone_ms, "letters", "worker")
    await raw.hset(HEARTBEATS, "strange", "of somebody else")
    assert await records.read() == {}
    assert await raw.hkeys(HEARTBEATS) == ["strange"]
    assert not await raw.exists(CATALOGS)


@pytest.mark.parametrize(
    "details", ["[", "{}", "7", '[{"a": 1e999}]', "[" * 100_000, '[1, null, [], "\\ud83d"]']
)
async def test_details_that_cannot_be_read_cost_no_heartbeat(
    details: str, raw: Any, link: Link
) -> None:
    now_ms = int(time.time() * 1000)
    await raw.hset(HEARTBEATS, "w", f"{now_ms} 0 0 {now_ms} 7 0.1.0 {details}")
    (record,) = (await ProcessRecords(link, "bull").read()).values()
    assert record.gives_heartbeats
    assert parsed(record.catalog) == {}


async def test_a_process_that_starts_to_work_gives_heartbeats_at_once(
    link: Link, wait_until: Any
) -> None:
    records = ProcessRecords(link, "bull")
    own = OwnRecord(link, "bull", "me", catalog=lambda now_ms: b'{"since": %d}' % now_ms)
    keeping = asyncio.create_task(own.keep())

    async def is_written() -> bool:
        return "me" in await records.read()

    async def works() -> bool:
        return "me" in await records.read_workers()

    await wait_until(is_written, "it is written")
    assert not await works()
    before = (await records.read())["me"]
    own.start_heartbeats(lambda: ProcessRecord(0.0))
    await wait_until(works, "it gives heartbeats", seconds=2)
    after = (await records.read())["me"]
    assert (after.catalog, after.started_ms) == (before.catalog, before.started_ms)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert await records.read() == {}
