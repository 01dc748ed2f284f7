"""What the benchmarks share: one store, the processes that work on it, and how a figure is taken.

Every peer is a process of its own that adds and drains when told to. The store says how long a drain took (the first
`processedOn` and the last `finishedOn` of the jobs) and what it cost (its own CPU time), so that the peers are
measured the same way and none of them counts anything.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import redis

from corral.store.embedded import embedded_store

ROOT = Path(__file__).parents[1]
PEERS = Path(__file__).parent / "peers"
QUEUE = "noop"
CONCURRENCIES = (1, 10, 100)
ROUNDS = 3
"""Every figure is the median of so many."""
DRAIN_SECONDS = 120.0
"""No drain takes a tenth of this: a peer that stands still is an error, not a slow one."""
POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Figures:
    """One peer at one concurrency, in one round.

    Attributes:
        added: Jobs added per second.
        drained: Jobs drained per second.
        add_us: The store's CPU time for adding one job, in microseconds.
        drain_us: The store's CPU time for everything after that, in microseconds.
    """

    added: float
    drained: float
    add_us: float
    drain_us: float

    @property
    def life_us(self) -> float:
        """The store's CPU time for a job's whole life."""
        return self.add_us + self.drain_us


def medians(rounds: Sequence[Figures]) -> Figures:
    """The median of each figure."""
    return Figures(
        *(statistics.median(getattr(figures, name) for figures in rounds) for name in Figures.__slots__),
    )


class Store:
    """The server under all peers, seen from outside."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.socket = url.removeprefix("unix://")
        self.client = redis.Redis.from_url(url)

    def cpu_seconds(self) -> float:
        """What the server has used so far, all its threads together."""
        used = self.client.info("cpu")
        return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])

    def completed(self, prefix: str) -> int:
        """How many jobs are done."""
        return int(self.client.zcard(f"{prefix}:{QUEUE}:completed"))

    def drain_seconds(self, prefix: str) -> float:
        """From the first start to the last ending, by the jobs' own times."""
        done: Any = self.client.zrange(f"{prefix}:{QUEUE}:completed", 0, -1, withscores=True)
        with self.client.pipeline(transaction=False) as pipe:
            for job, _ in done[:1000]:  # the first to start is among the first to end
                pipe.hget(f"{prefix}:{QUEUE}:{job.decode()}", "processedOn")
            first = min(int(started) for started in pipe.execute())
        return float(done[-1][1] - first) / 1000


@contextmanager
def fresh_store() -> Iterator[Store]:
    """An embedded store of our own, as `corral dev` would start it."""
    with tempfile.TemporaryDirectory(prefix="corral-bench-") as folder, embedded_store(Path(folder)) as url:
        yield Store(url)


