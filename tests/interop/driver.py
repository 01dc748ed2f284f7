"""BullMQ for Python beside Corral, used through its documented API only: answers what `driver.mjs`
answers.

Run as a process of its own; nothing of Corral or of the tests may be imported here.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from bullmq import DelayedError, FlowProducer, Job, Queue, QueueEvents, UnrecoverableError, Worker

SOCKET_SECONDS = 60
"""Longer than a worker blocks: 10 s at most."""


LACKS = {
    "board": "has no queue that Bull Board takes",
    "change_delay": "has no changeDelay",
    "counted": "has no getMetrics, and its workers count nothing",
    "finished": "has no waitUntilFinished",
    "locks": "has no option for a worker that does not renew its locks",
    "spans": "has no telemetry",
    "workers": "names connections in its own way, and sees none of another client's workers",
}
"""What it has no API for: the operation, or what an operation's argument asks for."""


class Side:
    """What one test has made."""

    def __init__(self, socket: str, journal: str, prefix: str) -> None:
        # redis-py gives up on a reply after 5 s, and with that a worker that blocks for longer has
        # stopped for good
        self.client = {
            "connection": f"unix://{socket}?socket_timeout={SOCKET_SECONDS}",
            "prefix": prefix,
        }
        self.journal = journal
        self.queues: dict[str, Queue] = {}
        self.flows: list[FlowProducer] = []
        self.listeners: dict[str, QueueEvents] = {}
        self.workers: list[Worker] = []
        self.heard: list[dict[str, Any]] = []
        self.errors: list[str] = []

    def queue(self, name: str) -> Queue:
        if name not in self.queues:
            self.queues[name] = Queue(name, dict(self.client))
        return self.queues[name]

    async def stored(self, name: str, job_id: str) -> Job:
        job = await Job.fromId(self.queue(name), job_id)
        if job is None:
            raise LookupError(f"there is no job {job_id}")
        return job

    def write(self, event: str, job: Job) -> None:
        line = {
            "at": time.time(),
            "pid": os.getpid(),
            "event": event,
            "id": job.id,
            "attempt": job.attemptsMade + 1,
        }
        journal = os.open(self.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(journal, json.dumps(line).encode() + b"\n")
        finally:
            os.close(journal)

    async def process(self, job: Job, token: str) -> Any:
        self.write("start", job)
        data = job.data
        said = data.get("says") or []
        for line in said:
            await job.log(line)
        if said:
            await job.updateProgress({"said": len(said)})
        await asyncio.sleep(data.get("ms", 0) / 1000)
        if data.get("snoozeMs") and job.attemptsStarted == 1:
            await job.moveToDelayed(round(time.time() * 1000) + data["snoozeMs"], token)
            raise DelayedError
        if data.get("fatal"):
            raise UnrecoverableError("fatal, as the data says")
        if job.attemptsMade < data.get("fails", 0):
            raise RuntimeError(f"attempt {job.attemptsMade + 1} fails, as the data says")
        children = list((await job.getChildrenValues() or {}).values())
        self.write("end", job)
        return children or data.get("value")


side: Side | None = None


def current() -> Side:
    assert side is not None, "no store is open"
    return side


async def open_(socket: str, journal: str, prefix: str) -> None:
    global side  # noqa: PLW0603  # one process, one test at a time
    side = Side(socket, journal, prefix)


async def close() -> None:
    global side  # noqa: PLW0603  # as in `open_`
    for worker in current().workers:
        await worker.close(force=True)
    for made in [*current().listeners.values(), *current().queues.values(), *current().flows]:
        await made.close()
    side = None


async def stop_workers() -> None:
    for worker in current().workers:
        await worker.close()
    current().workers.clear()


async def add(queue: str, jobs: list[dict[str, Any]]) -> list[str]:
    each = [{"name": "work", "data": job["data"], "opts": job.get("opts", {})} for job in jobs]
    return [job.id for job in await current().queue(queue).addBulk(each)]


async def add_one(queue: str, data: Any, opts: dict[str, Any]) -> str:
    return str((await current().queue(queue).add("work", data, opts)).id)


async def flow(tree: dict[str, Any]) -> dict[str, Any]:
    made = FlowProducer(dict(current().client))
    current().flows.append(made)
    added = await made.add(tree)
    return {
        "id": added["job"].id,
        "children": [child["job"].id for child in added.get("children") or []],
    }


async def schedule(
    queue: str, id_: str, repeat: dict[str, Any], template: dict[str, Any] | None = None
) -> None:
    made = template or {}
    await (
        current()
        .queue(queue)
        .upsertJobScheduler(id_, repeat, made.get("name"), made.get("data"), made.get("opts"))
    )


async def unschedule(queue: str, id_: str) -> Any:
    return await current().queue(queue).removeJobScheduler(id_)


async def scheduler(queue: str, id_: str) -> Any:
    return await current().queue(queue).getJobScheduler(id_)


async def work(queue: str, concurrency: int, more: dict[str, Any] | None = None) -> int:
    there = current()
    worker = Worker(
        queue, there.process, {**there.client, "concurrency": concurrency, **(more or {})}
    )
    worker.on("error", lambda *fields: there.errors.append(" ".join(map(str, fields))))
    there.workers.append(worker)
    return os.getpid()


async def listen(queue: str) -> None:
    there = current()
    listener = QueueEvents(queue, dict(there.client))

    def hear(event: str) -> Callable[..., None]:
        return lambda fields, *_: there.heard.append({"queue": queue, "event": event, **fields})

    for event in ("added", "completed", "failed", "progress"):
        listener.on(event, hear(event))
    there.listeners[queue] = listener


async def heard() -> list[dict[str, Any]]:
    return current().heard


async def errors() -> list[str]:
    return side.errors if side else []


async def take_errors() -> list[str]:
    taken, current().errors[:] = list(current().errors), []
    return taken


async def lacks(what: str) -> str | None:
    return LACKS.get(what)


async def job(queue: str, id_: str) -> dict[str, Any] | None:
    found = await Job.fromId(current().queue(queue), id_)
    if found is None:
        return None
    names = (
        "name",
        "data",
        "opts",
        "progress",
        "timestamp",
        "returnvalue",
        "failedReason",
        "stacktrace",
    )
    seen = {name: getattr(found, name) for name in names}
    state = await current().queue(queue).getJobState(id_)
    return {"state": state, "attempts": found.attemptsMade, "starts": found.attemptsStarted, **seen}


async def logs(queue: str, id_: str) -> Any:
    return await current().queue(queue).getJobLogs(id_)


async def clean(queue: str, ending: str) -> int:
    return len(await current().queue(queue).clean(0, 1000, ending))


async def counts(queue: str) -> Any:
    return await current().queue(queue).getJobCounts()


async def pause(queue: str) -> None:
    await current().queue(queue).pause()


async def resume(queue: str) -> None:
    await current().queue(queue).resume()


async def paused(queue: str) -> bool:
    return bool(await current().queue(queue).isPaused())


async def limit_concurrency(queue: str, count: int) -> None:
    await current().queue(queue).setGlobalConcurrency(count)


async def limit_rate(queue: str, count: int, ms: int) -> None:
    await current().queue(queue).setGlobalRateLimit(count, ms)


async def limits(queue: str) -> dict[str, Any]:
    held = current().queue(queue)
    return {
        "concurrency": await held.getGlobalConcurrency(),
        "rate": await held.getGlobalRateLimit(),
    }


async def retry(queue: str, id_: str, state: str = "failed") -> None:
    await (await current().stored(queue, id_)).retry(state)


async def retry_all(queue: str) -> None:
    await current().queue(queue).retryJobs()


async def promote(queue: str, id_: str) -> None:
    await (await current().stored(queue, id_)).promote()


async def promote_all(queue: str) -> None:
    await current().queue(queue).promoteJobs()


async def change_priority(queue: str, id_: str, priority: int) -> None:
    await (await current().stored(queue, id_)).changePriority({"priority": priority})


async def change_data(queue: str, id_: str, data: Any) -> None:
    await (await current().stored(queue, id_)).updateData(data)


async def remove(queue: str, id_: str) -> Any:
    return await current().queue(queue).remove(id_)


async def drain(queue: str, delayed: bool = False) -> None:
    await current().queue(queue).drain(delayed)


async def obliterate(queue: str) -> None:
    await current().queue(queue).obliterate(force=True)


operations: dict[str, Callable[..., Awaitable[Any]]] = {
    each.__name__.rstrip("_"): each
    for each in (
        add, add_one, change_data, change_priority, clean, close, counts, drain, errors,
        flow, heard, job, lacks, limit_concurrency, limit_rate, limits, listen, logs,
        obliterate, open_, pause, paused, promote, promote_all, remove, resume, retry,
        retry_all, schedule, scheduler, stop_workers, take_errors, unschedule, work,
    )
}  # fmt: skip


async def main() -> None:
    """Answer each line."""
    reader = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what BullMQ prints is no answer
    while line := await reader.readline():
        request = {
            "id_" if name == "id" else name: value for name, value in json.loads(line).items()
        }
        operation = request.pop("do")
        try:
            if operation in LACKS:
                answer = {"no_api": LACKS[operation]}
            else:
                answer = {"ok": await operations[operation](**request)}
        except Exception:  # noqa: BLE001  # the test gets it
            answer = {"error": traceback.format_exc()}
        text = json.dumps(answer, default=str).encode() + b"\n"
        while text:
            text = text[os.write(answers, text) :]
    os._exit(0)  # connections would keep the process alive


if __name__ == "__main__":
    asyncio.run(main())
