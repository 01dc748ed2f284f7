"""`--metrics-port`: what a worker answers about itself while it works, is stuck, loses its store,
and drains.
"""

from __future__ import annotations

import asyncio
import contextvars
import http.client
import json
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from chaos.proxy import Proxy
from corral import Every, Job, Payload, Queue
from corral.app.child_process import keep_record, start_heartbeats
from corral.fleet.processes import OwnRecord, ProcessRecord, ProcessRecords
from corral.observe.lag import LoopLag
from corral.observe.probes import ParentProbes, WorkerProbes
from corral.store.connection import Link
from corral.store.scripts import script
from corral.tasks import OwnTask
from corral.worker import worker as worker_module
from corral.worker.execution import Execution
from corral.worker.slots import Slots
from corral.worker.worker import Worker

pytestmark = pytest.mark.asyncio


class Letter(Payload):
    text: str = ""


letters = Queue("acme-letters", Letter)
Ask = Callable[[str], Awaitable[tuple[int, bytes]]]


async def ask(url: str, path: str) -> tuple[int, bytes]:
    """The status and the body of one request."""

    def request() -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    return await asyncio.to_thread(request)


async def ask_probe(url: str, path: str) -> tuple[int, str]:
    """The status of a probe, and why it is not 200."""
    status, body = await ask(url, path)
    return status, json.loads(body).get("reason", "")


@pytest.fixture
def listening(command: Any, workshop: Any) -> Callable[..., Awaitable[tuple[Any, str]]]:
    """`worker, url = await listening("worker", …)`: it has started, and says where it serves."""

    async def start(*arguments: str, **environment: str) -> tuple[Any, str]:
        started = command(*arguments, "--metrics-port", "0", **environment)
        await workshop.wait_until(lambda: '"url"' in started.said, "it says where it listens")
        (said,) = [json.loads(line) for line in started.said.splitlines() if '"url"' in line]
        return started, said["url"]

    return start


async def until(workshop: Any, url: str, path: str, status: int, **how: Any) -> tuple[float, str]:
    """Wait until a probe answers so; when it did, and why."""
    said: list[tuple[int, str]] = []

    async def answers() -> bool:
        said.append(await ask_probe(url, path))
        return said[-1][0] == status

    await workshop.wait_until(answers, f"{path} answers {status}", every=0.05, **how)
    return time.monotonic(), said[-1][1]


async def test_a_worker_from_its_start_to_its_end(listening: Any, workshop: Any) -> None:
    worker, url = await listening("worker", "acme-letters", "--concurrency", "1")
    await until(workshop, url, "/readyz", 200)
    assert await ask_probe(url, "/healthz") == (200, "")
    job = await workshop.producer(letters).enqueue(letters, Letter(text="sleep 1.5"))
    await workshop.until(letters, job.id, "active")
    assert await ask_probe(url, "/healthz") == (200, ""), (
        "every slot is taken: there is nothing to fetch"
    )
    status, body = await ask(url, "/metrics")
    assert status == 200
    assert b'bullmq_active_jobs{queue="acme-letters"} 1.0\n' in body
    assert b'corral_job_runs_total{outcome="completed",queue="acme-letters"} 0.0\n' in body
    assert b'corral_plugin_info{distribution="acme",origin="wheel",version="1.0"} 1.0\n' in body

    worker.process.send_signal(signal.SIGTERM)
    assert (await until(workshop, url, "/readyz", 503))[1] == "the worker drains"
    assert await ask_probe(url, "/healthz") == (200, ""), "who drains is well"
    assert await asyncio.to_thread(worker.wait) == 0
    assert await workshop.state(letters, job.id) == "completed"
    (minutes,) = [key async for key in workshop.raw.scan_iter("corral:bull:*:minutes")]
    assert minutes == "corral:bull:acme-letters:minutes", "written when it ended, if not before"