class Peer:
    """A process that adds and drains when told to: one line of JSON in, the seconds it took out.

    Attributes:
        name: What the table calls it.
        prefix: Its key space.
    """

    def __init__(self, name: str, prefix: str, process: subprocess.Popen[str]) -> None:
        self.name = name
        self.prefix = prefix
        self._process = process

    def ask(self, operation: str, **arguments: int) -> float:
        """Have one thing done."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": operation, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended: {operation} {arguments}")
        return float(line)

    def pick_ups(self, store: Store, count: int) -> list[float]:
        """How many seconds an idle worker takes to start each of so many jobs, one after the other.

        The store's MONITOR says when it wrote the events "waiting" and "active", in microseconds.
        """
        store.client.flushdb()
        self.ask("start", concurrency=1)
        took: list[float] = []
        with store.client.monitor() as seen:
            for number in range(count):
                while store.client.info("clients")["blocked_clients"] < 1 or store.completed(self.prefix) < number:
                    time.sleep(POLL_SECONDS)  # until the last one is done and the worker waits
                self.ask("add", count=1, concurrency=1)
                waiting = _moment(seen, "waiting")
                took.append(_moment(seen, "active") - waiting)
        self.ask("stop")
        return took

    def measure(self, store: Store, count: int, concurrency: int) -> Figures:
        """Add so many jobs to an empty store, drain them, and say what each took."""
        store.client.flushdb()
        cpu = store.cpu_seconds()
        adding = self.ask("add", count=count, concurrency=concurrency)
        between = store.cpu_seconds()
        self.ask("start", concurrency=concurrency)
        deadline = time.monotonic() + DRAIN_SECONDS
        while store.completed(self.prefix) < count:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} stands still at {store.completed(self.prefix)} of {count} jobs")
            time.sleep(POLL_SECONDS)
        draining = store.cpu_seconds() - between
        self.ask("stop")
        seconds = max(store.drain_seconds(self.prefix), 0.001)
        return Figures(count / adding, count / seconds, (between - cpu) / count * 1e6, draining / count * 1e6)


def _moment(seen: redis.client.Monitor, event: str) -> float:
    """When the store writes the next event of this name."""
    while True:
        command: Any = seen.next_command()
        if f" * event {event} " in command["command"]:
            return float(command["time"])


@contextmanager
def corral_peer(store: Store) -> Iterator[Peer]:
    """Corral, with a plugin installed for it alone: metadata in a folder on the path."""
    with tempfile.TemporaryDirectory(prefix="corral-bench-plugin-") as folder:
        info = Path(folder) / "corral_bench-0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: corral-bench\nVersion: 0\n", encoding="utf-8")
        entry_point = f"[corral.queues]\n{QUEUE} = bench.peers.noop_queue\n"
        (info / "entry_points.txt").write_text(entry_point, encoding="utf-8")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CORRAL_")}
        environment |= {
            "PYTHONPATH": os.pathsep.join([folder, str(ROOT)]),
            "REDIS_URL": store.url,
            "CORRAL_PREFIX": "corral",
            "CORRAL_LOG_LEVEL": "ERROR",  # while it adds, nobody serves the queue, and it would warn of that
        }
        with _started("Corral", "corral", [sys.executable, "-m", "bench.peers.corral"], environment) as peer:
            yield peer


@contextmanager
def node_peer(store: Store) -> Iterator[Peer]:
    """BullMQ for Node, from CORRAL_NODE_MODULES or `tests/node`."""
    modules = node_modules()
    command = ["node", str(PEERS / "node.cjs"), store.socket, "node", QUEUE]
    environment = {**os.environ, "CORRAL_NODE_MODULES": str(modules), "NODE_ENV": "production"}
    with _started("BullMQ Node", "node", command, environment) as peer:
        yield peer


@contextmanager
def python_peer(store: Store) -> Iterator[Peer]:
    """BullMQ for Python."""
    command = [sys.executable, "-m", "bench.peers.bullmq_python", store.socket, "python", QUEUE]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with _started("BullMQ Python", "python", command, environment) as peer:
        yield peer


@contextmanager
def _started(name: str, prefix: str, command: Sequence[str], environment: Mapping[str, str]) -> Iterator[Peer]:
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(
                command, env=environment, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        )
        stack.callback(process.kill)  # nothing is left that must end in order
        yield Peer(name, prefix, process)


def node_modules() -> Path:
    """The directory that holds BullMQ for Node's `node_modules`."""
    folder = Path(os.environ.get("CORRAL_NODE_MODULES") or ROOT / "tests" / "node").resolve()
    if not (folder / "node_modules" / "bullmq").is_dir():
        sys.exit("error: BullMQ for Node is not installed\n  hint: npm ci --prefix tests/node")
    return folder


def machine(store: Store) -> str:
    """What the figures were taken on."""
    bullmq = json.loads((node_modules() / "node_modules" / "bullmq" / "package.json").read_text(encoding="utf-8"))
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    server = store.client.info("server")
    parts = [
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, Node {node.lstrip('v')}",
        f"{server.get('server_name', 'redis')} {server.get('valkey_version', server['redis_version'])}",
        f"corral {metadata.version('corral')}, BullMQ for Node {bullmq['version']}",
    ]
    return ", ".join(parts)
