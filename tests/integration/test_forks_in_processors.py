"""Processors that start processes in every way.

Each job ends as its processor decides, and the worker goes on.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from corral import Payload, Queue

pytestmark = pytest.mark.asyncio


class Letter(Payload):
    text: str = ""


letters, threads = Queue("acme-letters", Letter), Queue("acme-threads", Letter)

PLUGIN = """
import asyncio, contextlib, multiprocessing, os, signal, subprocess, sys, time
from concurrent.futures import ProcessPoolExecutor
from corral import Job, Payload, Processor, Queue, hookimpl


class Letter(Payload):
    text: str = ""


letters = Queue("acme-letters", Letter, concurrency=20)
threaded = Queue("acme-threads", Letter, concurrency=20)


@hookimpl
def corral_queues() -> list[Queue]:
    return [letters, threaded]


def pool(job, method):
    with multiprocessing.get_context(method).Pool(2) as pool:
        try:
            pool.apply_async(time.sleep, (300,)).get(timeout=0.2)
        except multiprocessing.TimeoutError:
            pass
    return "left"


def mapped(job, method):
    with multiprocessing.get_context(method).Pool(2) as pool:
        return sum(pool.map(abs, range(-100, 0)))


def process(job, method):
    process = multiprocessing.get_context(method).Process(target=time.sleep, args=(300,))
    process.start()
    process.terminate()
    end = time.monotonic() + 20
    # While another thread of this process reaps the child (each `start` does), `join` returns
    # at once, and the exit code is None until that thread has recorded it.
    while process.exitcode is None and time.monotonic() < end:
        process.join(0.005)
    return process.exitcode


def executor(job, method):
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as executor:
        return sum(executor.map(abs, range(-100, 0)))


def command(job, _):
    sleeping = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
    sleeping.terminate()
    return sleeping.wait(20)


def logs(job, _):
    child = multiprocessing.get_context("fork").Process(target=job.log, args=("from a child",))
    child.start()
    child.join(20)
    return child.exitcode


def forked():
    "0 in the child; the parent gets its exit code."
    pid = os.fork()
    return pid and waited(pid)


def waited(pid):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return "it did not end"


def returns(job, _):
    return forked()


def raises(job, _):
    code = forked()
    if code == 0:
        raise ValueError("in the child")
    return code


def exits(job, _):
    return forked() or sys.exit(7)


def signalled(job, name):
    code = forked()
    if code == 0:
        os.kill(os.getpid(), signal.Signals[name])
        time.sleep(300)
    return code


async def shell():
    program = "import time; time.sleep(300)"
    sleeping = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    sleeping.terminate()
    return await sleeping.wait()


async def on_loop(job: Job[Letter]):
    word, _, argument = job.payload.text.partition(" ")
    if word == "count":  # on the loop beside all others: who runs it?
        for _ in range(100):
            with open(argument, "a") as file:
                file.write(f"{os.getpid()}\\n")
            await asyncio.sleep(0.002)
        return None
    if word == "shell":
        return await shell()
    if word == "awaits":
        code = forked()
        await asyncio.sleep(0)
        return code
    if word == "waits":
        code = forked()
        if code == 0:
            await asyncio.get_running_loop().create_future()
        return code
    if word == "task":
        async def fork():
            return forked()
        return await asyncio.create_task(fork())
    if word == "thread":
        return await asyncio.to_thread(forked)
    if word == "executor":
        with ProcessPoolExecutor(2, multiprocessing.get_context(argument)) as executor:
            return await asyncio.get_running_loop().run_in_executor(executor, abs, -5050)
    return globals()[word](job, argument)


def on_thread(job: Job[Letter]):
    word, _, argument = job.payload.text.partition(" ")
    return globals()[word](job, argument)


@hookimpl
def corral_processors() -> list[Processor]:
    return [letters.processed_by(on_loop), threaded.processed_by(on_thread)]
"""

METHODS = ("fork", "spawn", "forkserver")
ENDED = {"returns": 1, "raises": 1, "exits": 7, "signalled SIGTERM": -15, "signalled SIGINT": 1}
"""The exit codes of children that come back.