@pytest.mark.timing
async def test_a_cut_network_is_not_ready_within_5_s_and_ready_within_2_s_after_and_restarts_nobody(
    listening: Any, command: Any, workshop: Any, tmp_path: Path
) -> None:
    """And `corral health` agrees, some seconds later: it reads what the worker wrote last."""
    async with Proxy(tmp_path / "p.sock", Path(workshop.url.removeprefix("unix://"))) as proxy:
        worker, url = await listening("worker", "acme-letters", REDIS_URL=proxy.url)
        await until(workshop, url, "/readyz", 200)

        async def has_signed() -> bool:
            return bool(await workshop.raw.exists("corral:bull:alive"))

        await workshop.wait_until(has_signed, "it has given a heartbeat")
        proxy.hold()
        cut = time.monotonic()
        unready, why = await until(workshop, url, "/readyz", 503)
        assert why == "the store does not answer"
        status, body = await ask(url, "/metrics")
        assert (status, b"corral_store_up 0.0\n" in body) == (200, True), (
            "its own figures are served all the same"
        )
        agreed = command("health")
        while await asyncio.to_thread(agreed.wait) == 0:
            assert time.monotonic() - cut < 20
            assert await ask_probe(url, "/healthz") == (200, ""), (
                "a restart would not bring the network back"
            )
            agreed = command("health")
        assert agreed.process.returncode == 1, agreed.said
        assert "has fetched within the last 15 s" in agreed.said, agreed.said
        assert time.monotonic() - cut > 12
        assert await ask_probe(url, "/healthz") == (200, "")
        proxy.let_go()
        back = time.monotonic()
        ready, _ = await until(workshop, url, "/readyz", 200)
        print(f"cut: not ready after {unready - cut:.1f} s; back: ready after {ready - back:.2f} s")
        job = await workshop.producer(letters).enqueue(letters, Letter(text="hello"))
        await workshop.until(letters, job.id, "completed")
        worker.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait) == 0
    assert ready - back <= 2
    assert unready - cut <= 5


@pytest.mark.timing
async def test_swallowed_bytes_are_not_ready_within_15_s_and_ready_within_2_s_after(
    listening: Any, workshop: Any, tmp_path: Path
) -> None:
    """Nothing tells the worker that what it sent is gone; it tries anew soon enough."""
    async with Proxy(tmp_path / "p.sock", Path(workshop.url.removeprefix("unix://"))) as proxy:
        worker, url = await listening("worker", "acme-letters", REDIS_URL=proxy.url)
        await until(workshop, url, "/readyz", 200)
        proxy.swallows_new = True
        proxy.swallow()
        swallowed = time.monotonic()
        red, _ = await until(workshop, url, "/readyz", 503, seconds=20)
        assert await ask_probe(url, "/healthz") == (200, "")
        proxy.swallows_new = False
        back = time.monotonic()
        green, _ = await until(workshop, url, "/readyz", 200)
        print(
            f"swallowed: not ready after {red - swallowed:.1f} s; back: ready after {green - back:.2f} s"
        )
        worker.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait) == 0
    assert red - swallowed <= 15
    assert green - back <= 2


@pytest.mark.timing
async def test_a_blocked_event_loop_is_red_within_15_s_and_green_within_2_s_after(
    listening: Any, workshop: Any
) -> None:
    """The server answers all the same: it does not run on the loop."""
    worker, url = await listening("worker", "acme-letters")
    job = await workshop.producer(letters).enqueue(letters, Letter(text="block 15.5"))
    await workshop.until(letters, job.id, "active")
    began = time.monotonic()
    red, why = await until(workshop, url, "/healthz", 503, seconds=20)
    assert re.fullmatch(r"the event loop has not moved for 1\d s: a processor blocks it", why)
    assert (await ask_probe(url, "/readyz"))[0] == 503
    lag = next(
        line
        for line in (await ask(url, "/metrics"))[1].splitlines()
        if line.startswith(b"corral_event_loop")
    )
    await workshop.until(letters, job.id, "completed")
    ended = time.monotonic()
    green, _ = await until(workshop, url, "/healthz", 200)
    print(
        f"blocked: red after {red - began:.1f} s ({lag.decode()}); green {green - ended:.2f} s after it ended"
    )
    worker.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait) == 0
    assert red - began <= 15
    assert green - ended <= 2


