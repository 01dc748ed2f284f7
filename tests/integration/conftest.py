"""A workshop: queues, a producer and workers of this process on the real store, and a look at what
they left.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio

from corral import Payload, Processor, Queue
from corral.catalog import Catalog, CatalogEntry
from corral.cli import main
from corral.inspector import JobInspector
from corral.plugins import PluginEntryPoint, Plugins, Provider, read_entry_points
from corral.plugins.entry_points import PLUGINS
from corral.producer import RedisJobScheduler
from corral.settings import WorkerSettings
from corral.store.connection import Link
from corral.worker.worker import StopReport, Worker

STATES = ("wait", "active", "prioritized", "delayed", "completed", "failed")


class Letter(Payload):
    text: str = ""


@dataclass
class Working:
    """A worker that runs.

    Attributes:
        worker: The worker.
        running: Its `run`.
    """

    worker: Worker
    running: asyncio.Task[StopReport]

    async def stop(self) -> StopReport:
        """Stop it in order, and wait for its end."""
        self.worker.stop()
        return await asyncio.wait_for(asyncio.shield(self.running), 15)


@dataclass
class Workshop:
    """Queues of one test.

    Attributes:
        url: The store, empty at first.
        raw: A plain client of it, replies as text.
        wait_until: As the fixture.
        plugins: What workers and producers load; nothing, unless `load` was called.
        producers: Those that were made; closed after the test.
        at_work: How many workers run.
        before: The tasks and the threads that there were before the first of them.
    """

    url: str
    raw: redis.asyncio.Redis
    wait_until: Callable[..., Any]
    plugins: Plugins = field(default_factory=lambda: Plugins.load([]))
    producers: list[RedisJobScheduler] = field(default_factory=list)
    at_work: int = 0
    before: tuple[set[asyncio.Task[Any]], set[threading.Thread]] = field(
        default_factory=lambda: (set(), set())
    )

    def load(self, **hooks: Callable[..., object]) -> None:
        """Load a plugin that implements these hooks; each is marked with `hookimpl`."""
        name = f"acme_{id(self)}_{len(self.plugins.loaded)}"
        module = ModuleType(name)
        vars(module).update(hooks)
        sys.modules[name] = module
        try:
            provider = Provider("acme", "1.0", "wheel")
            self.plugins = Plugins.load([PluginEntryPoint("acme", name, PLUGINS, provider)])
        finally:
            del sys.modules[name]
        assert not self.plugins.report.problems

    def producer(
        self, *queues: Queue[Any], url: str | None = None, **settings: Any
    ) -> RedisJobScheduler:
        """A producer of these queues, with connections of its own."""
        provider = Provider("acme", "1.0", "wheel")
        entries = {queue.name: CatalogEntry(queue, provider, "") for queue in queues}
        settings = {"prefix": "bull", "max_payload_bytes": 1024 * 1024, **settings}
        jobs = RedisJobScheduler(
            Catalog(MappingProxyType(entries)),
            self.plugins.job_hooks,
            url=url or self.url,
            **settings,
        )
        self.producers.append(jobs)
        return jobs

    @asynccontextmanager
    async def working(
        self,
        *processors: Processor,
        burst: bool = False,
        name: str | None = None,
        concurrency: Mapping[str, int] | None = None,
        stuck: int = 0,
        **settings: Any,
    ) -> AsyncIterator[Working]:
        """Run a worker; on leaving it is stopped, and the last one leaves nothing running, but
        `stuck` processors.
        """
        if not self.at_work:
            self.before = set(asyncio.all_tasks()), set(threading.enumerate())
        self.at_work += 1
        worker = Worker(
            processors,
            url=self.url,
            prefix="bull",
            settings=WorkerSettings(**{"shutdown_timeout_seconds": 5.0, **settings}),
            plugins=self.plugins,
            jobs=self.producer(*(processor.queue for processor in processors)),
            concurrency=concurrency,
            burst=burst,
            name=name,
        )
        working = Working(worker, asyncio.create_task(worker.run(), name="the worker of this test"))
        try:
            yield working
        finally:
            self.at_work -= 1
            await working.stop()
        if self.at_work:
            return
        tasks, threads = self.before
        await self.wait_until(
            lambda: len(set(threading.enumerate()) - threads) <= stuck, "its threads have ended"
        )
        left = {task.get_name() for task in asyncio.all_tasks() - tasks}
        left -= {
            "proxy",
            "proxy-requests",
            "proxy-replies",
        }  # they learn a little later that a connection was closed
        assert len(left) <= stuck, left
        assert _timers() == []

    async def burst(self, *processors: Processor, **settings: Any) -> StopReport:
        """Work off what waits."""
        async with self.working(*processors, burst=True, **settings) as working:
            return await asyncio.wait_for(asyncio.shield(working.running), 15)

    async def state(self, queue: Queue[Any], job_id: str) -> str:
        """In which one container the job is, or `gone`."""
        async with self.raw.pipeline(transaction=True) as looking:
            for state in STATES:
                key = f"bull:{queue.name}:{state}"
                _ = (
                    looking.lpos(key, job_id)
                    if state in {"wait", "active"}
                    else looking.zscore(key, job_id)
                )
            found = await looking.execute()
        held = [state for state, place in zip(STATES, found, strict=True) if place is not None]
        assert len(held) <= 1, held
        return held[0] if held else "gone"

    async def until(self, queue: Queue[Any], job_id: str, state: str, **how: Any) -> None:
        """Wait until the job is in that container."""

        async def arrived() -> bool:
            return await self.state(queue, job_id) == state

        await self.wait_until(arrived, f"job {job_id} is in {state}", **how)

    async def hash(self, queue: Queue[Any], job_id: str) -> dict[str, str]:
        """The job's fields."""
        fields: dict[str, str] = await self.raw.hgetall(f"bull:{queue.name}:{job_id}")
        return fields

    async def events(self, queue: Queue[Any], job_id: str | None = None) -> list[dict[str, str]]:
        """The queue's events, in order; of one job, or all."""
        entries = await self.raw.xrange(f"bull:{queue.name}:events")
        return [event for _, event in entries if job_id is None or event.get("jobId") == job_id]

    async def stamps(self, queue: Queue[Any], job_id: str) -> list[tuple[str, int]]:
        """The job's events, each with the store's time in milliseconds."""
        entries = await self.raw.xrange(f"bull:{queue.name}:events")
        return [
            (event["event"], int(at.split("-")[0]))
            for at, event in entries
            if event.get("jobId") == job_id
        ]


