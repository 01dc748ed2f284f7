"""Three queues whose processors do what a payload says, and write down when they start and when
they end.

Installed by the tests beside the core, and loaded by real workers: nothing of the tests may be
imported here.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import redis
from pydantic import JsonValue

from corral import (
    Every,
    Fail,
    Job,
    JobOptions,
    Payload,
    Processor,
    Queue,
    Retention,
    Snooze,
    hookimpl,
)

JOURNAL = "CORRAL_CHAOS_JOURNAL"
"""The environment's name for the file that starts and ends are written to; explained by the queue
`chaos`.
"""
EVERY_MS = "CORRAL_CHAOS_EVERY_MS"
"""The environment's name for the period of the queue `chaos-ticks`, which has no schedule without
it.
"""
EPOCH = "CORRAL_CHAOS_EPOCH"
"""The environment's name for Unix seconds at which the monotonic clock was 0: a worker's own clock
may be wrong.
"""
TICK_SECONDS = 0.7
"""How long a tick's job runs: long enough for its worker to be killed in the middle."""
LOOK_SECONDS = 0.005
"""How often a job looks whether the file exists that it waits for."""
STEP_MS = 50
"""Of a `fenced` job, which runs in steps."""
HOLD_SECONDS = 15.0
"""How long a process waits for its end, at most: longer than any test needs to kill it."""

ODD: dict[str, Any] = {
    "nan": float("nan"),
    "date": date(2030, 1, 2),
    "set": {1},
    "bytes": b"\xff",
    "surrogate": "cut \ud83d",
    "huge": 2**60,
    "object": object(),
    "time": datetime(2030, 1, 2, tzinfo=UTC),
}
"""What processors may return or report by mistake: not all of it can be written as JSON."""


class Work(Payload):
    """What one job does.

    Attributes:
        ms: How long it runs.
        blocks: Whether it holds the event loop, or only its thread, meanwhile.
        fails: How many of its first attempts fail.
        value: What it reports as progress and returns, unless it is None.
        odd: The name of an `ODD` value to report and return instead.
        dies: How it ends its process at once: `exit` or `segv`; on every start.
        orphans: How many processes it leaves behind, each for a second.
        waits_for: The path of a file that it waits for before it runs.
        hangs_ms: How long it holds the event loop after all that, once only; the journal says when
        that begins.
        looks: Whether its start says in the journal that the store holds a lock on it.
        fenced: Whether it writes down its effect, its failure and its cancellation, too, and
            returns the number of its start.
        holds: Where its process waits to be killed, once only: `fetched` (before the processor
            starts), `effect` (between its effect and its end) or `failing` (when the processor has
            raised).
        filler: Means nothing, and makes the payload as large as it is.
        says: Lines that it logs before it runs.
        snooze_ms: How much later it wants to run when it is first started, having run; 0: it does
        not ask.
        fatal: Whether it fails for good, whatever attempts it has.
    """

    ms: int = 0
    blocks: bool = False
    fails: int = 0
    value: JsonValue = None
    odd: str | None = None
    dies: str | None = None
    orphans: int = 0
    waits_for: str | None = None
    hangs_ms: int = 0
    looks: bool = False
    fenced: bool = False
    holds: str | None = None
    filler: str = ""
    says: tuple[str, ...] = ()
    snooze_ms: int = 0
    fatal: bool = False


KEPT = JobOptions(attempts=1, keep_completed=Retention(), keep_failed=Retention())
chaos = Queue("chaos", Work, options=KEPT)
chaos_threads = Queue("chaos-threads", Work, options=KEPT)
period = os.environ.get(EVERY_MS)
chaos_ticks = Queue(
    "chaos-ticks",
    Work,
    options=KEPT,
    schedule=Every(timedelta(milliseconds=int(period))) if period else None,
)


