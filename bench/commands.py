"""What Corral's processes cost before they do anything: an idle worker's memory, its start, `corral
enqueue`.

Each is a process as a user starts it, with the six plugins of this repository and nothing of this
benchmark.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from bench.peer import own_environment
from bench.rounds import Bench, show_progress, wait_until
from bench.store import Store

PLUGINS = 6
SETTLE_SECONDS = 1.0
"""How long a worker idles before its memory is read."""
READY_SECONDS = 30.0
POLL_SECONDS = 0.002
COMMAND_SECONDS = 60.0
PAYLOAD = '{"to": "ada@example.com", "template": "welcome", "variables": {}}'
LOCAL = {"CORRAL_EMAILS_HOST": "127.0.0.1", "CORRAL_EMAILS_SENDER": "no-reply@example.com"}


@dataclass(frozen=True, slots=True)
class CommandFigures:
    """Figures of processes, round by round.

    Attributes:
        worker_mib: Resident memory of a worker that idles, in MiB.
        ready_seconds: From the start of a worker until each of its queues waits for a job.
        enqueue_seconds: A whole `corral enqueue`.
        note: Why nothing was measured.
    """

    worker_mib: Sequence[float] = ()
    ready_seconds: Sequence[float] = ()
    enqueue_seconds: Sequence[float] = ()
    note: str = ""


def measure_commands(bench: Bench) -> CommandFigures:
    """Start and ask each process, a few times; the first time is not counted: it compiles, and
    reads from the disk.
    """
    queues = metadata.entry_points(group="corral.queues")
    if len(queues) != PLUGINS:
        return CommandFigures(
            note=f"{len(queues)} plugins are installed, and not the {PLUGINS} of this repository"
        )
    store = bench.stage().store
    taken: list[tuple[float, float, float]] = []
    with tempfile.TemporaryDirectory(prefix="corral-bench-commands-") as folder:
        environment = own_environment() | LOCAL
        environment |= {
            "REDIS_URL": store.url,
            "CORRAL_ENV": "development",
            "CORRAL_DATA_DIR": folder,
            "CORRAL_DATABASE_URL": f"sqlite+aiosqlite:///{folder}/bench.db",
        }
        _run("db", "create", folder=folder, environment=environment)
        for number in range(bench.rounds + 1):
            show_progress(f"commands, round {number}")
            store.client.flushdb()
            with _worker(store, folder, environment) as (pid, ready):
                time.sleep(SETTLE_SECONDS)
                mib = resident_mib(pid)
            began = time.perf_counter()
            _run("enqueue", "emails", PAYLOAD, folder=folder, environment=environment)
            taken.append((mib, ready, time.perf_counter() - began))
    store.client.flushdb()
    show_progress("")
    worker_mib, ready_seconds, enqueue_seconds = zip(*taken[1:], strict=True)
    return CommandFigures(worker_mib, ready_seconds, enqueue_seconds)


def resident_mib(pid: int) -> float:
    """A process's resident memory."""
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None, "the process lives"
    return int(found[1]) / 1024


@contextmanager
def _worker(store: Store, folder: str, environment: dict[str, str]) -> Iterator[tuple[int, float]]:
    """A worker that waits on all its queues, and how long it took to."""
    log = Path(folder) / "worker.log"
    began = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [_corral(), "worker"], cwd=folder, env=environment, stdout=output, stderr=output
        )
    try:
        while store.blocked_clients() < PLUGINS:
            if process.poll() is not None or time.perf_counter() - began > READY_SECONDS:
                raise RuntimeError(f"the worker is not ready:\n{log.read_text('utf-8')}")
            time.sleep(POLL_SECONDS)
        yield process.pid, time.perf_counter() - began
    finally:
        process.terminate()
        process.wait(COMMAND_SECONDS)
    wait_until(lambda: store.blocked_clients() == 0, "the worker's connections are closed")


def _run(*arguments: str, folder: str, environment: dict[str, str]) -> None:
    command = [_corral(), *arguments]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(
            f"corral {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        )


def _corral() -> str:
    """The console script beside this interpreter."""
    return str(Path(sys.executable).with_name("corral"))