SIGINT becomes a KeyboardInterrupt in them, as in any Python program.
"""
ON_THREAD = {
    **{f"pool {method}": "left" for method in METHODS},
    **{f"mapped {method}": 5050 for method in METHODS},
    **{f"process {method}": -15 for method in METHODS},
    **{f"executor {method}": 5050 for method in METHODS},
    "command": -15,
    "logs": 0,
    **ENDED,
}
ON_LOOP = {
    **{f"executor {method}": 5050 for method in METHODS},
    "shell": -15,
    "process fork": -15,
    "pool fork": "left",
    **ENDED,
    "awaits": 1,
    "waits": 1,
    "task": 1,
    "thread": 1,
}


@pytest.fixture
def forking(acme: Path, command: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """`forking("--processes", "1")`: a worker whose jobs start processes."""
    (acme / "acme_letters.py").write_text(PLUGIN, "utf-8")
    started = []

    def start(*options: str, **environment: str) -> Any:
        # From 3.12 on Python warns of every fork in a process that has threads.
        environment = {"PYTHONWARNINGS": "default", **environment}
        started.append(command("worker", "--shutdown-timeout", "5", *options, **environment))
        return started[-1]

    yield start
    for worker in started:  # what a failed test leaves
        if worker.process.poll() is None:
            for process in psutil.Process(worker.process.pid).children(recursive=True):
                process.kill()


async def results(workshop: Any, queue: Queue[Any], texts: dict[str, Any]) -> dict[str, Any]:
    """Enqueue these jobs, and return their results."""
    made = await workshop.producer(letters, threads).enqueue_many(
        queue, [Letter(text=text) for text in texts]
    )
    for each in made:
        await workshop.until(queue, each.id, "completed", seconds=40)
    found = [await workshop.hash(queue, each.id) for each in made]
    assert {job["ats"] for job in found} == {"1"}, "none was started twice"
    return {text: json.loads(job["returnvalue"]) for text, job in zip(texts, found, strict=True)}


@pytest.mark.parametrize("options", [(), ("--processes", "1")], ids=["alone", "with a parent"])
async def test_def_processors_start_processes_in_every_way(
    forking: Any, workshop: Any, options: Any
) -> None:
    worker = forking(*options)
    assert await results(workshop, threads, ON_THREAD) == ON_THREAD
    assert worker.said.count("a forked child came back to the worker and is ended") == 3, (
        worker.said
    )
    worker.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait) == 0


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_async_processors_do_and_no_child_runs_the_workers_loop(
    forking: Any, workshop: Any, tmp_path: Path, loop: str
) -> None:
    """One after the other, beside jobs that record at every step in which process they run."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    worker = forking(CORRAL_WORKER__EVENT_LOOP=loop)
    log = tmp_path / "processes"
    counting = asyncio.create_task(results(workshop, letters, {f"count {log}": None}))
    for text, expected in ON_LOOP.items():
        assert await results(workshop, letters, {text: expected, f"count {log}": None}) == {
            text: expected,
            f"count {log}": None,
        }, worker.said
    await counting
    assert set(log.read_text("utf-8").split()) == {str(worker.process.pid)}
    worker.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait) == 0


async def test_a_child_that_outlives_its_worker_holds_neither_its_connections_nor_its_port(
    forking: Any, workshop: Any, acme: Path
) -> None:
    stray = 'multiprocessing.get_context("fork").Process(target=time.sleep, args=(300,)).start()'
    plugin = PLUGIN.replace("    return forked()\n", f"    {stray}\n", 1)
    (acme / "acme_letters.py").write_text(plugin, "utf-8")
    before = len(await workshop.raw.client_list())
    worker = forking("--metrics-port", "0")
    producer = workshop.producer(threads)
    settled = await producer.enqueue(threads, Letter(text="command"))
    await workshop.until(threads, settled.id, "completed")
    # What is being connected while the child is forked, the child keeps.
    await workshop.wait_until(
        lambda: workshop.raw.exists("corral:bull:alive"), "its record is written"
    )
    job = await producer.enqueue(threads, Letter(text="returns"))
    await producer.close()
    await workshop.until(threads, job.id, "completed")
    (child,) = psutil.Process(worker.process.pid).children()
    try:
        worker.process.kill()
        await asyncio.to_thread(worker.wait)
        assert child.is_running()
        assert child.net_connections("inet") == []

        async def all_closed() -> bool:
            return len(await workshop.raw.client_list()) == before

        await workshop.wait_until(all_closed, "the store has closed all connections of the worker")
    finally:
        child.kill()