async def test_a_parent_tells_of_its_processes_and_each_of_itself(
    listening: Any, command: Any, workshop: Any
) -> None:
    parent = command("worker", "--processes", "2", "--metrics-port", "0")
    await workshop.wait_until(
        lambda: parent.said.count('"url"') == 3, "all three say where they listen"
    )
    lines = [json.loads(line) for line in parent.said.splitlines()]
    urls = {line["worker"]: line["url"] for line in lines if "url" in line}
    own = min(urls, key=len)
    for url in urls.values():
        assert (
            (await until(workshop, url, "/readyz", 200))[1]
            == (await ask_probe(url, "/healthz"))[1]
            == ""
        )
    assert b"corral_workers 2.0\n" in (await ask(urls[own], "/metrics"))[1]
    assert b"corral_job_runs_total" not in (await ask(urls[own], "/metrics"))[1], (
        "it runs none itself"
    )

    pid = next(line["pid"] for line in lines if line.get("child") == f"{own}.1")
    os.kill(pid, signal.SIGSTOP)
    await workshop.raw.hdel("corral:bull:alive", f"{own}.1")  # as its death does
    _, why = await until(workshop, urls[own], "/healthz", 503)
    os.kill(pid, signal.SIGCONT)
    assert why == f"1 of the 2 worker processes of {own!r} are at work"
    await until(workshop, urls[own], "/healthz", 200)
    job = await workshop.producer(letters).enqueue(letters, Letter(text="sleep 1"))
    await workshop.until(letters, job.id, "active")
    parent.process.send_signal(signal.SIGTERM)
    _, why = await until(workshop, urls[own], "/readyz", 503)
    assert why == "the worker processes drain"
    assert await asyncio.to_thread(parent.wait) == 0


async def test_a_port_that_is_taken_and_one_too_high_are_refused(
    listening: Any, command: Any, workshop: Any
) -> None:
    worker, url = await listening("worker", "acme-letters")
    second = command("worker", "--metrics-port", str(urlsplit(url).port))
    assert await asyncio.to_thread(second.wait) == 2
    assert (
        "cannot be listened on: address already in use\n  hint: another --metrics-port"
        in second.said
    )
    third = command("worker", "--metrics-port", "65534", "--processes", "2")
    assert await asyncio.to_thread(third.wait) == 2
    assert third.said.startswith(
        "error: --metrics-port 65534 leaves no port for each of 2 processes\n"
    )
    worker.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait) == 0


async def test_without_the_extra_it_is_refused_in_one_sentence(command: Any, acme: Path) -> None:
    missing = "raise ModuleNotFoundError('no such module', name='prometheus_client')\n"
    (acme / "prometheus_client.py").write_text(missing, "utf-8")
    worker = command("worker", "--metrics-port", "0")
    assert await asyncio.to_thread(worker.wait) == 2
    (error,) = [line for line in worker.said.splitlines() if line.startswith("error: ")]
    assert error.startswith(
        "error: metrics need prometheus_client, which is not installed: install the extra 'metrics'"
    )


async def test_a_parent_counts_the_jobs_of_dead_processes_that_it_has_put_back(
    command: Any, workshop: Any
) -> None:
    parent = command("worker", "acme-letters", "--processes", "1", "--metrics-port", "0")
    await workshop.wait_until(lambda: parent.said.count('"url"') == 2, "both say where they listen")
    job = await workshop.producer(letters).enqueue(letters, Letter(text="sleep 2"))
    await workshop.until(letters, job.id, "active")
    lines = [json.loads(line) for line in parent.said.splitlines()]
    (url,) = [line["url"] for line in lines if "url" in line and "." not in line["worker"]]
    before = (await ask(url, "/metrics"))[1]
    os.kill(next(line["pid"] for line in lines if "pid" in line), signal.SIGKILL)
    await workshop.wait_until(
        lambda: "jobs of a dead worker process were handed back" in parent.said,
        "it has put the job back",
    )
    after = (await ask(url, "/metrics"))[1]
    counted = [
        re.findall(rb'^corral_job_stalled_total{queue="([\w-]+)"} (.+)$', body, re.MULTILINE)
        for body in (before, after)
    ]
    assert counted == [[(b"acme-letters", b"0.0")], [(b"acme-letters", b"1.0")]]
    await workshop.until(letters, job.id, "completed")
    parent.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(parent.wait) == 0