def _timers() -> list[str]:
    """What of ours the event loop is still to call: it would keep a stopped worker in memory."""
    pending = [handle for handle in asyncio.get_running_loop()._scheduled if not handle.cancelled()]
    return [text for text in map(repr, pending) if "corral" in text]


def _descriptors() -> set[Path]:
    return set(Path("/proc/self/fd").iterdir())


@pytest_asyncio.fixture
async def workshop(
    store_url: str, raw: redis.asyncio.Redis, wait_until: Any
) -> AsyncIterator[Workshop]:
    """A `Workshop`; afterwards every connection is closed."""
    await raw.ping()
    descriptors = _descriptors()
    workshop = Workshop(store_url, raw, wait_until)
    yield workshop
    for producer in workshop.producers:
        await producer.close()
    await raw.connection_pool.disconnect()
    assert _descriptors() <= descriptors, "a connection was left open"


@pytest.fixture
def letters() -> Queue[Letter]:
    """A queue with the default policy."""
    return Queue("letters", Letter)


@pytest_asyncio.fixture
async def inspect(
    workshop: Workshop, letters: Queue[Letter]
) -> AsyncIterator[Callable[..., JobInspector]]:
    """`inspect()`: an inspector of `letters`; `inspect(clock=…)` of another time."""
    catalog = Catalog(
        MappingProxyType(
            {letters.name: CatalogEntry(letters, Provider("acme", "1.0", "wheel"), "")}
        )
    )
    made: list[JobInspector] = []

    def inspector(**settings: Any) -> JobInspector:
        made.append(JobInspector(catalog, Link(workshop.url), prefix="bull", **settings))
        return made[-1]

    yield inspector
    for each in made:
        await each.close()


ACME = """
import asyncio, ctypes, os, sys, time
from corral import Fail, Job, Payload, Processor, Queue, hookimpl
from corral.inspector import of_worker


class Letter(Payload):
    text: str = ""
    copies: int = 1


letters = Queue("acme-letters", Letter, concurrency=4)
threaded = Queue("acme-threads", Letter, concurrency=4)


@hookimpl
def corral_queues() -> list[Queue]:
    return [letters, threaded]


async def on_loop(job: Job[Letter], inspector) -> str:
    word, _, argument = job.payload.text.partition(" ")
    if word == "block":
        time.sleep(float(argument))
    elif word == "in-c":  # a mutex that is locked twice: no signal handler runs
        mutex, library = ctypes.create_string_buffer(64), ctypes.CDLL(None)
        library.pthread_mutex_lock(mutex), library.pthread_mutex_lock(mutex)
    elif word == "sleep":
        await asyncio.sleep(float(argument))
    elif word == "deaf":
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass
    elif word == "fail":
        raise Fail(argument)
    elif word == "pause":
        await inspector.pause(argument)
    elif word == "loop":
        return type(asyncio.get_running_loop()).__module__
    return job.payload.text


def on_thread(job: Job[Letter]) -> str:
    word, _, argument = job.payload.text.partition(" ")
    if word in {"block", "sleep"}:
        time.sleep(float(argument))
    while word == "obedient" and not job.cancelled:
        time.sleep(0.01)
    return job.payload.text


@hookimpl
def corral_processors() -> list[Processor]:
    return [letters.processed_by(on_loop, using=of_worker), threaded.processed_by(on_thread)]
"""
"""A plugin whose jobs do what their text says."""


