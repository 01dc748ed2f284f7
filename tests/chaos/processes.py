"""Real processes: a store that can be stopped and started on its files, and `corral worker` with
the test's plugin.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil
import redis.asyncio
from redis.exceptions import RedisError

from chaos.acme_chaos import EPOCH, JOURNAL, chaos, chaos_threads
from corral.catalog import Catalog, CatalogEntry
from corral.embedded.server_binary import ServerBinary, find_server
from corral.jobs import Durability
from corral.plugins import Plugins, Provider
from corral.producer import RedisJobScheduler

PLUGIN = Path(__file__).with_name("acme_chaos.py")
SPLITTER = Path(__file__).with_name("splitter.py")
SPLIT = "TEST_SPLIT_REPLIES"
READY = "ready"
"""What a program of the tests says on a line of its own when it has started."""
END_SECONDS = 15.0
"""How long a process may take to end: longer than any worker's grace in these tests."""


def store_binary() -> ServerBinary:
    """The server program of these tests: `TEST_STORE`, else what an embedded store runs."""
    return find_server(os.environ.get("TEST_STORE") or os.environ.get("CORRAL_VALKEY_SERVER"))


class Store:
    """A server of its own, with an append-only file.

    Args:
        folder: For its socket and its files.
        port: Where on the loopback interface it listens, too; 0: nowhere.
        options: More of its configuration, as on its command line.

    Attributes:
        socket: Where it listens.
        url: The same as a URL; with `TEST_SPLIT_REPLIES` that of the splitter before it.
        client: For looking at it; replies as text.
        options: Its configuration.
    """

    def __init__(self, folder: Path, *, port: int = 0, **options: object) -> None:
        self.socket = folder / "store.sock"
        self.url = f"unix://{self.socket}"
        self.client = redis.asyncio.Redis(unix_socket_path=str(self.socket), decode_responses=True)
        self._folder = folder
        self.options = {
            "port": port,
            "unixsocket": self.socket,
            "dir": folder,
            "appendonly": "yes",
            "save": "",
            **options,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._splitter: subprocess.Popen[bytes] | None = None
        if os.environ.get(SPLIT):
            self.url = f"unix://{folder / 'split.sock'}"

    async def start(self, **options: object) -> float:
        """Start it on its files; returns Unix seconds of its first answer.

        Args:
            options: More of its configuration, for this time.
        """
        self._launch(options)
        if os.environ.get(SPLIT):
            self._launch_splitter()
        async with asyncio.timeout(END_SECONDS):
            while True:
                try:
                    await self.client.ping()
                except (RedisError, OSError):
                    await asyncio.sleep(0.001)
                else:
                    return time.time()

    def _launch(self, more: Mapping[str, object]) -> None:
        server = store_binary().path
        arguments: list[str] = []
        for name, value in {**self.options, **more}.items():
            arguments += [f"--{name.replace('_', '-')}", *(str(value).split() or [""])]
        self._process = subprocess.Popen([server, *arguments], stdout=subprocess.DEVNULL)

    def _launch_splitter(self) -> None:
        path = Path(self.url.removeprefix("unix://"))
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(path))
            listening.listen()
            command = [sys.executable, str(SPLITTER), str(listening.fileno()), str(self.socket)]
            self._splitter = subprocess.Popen(command, pass_fds=[listening.fileno()])

    async def stop(self) -> None:
        """Stop it; its files stay."""
        await self.client.aclose()
        if self._splitter is not None:
            self._splitter.terminate()
            await asyncio.to_thread(self._splitter.wait, END_SECONDS)
        if self._process is not None:
            self._process.terminate()
            await asyncio.to_thread(self._process.wait, END_SECONDS)

    async def kill(self) -> float:
        """`kill -9`; returns Unix seconds of its end. Its files stay as they are."""
        assert self._process is not None
        self._process.kill()
        killed = time.time()
        if self._splitter is not None:
            self._splitter.terminate()
            await asyncio.to_thread(self._splitter.wait, END_SECONDS)
        await asyncio.to_thread(self._process.wait, END_SECONDS)
        await self.client.connection_pool.disconnect()
        return killed

    @property
    def written(self) -> Path:
        """The part of its append-only file that grows."""
        return max((self._folder / "appendonlydir").glob("*.incr.aof"))

    def forget(self) -> None:
        """Delete the files of one that is stopped: it will come back empty."""
        shutil.rmtree(self._folder / "appendonlydir")


def epoch() -> str:
    """For `EPOCH`: Unix seconds at which the monotonic clock, that all processes of this machine
    share, was 0.
    """
    return str(time.time() - time.monotonic())


def install_plugin(site: Path) -> None:
    """Make a folder for PYTHONPATH in which the plugin is installed, as an installer would leave
    it.
    """
    metadata = site / "acme_chaos-1.0.dist-info"
    metadata.mkdir(parents=True)
    shutil.copy(PLUGIN, site)
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: acme-chaos\nVersion: 1.0\n", "utf-8"
    )
    (metadata / "entry_points.txt").write_text(
        "[corral.queues]\nchaos = acme_chaos\nchaos-threads = acme_chaos\nchaos-ticks = acme_chaos\n",
        "utf-8",
    )