async def process(job: Job[Work]) -> Any:
    if job.payload.fenced:
        return await process_fenced(job)
    start(job)
    for line in job.payload.says:
        job.log(line)
    if job.payload.dies:
        os._exit(9) if job.payload.dies == "exit" else os.kill(os.getpid(), signal.SIGSEGV)
    if job.payload.orphans:
        subprocess.run(["/bin/sh", "-c", "sleep 1 &" * job.payload.orphans], check=True)  # noqa: ASYNC221  # it is short
    if job.payload.blocks:
        time.sleep(job.payload.ms / 1000)  # noqa: ASYNC251  # what must not cost the job its lock
    else:
        await asyncio.sleep(job.payload.ms / 1000)
    if job.payload.waits_for:
        await appeared(Path(job.payload.waits_for))
    if job.payload.hangs_ms and not has_written("hang", job):
        write("hang", job)
        time.sleep(job.payload.hangs_ms / 1000)  # noqa: ASYNC251  # as a processor does that forgets the event loop
    return end(job)


async def process_fenced(job: Job[Work]) -> int:
    write("start", job)
    try:
        for _ in range(
            job.payload.ms // STEP_MS
        ):  # where its process is frozen, it has as much to do afterwards
            await asyncio.sleep(STEP_MS / 1000)
        await asyncio.sleep(job.payload.ms % STEP_MS / 1000)
        fail(job)
        write("effect", job)
        hold("effect", job)
    except asyncio.CancelledError:
        write("cancel", job)
        raise
    except RuntimeError:
        write("raise", job)
        raise
    write("end", job)
    return job.starts


async def process_tick(job: Job[Work]) -> None:
    write("start", job)
    await asyncio.sleep(TICK_SECONDS)
    write("end", job)


def process_on_a_thread(job: Job[Work]) -> Any:
    start(job)
    time.sleep(job.payload.ms / 1000)
    return end(job)


async def appeared(path: Path) -> None:
    """Wait until a file exists, however long that takes."""
    while not path.exists():  # noqa: ASYNC110, ASYNC240  # another process makes it
        await asyncio.sleep(LOOK_SECONDS)


def hold(where: str, job: Job[Any]) -> None:
    """Wait to be killed, if the payload says that here is where; the journal says when that begins."""
    if getattr(job.payload, "holds", None) == where and not has_written("hold", job):
        write("hold", job, where=where)
        time.sleep(HOLD_SECONDS)
        raise RuntimeError(f"job {job.id} has held its process, and nobody has killed it")


def has_written(event: str, job: Job[Any]) -> bool:
    """Whether an earlier start of the job has written such a line."""
    journal = Path(os.environ[JOURNAL])
    lines = map(json.loads, journal.read_text("utf-8").splitlines() if journal.exists() else ())
    return any((line["event"], line["id"]) == (event, job.id) for line in lines)


def start(job: Job[Work]) -> None:
    if not job.payload.looks:
        return write("start", job)
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:
        locked = client.exists(f"bull:{job.queue.name}:{job.id}:lock") == 1
    return write("start", job, locked=locked)


def end(job: Job[Work]) -> Any:
    work = job.payload
    value = work.value if work.odd is None else ODD[work.odd]
    if value is not None:
        job.progress(value)
    if work.snooze_ms and job.starts == 1:
        raise Snooze(after=timedelta(milliseconds=work.snooze_ms))
    if work.fatal:
        raise Fail("fatal, as the payload says")
    fail(job)
    write("end", job)
    return value


def fail(job: Job[Work]) -> None:
    if job.attempt <= job.payload.fails:
        raise RuntimeError(f"attempt {job.attempt} fails, as the payload says")


def write(event: str, job: Job[Any], **more: Any) -> None:
    """One line, whole, however many processes write."""
    now = float(epoch) + time.monotonic() if (epoch := os.environ.get(EPOCH)) else time.time()
    line = {"at": now, "pid": os.getpid(), "event": event, "id": job.id, "attempt": job.attempt}
    line |= {"fence": job.fence, **more}
    journal = os.open(os.environ[JOURNAL], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(journal, json.dumps(line).encode() + b"\n")
    finally:
        os.close(journal)


@hookimpl
@contextmanager
def corral_job_context(job: Job[Any]) -> Iterator[None]:
    hold("fetched", job)
    try:
        yield
    except RuntimeError:
        hold("failing", job)
        raise


@hookimpl
def corral_queues() -> list[Queue]:
    return [chaos, chaos_threads, chaos_ticks]


@hookimpl
def corral_processors() -> list[Processor]:
    return [
        chaos.processed_by(process),
        chaos_threads.processed_by(process_on_a_thread),
        chaos_ticks.processed_by(process_tick),
    ]