@pytest.fixture
def acme(tmp_path: Path) -> Iterator[Path]:
    """A folder in which the distribution `acme` is installed; on `PYTHONPATH`, a process has its
    two queues.
    """
    folder = tmp_path / "site"
    info = folder / "acme-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "acme_letters.py").write_text(ACME, "utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n", "utf-8")
    points = "[corral.queues]\nacme-letters = acme_letters\nacme-threads = acme_letters\n"
    (info / "entry_points.txt").write_text(points, "utf-8")
    yield folder
    sys.modules.pop("acme_letters", None)


@pytest.fixture
def in_process(
    acme: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """`in_process(url, "queues")`: exit code, standard output, standard error of a command run by
    this process.

    In production, and with nothing of the caller's settings; a test may set others before it runs a
    command.
    """
    for name in os.environ:
        if name.startswith(("CORRAL_", "REDIS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CORRAL_ENV", "production")
    monkeypatch.chdir(tmp_path)

    def run(url: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setenv("REDIS_URL", url)
        monkeypatch.setattr(sys, "path", [str(acme), *sys.path])
        monkeypatch.setattr(sys, "argv", ["corral", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


@pytest.fixture
def real_plugins() -> str:
    """What `CORRAL_DISABLED_PLUGINS` is where a test's own queues shall be all there are: a
    checkout has others.
    """
    return ",".join(
        sorted(
            {
                claim.provider.distribution
                for claim in read_entry_points()
                if isinstance(claim, PluginEntryPoint)
            }
        )
    )


class Command:
    """A `corral` command in a process of its own.

    Attributes:
        process: The process.
        err: Where its standard error goes.
    """

    def __init__(
        self,
        arguments: tuple[str, ...],
        folder: Path,
        environment: Mapping[str, str],
        stdin: bytes,
        cwd: Path | None,
        under: tuple[str, ...] = (),
    ) -> None:
        self.err = folder / f"{uuid.uuid4().hex}.err"
        self.out = self.err.with_suffix(".out")
        source = self.err.with_suffix(".in")
        source.write_bytes(stdin)
        with self.err.open("wb") as err, self.out.open("wb") as out, source.open("rb") as given:
            self.process = subprocess.Popen(
                [*under, sys.executable, "-m", "corral", *arguments],
                stdin=given,
                stdout=out,
                stderr=err,
                cwd=cwd or folder,
                env=dict(environment),
            )

    def wait(self, seconds: float = 60) -> int:
        """Its exit code."""
        return self.process.wait(seconds)

    @property
    def said(self) -> str:
        """What it has written to standard error so far."""
        return self.err.read_text("utf-8")

    @property
    def result(self) -> str:
        """What it has written to standard output so far."""
        return self.out.read_text("utf-8")


@pytest.fixture
def command(
    store_url: str, acme: Path, tmp_path: Path, real_plugins: str
) -> Iterator[Callable[..., Command]]:
    """`command("worker", "acme-letters", CORRAL_PREFIX="x")` starts it; None unsets a name.

    `acme` is installed, and nothing else: what a checkout has beside it may want a database, or
    settings.
    """
    started: list[Command] = []
    folder = tmp_path / "work"
    folder.mkdir()
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CORRAL_", "REDIS_", "COVERAGE_"))
    }
    own |= {
        "PYTHONPATH": str(acme),
        "REDIS_URL": store_url,
        "CORRAL_ENV": "production",
        "PYTHONWARNINGS": "error",
    }

    def start(
        *arguments: str,
        stdin: bytes = b"",
        cwd: Path | None = None,
        under: tuple[str, ...] = (),
        **environment: str | None,
    ) -> Command:
        disabled = (real_plugins, environment.get("CORRAL_DISABLED_PLUGINS"))
        environment["CORRAL_DISABLED_PLUGINS"] = ",".join(filter(None, disabled)) or None
        message = {
            name: value for name, value in {**own, **environment}.items() if value is not None
        }
        started.append(Command(arguments, folder, message, stdin, cwd, under))
        return started[-1]

    yield start
    for command in started:
        if command.process.poll() is None:
            command.process.kill()
            command.process.wait(10)