@asynccontextmanager
async def probed(worker: Worker, store_url: str) -> AsyncIterator[WorkerProbes]:
    """A worker's probes, with a measured loop."""
    lag = LoopLag()
    measuring = asyncio.create_task(lag.measure())
    try:
        yield WorkerProbes(worker, lag, store_url)
    finally:
        measuring.cancel()


class TestOfAWorkerInThisProcess:
    @pytest.mark.timing
    async def test_a_slot_whose_job_s_task_has_ended_is_red_within_6_s_until_it_is_free(
        self, workshop: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where the consumer, which looks for such slots, does not free it."""
        monkeypatch.setattr(Execution, "outcome_of_unfinished", lambda *_: 1 / 0)
        sweep = Slots._end_unfinished
        monkeypatch.setattr(Slots, "_end_unfinished", lambda *_: None)
        tasks: list[asyncio.Task[Any]] = []

        async def process(job: Job[Letter]) -> None:
            tasks.extend(
                each for each in asyncio.all_tasks() if isinstance(each, OwnTask) and each.job
            )
            for each in tasks:
                if each is not asyncio.current_task():
                    contextvars.Context().run(each.cancel)

        await workshop.producer(letters).enqueue_many(letters, [Letter(), Letter()])
        async with (
            workshop.working(letters.processed_by(process)) as working,
            probed(working.worker, workshop.url) as p,
        ):
            await workshop.wait_until(
                lambda: len([each for each in tasks if each.done()]) == 2, "both tasks are done"
            )
            done = time.monotonic()
            assert p.health_problem() == p.readiness_problem() == ""
            await workshop.wait_until(p.health_problem, "it is red")
            red = time.monotonic() - done
            print(f"red after {red:.1f} s")
            assert re.fullmatch(
                r"a job's task ended \d s ago or earlier, and its slot is not free",
                p.health_problem(),
            )
            assert p.readiness_problem() == p.health_problem()
            monkeypatch.undo()
            (consumer,) = working.worker._consumers
            sweep(consumer.slots)
            await workshop.wait_until(lambda: not p.health_problem(), "the slot is free")
        assert red <= 6

    async def test_calls_that_fail_for_long_make_it_not_ready_and_restart_nobody(
        self, workshop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where the store answers all others: each reply to this worker's fetches is lost, say."""
        monkeypatch.setattr(worker_module, "FAILING_SECONDS", 0.5)
        monkeypatch.setattr(
            Worker, "misses_store", False
        )  # its other connections tell that the store is there
        digest = script("advance").digest.encode()
        store_url = workshop.url
        jobs = workshop.producer(letters)
        async with Proxy(tmp_path / "p.sock", Path(store_url.removeprefix("unix://"))) as proxy:
            monkeypatch.setattr(workshop, "url", proxy.url)
            async with (
                workshop.working(letters.processed_by(nothing)) as working,
                probed(working.worker, store_url) as p,
            ):
                await workshop.wait_until(
                    lambda: working.worker.is_serving and not p.readiness_problem(), "it is ready"
                )
                proxy.cut = lambda request: digest in request
                job = await jobs.enqueue(letters, Letter())
                await workshop.wait_until(p.readiness_problem, "it is not ready")

                async def is_in_heartbeat() -> bool:
                    return any(
                        heartbeat.troubles for heartbeat in (await heartbeats.read()).values()
                    )

                async with keep_record(OwnRecord(Link(store_url), "bull", "w")) as own:
                    start_heartbeats(working.worker, own)
                    heartbeats = ProcessRecords(own.link, "bull")  # as `corral health` reads it
                    await workshop.wait_until(is_in_heartbeat, "its heartbeat says so")
                why = "calls of queue 'acme-letters' to the store have failed for more than 0.5 s"
                assert (p.readiness_problem(), p.health_problem(), p.troubles()) == (
                    why,
                    "",
                    (why,),
                )
                proxy.cut = lambda _: False
                await workshop.wait_until(lambda: not p.readiness_problem(), "it is ready again")
                await workshop.until(letters, job.id, "completed")

    @pytest.mark.parametrize(
        ("key", "value", "kind"),
        [("meta", "no hash", "damage"), ("repeat:acme-letters", "no hash", "schedule")],
    )
    async def test_a_queue_that_is_not_worked_off_and_a_schedule_that_does_not_run_make_it_not_ready(
        self, workshop: Any, key: str, value: str, kind: str
    ) -> None:
        queue = Queue("acme-letters", Letter, schedule=Every(timedelta(hours=1)))
        await workshop.raw.set(f"bull:acme-letters:{key}", value)
        quick = {"stalled_interval_seconds": 0.2}
        async with (
            workshop.working(queue.processed_by(nothing), **quick) as working,
            probed(working.worker, workshop.url) as p,
        ):
            await workshop.wait_until(
                lambda: ("acme-letters", kind) in working.worker.troubles, "it is reported"
            )
            assert f"bull:acme-letters:{key} is a string, not a hash" in p.readiness_problem()
            assert p.health_problem() == ""
            await workshop.raw.delete(f"bull:acme-letters:{key}")
            await workshop.wait_until(lambda: not p.readiness_problem(), "it is repaired")

    async def test_an_ending_that_cannot_be_written_holds_up_nobody(self, workshop: Any) -> None:
        async with (
            workshop.working(letters.processed_by(nothing)) as working,
            probed(working.worker, workshop.url) as p,
        ):
            await workshop.wait_until(lambda: working.worker.is_serving, "it serves")
            working.worker.troubles["acme-letters", "ending"] = "how a job ended cannot be written"
            assert (p.health_problem(), p.readiness_problem()) == ("", "")
            assert p.troubles() == ("how a job ended cannot be written",)


async def nothing(_job: Job[Letter]) -> None: ...


class TestOfAParent:
    """By hand: what it reads, and what it says then."""

    async def test_a_store_that_is_away_restarts_nobody_and_signs_have_time_to_come_back(
        self, workshop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        heartbeats = ProcessRecords(Link(workshop.url), "bull")
        await heartbeats.write("p", ProcessRecord(0.0, processes=1))
        await heartbeats.write("p.1", ProcessRecord(0.0))
        async with Proxy(tmp_path / "p.sock", Path(workshop.url.removeprefix("unix://"))) as proxy:
            parent = ParentProbes("p", proxy.url, "bull", asyncio.Event())
            await parent._read()
            assert parent.health_problem() == parent.readiness_problem() == ""
            proxy.cut = lambda _: True
            await parent._read()
            assert (parent.health_problem(), parent.readiness_problem()) == (
                "",
                "the store does not answer",
            )
            proxy.cut = lambda _: False
            await heartbeats.write("p.1", ProcessRecord(20.0))
            await parent._read()
            assert parent.health_problem() == "", "the processes have not written since it is back"
            assert (
                parent.readiness_problem() == "no worker process has fetched within the last 15 s"
            )
            later = time.monotonic() + 15
            monkeypatch.setattr(time, "monotonic", lambda: later)
            parent._read_at = later
            assert parent.health_problem() == "no worker process has fetched within the last 15 s"
            monkeypatch.undo()
            await parent._link.close()
        await heartbeats._link.close()

    async def test_a_store_that_takes_no_signs_restarts_nobody(self, workshop: Any) -> None:
        """As where its memory is full: it can be read."""
        heartbeats = ProcessRecords(Link(workshop.url), "bull")
        await heartbeats.write("p", ProcessRecord(7.0, processes=1))
        await heartbeats.write("p.1", ProcessRecord(20.0))
        parent = ParentProbes("p", workshop.url, "bull", asyncio.Event())
        await parent._read()
        assert parent.health_problem() == ""
        assert parent.readiness_problem().startswith("the store takes no heartbeats")
        await heartbeats.write("p", ProcessRecord(0.0, processes=1))
        await heartbeats.write(
            "p.1", ProcessRecord(0.0, troubles=("queue 'a' cannot be processed",))
        )
        await parent._read()
        assert (parent.health_problem(), parent.readiness_problem()) == (
            "",
            "queue 'a' cannot be processed",
        )
        for link in (heartbeats._link, parent._link):
            await link.close()
