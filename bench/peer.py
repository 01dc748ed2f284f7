"""The processes that are measured, and the one protocol that all of them speak.

A peer is a process of its own. It reads one line of JSON at a time and answers with one: the
seconds that the operation took, or for `about` what the process is. Every peer has `about`; the
rest is by what its store shows.

Where jobs are in BullMQ's data model (Corral, BullMQ for Node), the store itself shows how long a
drain took:

* `add`: `callers` callers each add one job after the other, `count` in all; `add_bulk`: `size` jobs
  with each call.
* `start`: start a worker that runs so many jobs of a kind at once; `stop` it.

Other Python frameworks keep no times in the store, so their jobs hold the stopwatch:

* `add`: have `count` no-op jobs wait.
* `drain`: start a worker and wait for `count` jobs; the answer is the seconds from the first job to
  the last. It is the last request: the process is ended with its worker.

`bench.peers.queues` has what each kind of job does.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.store import Store

ROOT = Path(__file__).parents[1]
ANSWER_SECONDS = 120.0
"""No operation takes a tenth of this: a peer that stands still is an error, not a slow one."""
KINDS = ("noop", "order", "short", "flaky", "threaded")
"""The queues of `bench.peers.queues`."""
PYTHON_PEERS = {
    "taskiq": ("bench.peers.taskiq",),
    "huey, 1 thread": ("bench.peers.huey", "1"),
    "huey, 100 threads": ("bench.peers.huey", "100"),
    "dramatiq, 1 thread": ("bench.peers.dramatiq", "1"),
    "dramatiq, 100 threads": ("bench.peers.dramatiq", "100"),
    "BullMQ for Python": ("bench.peers.bullmq_python",),
}
"""Other Python frameworks, each in one process: the module, and its arguments after the store.

Where one thread drains no-op jobs faster than several, both are measured: it runs one job at a
time.
"""
ONE_AT_A_TIME = frozenset({"huey, 1 thread", "dramatiq, 1 thread"})
"""Those of `PYTHON_PEERS` that cannot run a hundred jobs at once, as the others and Corral do here."""


class Peer:
    """A process that does what it is asked, one thing at a time.

    Attributes:
        name: What the table calls it.
        prefix: Its key space, where its jobs are in BullMQ's data model.
        about: What the process reports about itself: versions, files, digests.
        pid: Its process id.
    """

    def __init__(self, name: str, prefix: str, process: subprocess.Popen[str]) -> None:
        self.name = name
        self.prefix = prefix
        self.pid = process.pid
        self._process = process
        self.about: dict[str, str] = self._answer("about")

    def ask(self, operation: str, **arguments: int | str) -> float:
        """Have one thing done, and return how many seconds it took.

        Raises:
            RuntimeError: The process has ended; its own words are on standard error.
        """
        return float(self._answer(operation, **arguments))

    def cpu_seconds(self) -> float:
        """What the process has used so far, in steps of the kernel's clock: 10 ms."""
        fields = Path(f"/proc/{self.pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _answer(self, operation: str, **arguments: int | str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": operation, **arguments}) + "\n")
        self._process.stdin.flush()
        overdue = threading.Timer(ANSWER_SECONDS, self._process.kill)
        overdue.start()
        line = self._process.stdout.readline()
        overdue.cancel()
        if not line:
            raise RuntimeError(
                f"{self.name} ended, or gave no answer in {ANSWER_SECONDS:g} s: {operation} {arguments}"
            )
        return json.loads(line)


@contextmanager
def corral_peer(store: Store) -> Iterator[Peer]:
    """Corral, with a plugin installed for it alone: metadata in a folder on the path."""
    with tempfile.TemporaryDirectory(prefix="corral-bench-plugin-") as folder:
        info = Path(folder) / "corral_bench-0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: corral-bench\nVersion: 0\n", encoding="utf-8"
        )
        entry_points = "\n".join(
            ["[corral.queues]", *(f"{kind} = bench.peers.queues" for kind in KINDS), ""]
        )
        (info / "entry_points.txt").write_text(entry_points, encoding="utf-8")
        environment = own_environment(folder, str(ROOT))
        environment |= {
            "REDIS_URL": store.url,
            "CORRAL_PREFIX": "corral",
            "CORRAL_LOG_LEVEL": "ERROR",  # it would warn of jobs that nobody serves, and of each that is retried
        }
        with _started(
            "Corral", "corral", [sys.executable, "-m", "bench.peers.corral"], environment
        ) as peer:
            yield peer


@contextmanager
def node_peer(store: Store) -> Iterator[Peer]:
    """BullMQ for Node, from CORRAL_NODE_MODULES or `tests/node`."""
    command = [
        "node",
        str(ROOT / "bench/peers/node.cjs"),
        store.url.removeprefix("unix://"),
        "node",
    ]
    environment = {
        **os.environ,
        "CORRAL_NODE_MODULES": str(node_folder()),
        "NODE_ENV": "production",
    }
    with _started("BullMQ for Node", "node", command, environment) as peer:
        yield peer


@contextmanager
def python_peer(name: str, store: Store) -> Iterator[Peer]:
    """One of `PYTHON_PEERS`."""
    module, *arguments = PYTHON_PEERS[name]
    command = [sys.executable, "-m", module, store.url, *arguments]
    with _started(name, "", command, own_environment(str(ROOT))) as peer:
        yield peer


def own_environment(*folders: str) -> dict[str, str]:
    """The environment without the caller's settings of Corral, and with folders before what is on
    PYTHONPATH.
    """
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CORRAL_", "REDIS_"))
    }
    paths = [*folders, *filter(None, [ours.get("PYTHONPATH")])]
    return ours | {"PYTHONPATH": os.pathsep.join(paths)}


def node_folder() -> Path:
    """The folder that holds BullMQ for Node's `node_modules`."""
    return Path(os.environ.get("CORRAL_NODE_MODULES") or ROOT / "tests" / "node").resolve()


def node_is_missing() -> str:
    """Why BullMQ for Node cannot be measured; empty where it can."""
    if shutil.which("node") is None:
        return "node is not on the PATH"
    if not (node_folder() / "node_modules" / "bullmq").is_dir():
        return "it is not installed: npm ci --prefix tests/node"
    return ""


@contextmanager
def _started(
    name: str, prefix: str, command: Sequence[str], environment: Mapping[str, str]
) -> Iterator[Peer]:
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(
                command,
                env=environment,
                cwd=ROOT,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        )
        stack.callback(process.kill)  # nothing is left that must end in order
        yield Peer(name, prefix, process)