class Program:
    """A process in a group of its own, and what it says on stderr.

    Args:
        command: What is run.
        environment: All of its environment.
        log: Where its stderr goes.
    """

    def __init__(
        self, command: Sequence[str], *, environment: Mapping[str, str], log: Path
    ) -> None:
        self._log = log
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stderr=file,
                start_new_session=True,
            )
        self.pid = self._process.pid

    @property
    def has_started(self) -> bool:
        """Whether it has said that it is ready."""
        assert self._process.poll() is None, self._log.read_text("utf-8")
        return READY in self._log.read_text("utf-8").splitlines()

    def below(self) -> list[psutil.Process]:
        """All processes below it."""
        return psutil.Process(self.pid).children(recursive=True)

    def cpu_seconds(self) -> float:
        """How much processor time it has used."""
        times = psutil.Process(self.pid).cpu_times()
        return times.user + times.system

    def terminate(self) -> None:
        """Ask it to stop."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> float:
        """`kill -9`; returns Unix seconds of its end."""
        self._process.kill()
        killed = time.time()
        self._process.wait(END_SECONDS)
        return killed

    def freeze(self) -> None:
        """`SIGSTOP`: it does nothing until `thaw`, and keeps what it has."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """`SIGCONT`."""
        self._process.send_signal(signal.SIGCONT)

    async def ended(self, seconds: float | None = END_SECONDS) -> int:
        """Wait for its end, at most so many seconds; returns its exit code."""
        return await asyncio.to_thread(self._process.wait, seconds)

    def close(self) -> None:
        """Leave nothing behind."""
        if self._process.poll() is None:
            below = self.below()
            self.kill()
            for process in below:
                with suppress(psutil.NoSuchProcess):
                    process.kill()


class Worker(Program):
    """A `corral worker` process.

    Args:
        url: Its store.
        site: Where `install_plugin` has installed the plugin.
        folder: For its log.
        journal: What its processors write; None: they have none.
        serves: The queues, as on the command line.
        concurrency: How many jobs it runs at once.
        environment: More of its environment.
        processes: How many it keeps running, as their parent; 0: it is one itself.
        under: What runs it, in front of its own command.
        settings: `CORRAL_WORKER__…`, by the field's name.
    """

    def __init__(
        self,
        url: str,
        *,
        site: Path,
        folder: Path,
        journal: Path | None,
        serves: tuple[str, ...] = ("chaos",),
        concurrency: int = 5,
        environment: Mapping[str, str] = MappingProxyType({}),
        processes: int = 0,
        under: tuple[str, ...] = (),
        **settings: float,
    ) -> None:
        number = sum(1 for _ in folder.glob("worker-*.log"))
        log = folder / f"worker-{number}.log"
        own = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(site),
            "REDIS_URL": url,
            "CORRAL_LOG_FORMAT": "json",
            **({JOURNAL: str(journal), EPOCH: epoch()} if journal else {}),
            **environment,
            **{f"CORRAL_WORKER__{name.upper()}": str(value) for name, value in settings.items()},
        }
        command = [
            *under,
            sys.executable,
            "-m",
            "corral",
            "worker",
            *serves,
            "--concurrency",
            str(concurrency),
        ]
        if processes:
            command += ["--processes", str(processes)]
        self._processes = processes
        super().__init__(command, environment=own, log=log)

    @property
    def log(self) -> list[dict[str, Any]]:
        """The lines it has logged."""
        lines = self._log.read_text("utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    @property
    def has_started(self) -> bool:
        """Whether it, or as many processes as it keeps running, serve its queues."""
        assert self._process.poll() is None, self._log.read_text("utf-8")
        return sum(line["event"] == "worker started" for line in self.log) >= max(
            self._processes, 1
        )

    def children(self) -> dict[str, int]:
        """The process ids of the worker processes that serve its queues now, by name, oldest first."""
        pids: dict[str, int] = {}
        serving: list[str] = []
        for line in self.log:
            match line["event"]:
                case "worker process started":
                    pids[line["child"]] = line["pid"]
                case "worker started":
                    serving.append(line["worker"])
                case "worker process ended" | "worker process died":
                    pids.pop(line["child"])
        return {name: pids[name] for name in serving if name in pids}


@asynccontextmanager
async def producer(
    url: str, durability: Durability | None = None, *, prefix: str = "bull"
) -> AsyncIterator[RedisJobScheduler]:
    """A producer of the plugin's queues, in this process."""
    provider = Provider("acme-chaos", "1.0", "wheel")
    entries = {queue.name: CatalogEntry(queue, provider, "") for queue in (chaos, chaos_threads)}
    catalog = Catalog(MappingProxyType(entries))
    job_hooks = Plugins.load([]).job_hooks
    jobs = RedisJobScheduler(
        catalog, job_hooks, url=url, prefix=prefix, max_payload_bytes=2**20, durability=durability
    )
    try:
        yield jobs
    finally:
        await jobs.close()
