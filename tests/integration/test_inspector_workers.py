"""Workers and their jobs: real worker processes, and connections with the names of workers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from types import MappingProxyType
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio

from corral import Job, Payload, Queue
from corral.catalog import Catalog, CatalogEntry
from corral.fleet.processes import ProcessRecord, ProcessRecords
from corral.inspector import JobInspector, WorkerStatus
from corral.plugins import Provider
from corral.store.connection import Link

pytestmark = pytest.mark.asyncio

SECOND = timedelta(seconds=1)


class Letter(Payload):
    text: str = ""


mail = Queue("acme-letters", Letter)
threads = Queue("acme-threads", Letter)


@pytest_asyncio.fixture
async def inspector(workshop: Any) -> AsyncIterator[JobInspector]:
    """A worker process for the two queues of `acme`."""
    entries = {
        queue.name: CatalogEntry(queue, Provider("acme", "1.0", "wheel"), "")
        for queue in (mail, threads)
    }
    inspector = JobInspector(Catalog(MappingProxyType(entries)), Link(workshop.url), prefix="bull")
    yield inspector
    await inspector.close()


async def test_a_worker_process_is_seen_with_what_it_runs(
    command: Any, workshop: Any, inspector: JobInspector
) -> None:
    started = datetime.now(UTC)
    assert await inspector.workers() == []
    worker = command("worker", "acme-letters", "--shutdown-timeout", "0.1")
    made = await workshop.producer(mail).enqueue(mail, Letter(text="sleep 60"))
    await workshop.until(mail, made.id, "active")

    async def is_seen() -> bool:
        return [(each.kind, len(each.queues)) for each in await inspector.workers()] == [
            ("corral", 1)
        ]

    await workshop.wait_until(is_seen, "the worker has given a heartbeat, and its queues are known")
    (seen,) = await inspector.workers()
    assert seen.name.startswith(f"{socket.gethostname()}-{worker.process.pid}-")
    assert (seen.host, seen.pid, seen.version) == (
        socket.gethostname(),
        worker.process.pid,
        version("corral"),
    )
    assert (seen.state, seen.queues) == ("working", ["acme-letters"])
    assert seen.since is not None
    assert seen.seen is not None
    assert started - SECOND < seen.since <= datetime.now(UTC)
    assert seen.since - 10 * SECOND < seen.seen < datetime.now(UTC) + SECOND
    (running,) = seen.jobs
    assert (running.queue, running.job_id, running.name) == (
        "acme-letters",
        made.id,
        "acme-letters",
    )
    assert running.since is not None
    assert started - SECOND < running.since <= datetime.now(UTC)
    assert running.lock_for is not None
    assert timedelta(0) < running.lock_for <= 30 * SECOND

    worker.process.send_signal(signal.SIGTERM)
    await asyncio.to_thread(worker.wait)
    assert await inspector.workers() == []


async def test_a_parent_and_its_processes_are_seen(
    command: Any, workshop: Any, inspector: JobInspector
) -> None:
    parent = command("worker", "--processes", "2")

    async def all_seen() -> bool:
        return [len(each.queues) for each in await inspector.workers()] == [0, 2, 2]

    await workshop.wait_until(all_seen, "the parent and two processes are known")
    first, *children = await inspector.workers()
    assert (first.pid, first.state, first.queues, first.kind) == (
        parent.process.pid,
        "complete",
        [],
        "corral",
    )
    assert [each.name for each in children] == [f"{first.name}.1", f"{first.name}.2"]
    assert {each.host for each in children} == {socket.gethostname()}
    assert len({parent.process.pid, *(each.pid for each in children)}) == 3
    for each in children:
        assert (each.state, each.queues) == ("working", ["acme-letters", "acme-threads"])
        os.kill(each.pid or 0, 0)
    parent.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(parent.wait) == 0


async def test_signs_of_life_tell_who_is_silent_and_which_are_of_an_older_version(
    workshop: Any, inspector: JobInspector
) -> None:
    now_ms = int(time.time() * 1000)
    old = {
        "h-1-a": f"{now_ms} 0 0",
        "h-2-b": f"{now_ms - 20_000} 0 0",
        "h-3-c": f"{now_ms} 1 0",
        "h-4-d": f"{now_ms} 0 2",
    }
    await workshop.raw.hset("corral:bull:alive", mapping=old)
    link = Link(workshop.url)
    await ProcessRecords(link, "bull").write("h-4-d.1", ProcessRecord(1.0))
    await link.close()
    by_name = {each.name: each for each in await inspector.workers()}
    assert {name: each.state for name, each in by_name.items()} == {
        "h-1-a": "working",
        "h-2-b": "silent",
        "h-3-c": "draining",
        "h-4-d": "incomplete",
        "h-4-d.1": "working",
    }
    assert (
        by_name["h-1-a"].host,
        by_name["h-1-a"].pid,
        by_name["h-1-a"].version,
        by_name["h-1-a"].since,
    ) == (
        "h",
        None,
        "",
        None,
    )
    assert (by_name["h-4-d.1"].pid, by_name["h-4-d.1"].version) == (os.getpid(), version("corral"))
    await workshop.raw.delete("corral:bull:alive")


async def test_other_workers_are_seen_by_their_connections(
    workshop: Any, inspector: JobInspector
) -> None:
    """One with two queues is listed once; listeners and other prefixes are not listed."""

    def named(queue: str, suffix: str = "", prefix: str = "bull") -> str:
        return f"{prefix}:{b64encode(queue.encode()).decode()}{suffix}"

    names = [
        named("acme-letters", ":w:fred"),
        named("acme-threads", ":w:fred"),
        named("acme-letters"),
        "bull:acme-letters:w:snake",  # BullMQ for Python
        named("acme-letters", ":qe"),
        named("acme-letters", ":w:else", prefix="other"),
        "bull:!",
    ]
    async with AsyncExitStack() as connections:
        for name in names:
            connection = redis.asyncio.Redis.from_url(workshop.url, client_name=name)
            await (await connections.enter_async_context(connection)).ping()
        seen = await inspector.workers()
    assert [(each.name, each.queues, each.kind, each.state) for each in seen] == [
        ("", ["acme-letters"], "other", "connected"),
        ("fred", ["acme-letters", "acme-threads"], "other", "connected"),
        ("snake", ["acme-letters"], "other", "connected"),
    ]
    assert seen[0].version.startswith("redis-py") or not seen[0].version  # Redis 7.0 does not know
    assert seen[0].since is not None
    assert abs(seen[0].since - datetime.now(UTC)) < 10 * SECOND


@pytest.mark.corral_untidy("jobs are active and nobody's")
async def test_every_active_job_is_somebodys(workshop: Any, inspector: JobInspector) -> None:
    raw = workshop.raw
    await raw.hset("corral:bull:alive", "ours-1-a", f"{int(time.time() * 1000)} 0 0")
    held = {
        "named": {"pb": "ours-1-a", "processedOn": "1700000000000"},
        "locked": {"name": "x"},
        "gone": {"pb": "dead"},
        "nameless": {"processedOn": "soon"},
    }
    for job_id, fields in held.items():
        await raw.hset(f"bull:acme-letters:{job_id}", mapping=fields)
        await raw.lpush("bull:acme-letters:active", job_id)
    await raw.set("bull:acme-letters:locked:lock", "ours-1-a:17", px=5000)
    await raw.lpush("bull:acme-letters:active", "ghost")
    await raw.set("bull:acme-letters:text", "no hash")
    await raw.lpush("bull:acme-letters:active", "text")

    def described(seen: list[WorkerStatus]) -> list[tuple[str, str, list[str]]]:
        return [(each.name, each.state, [job.job_id for job in each.jobs]) for each in seen]

    assert described([*await inspector.workers()]) == [
        ("ours-1-a", "working", ["named", "locked"]),
        ("", "unseen", ["nameless", "ghost"]),
        ("dead", "unseen", ["gone"]),
    ]
    name = f"bull:{b64encode(b'acme-letters').decode()}"
    async with redis.asyncio.Redis.from_url(workshop.url, client_name=name) as connection:
        await connection.ping()
        assert described([*await inspector.workers()])[1:] == [
            ("", "connected", ["nameless", "ghost"]),
            ("dead", "unseen", ["gone"]),
        ]


async def test_a_worker_within_another_process_is_seen_by_its_connection(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    """It writes no heartbeats, unlike `corral worker`."""
    inspector = inspect()
    seen: list[WorkerStatus] = []

    async def look(_job: Job[Any]) -> None:
        seen.extend(await inspector.workers())

    await workshop.producer(letters).enqueue(letters, {}, job_id="mine")
    async with workshop.working(letters.processed_by(look), name="reader-1"):
        await workshop.until(letters, "mine", "completed")
    (worker,) = seen
    assert (worker.name, worker.kind, worker.queues) == ("reader-1", "other", ["letters"])
    assert [job.job_id for job in worker.jobs] == ["mine"]


async def test_a_store_that_tells_nothing_of_connections_still_tells_of_signs(
    workshop: Any, inspector: JobInspector
) -> None:
    await workshop.raw.hset("corral:bull:alive", "ours-1-a", f"{int(time.time() * 1000)} 0 0")
    await workshop.raw.execute_command("ACL", "SETUSER", "default", "-client|list")
    try:
        assert [each.name for each in await inspector.workers()] == ["ours-1-a"]
    finally:
        await workshop.raw.execute_command("ACL", "SETUSER", "default", "+@all")
    await workshop.raw.delete("corral:bull:alive")
