"""What a job costs the store, in instructions: `python -m bench.instructions`.

Times on a shared machine vary by more than a change to a script is worth. Here the server runs
under callgrind, which counts the instructions that it executes: that count repeats to less than 1
%, whatever else the machine does. It includes neither the kernel's work nor what memory costs, so
it says which of two versions does less, and not how fast either is; `python -m bench` measures
that.

`QueueStore` is called directly, one call at a time, without a worker: `add` with n jobs per call,
and `advance` that ends the n jobs of the call before and fetches n. Each case has a new server with
the embedded store's options, and starts on a queue that is in use: thousands of jobs wait, the
event stream has reached the length where it is trimmed, and the scripts are loaded. Only the calls
that are measured are counted. Nothing is asserted.

`--json FILE` keeps the figures, `--compare FILE` prints kept ones beside the new. To measure
another checkout's core with this script: `PYTHONPATH=<checkout>/core python -m bench.instructions`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import redis

import corral
from corral.embedded.server_binary import ServerBinary, find_server
from corral.options import JobOptions, Retention
from corral.outcome import Completed
from corral.store.codec import Ending, FetchedJob, NewJob, encode_options
from corral.store.connection import Link
from corral.store.queue_store import QueueStore

PREFIX, QUEUE = "raw", "noop"
OPTIONS = JobOptions(attempts=1, keep_completed=Retention(), keep_failed=Retention())
"""As BullMQ's own defaults: one attempt, every job kept."""
BACKLOG = 5_500
"""Jobs that wait when a measurement starts: two events each, more than the 10,000 to which the
stream is trimmed.
"""
FILL_BATCH = 500
"""Jobs per call of the backlog; the largest that `QueueStore` takes."""
WARM_UP_CALLS = 4
"""The first loads the script, the second is the first to end jobs."""
PATIENCE_SECONDS = 120.0
"""How long a start, a reply or an answer of callgrind may take, on a machine as busy as it likes."""
POLL_SECONDS = 0.02

SERVER_OPTIONS = {
    # as the embedded store starts its server
    "port": "0",
    "save": "",
    "appendonly": "yes",
    "aof-use-rdb-preamble": "no",
    "maxmemory-policy": "noeviction",
    # what the clock starts would be counted, and more of it on a busy machine: as little of that as
    # possible
    "hz": "1",
    "activerehashing": "no",
    "auto-aof-rewrite-percentage": "0",
    "busy-reply-threshold": "0",
}
OUTSIDE_SCRIPTS = {
    "eval",
    "evalsha",
    "fcall",
    "info",
    "config|resetstat",
    "client|setinfo",
    "client|setname",
    "hello",
}
"""Commands that are no part of a job: the calls themselves, and what a client and this module send."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured.

    Attributes:
        operation: `add`, or `drain`: `advance` that ends as many jobs as it fetches.
        batch: Jobs per call.
        calls: How many calls are counted: a multiple of 50 where that is affordable, as the server
            collects Lua's garbage after every 50th script.
    """

    operation: str
    batch: int
    calls: int

    @property
    def name(self) -> str:
        """What the table calls it."""
        return f"{self.operation} {self.batch}"

    @property
    def jobs(self) -> int:
        """How many jobs the counted calls add, or end and fetch."""
        return self.batch * self.calls


CASES = (
    Case("drain", 1, 500),
    Case("drain", 10, 150),
    Case("drain", 50, 50),
    Case("add", 1, 500),
    Case("add", 50, 50),
    Case("add", 500, 10),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one job costs the server.

    Attributes:
        instructions: Executed by all of its threads.
        commands: That scripts, or clients without a script, ran.
        by_command: The same by the command's name.
    """

    instructions: float
    commands: float
    by_command: dict[str, float] = field(default_factory=dict)


class CountedServer:
    """A server under callgrind, which counts only where the run switches it on.

    Args:
        folder: Where it keeps its files and its socket.
        process: Valgrind, and in it the server.
    """

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.url = f"unix://{folder / 'store.sock'}"
        self._folder = folder
        self._process = process
        self._client = redis.Redis.from_url(self.url, socket_timeout=PATIENCE_SECONDS)

    def wait_until_it_answers(self) -> None:
        """Return as soon as the server can be used."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                self._client.ping()
            except redis.ConnectionError:
                time.sleep(POLL_SECONDS)
            else:
                return
        log = (self._folder / "store.log").read_text("utf-8", errors="replace")
        raise RuntimeError(f"the server did not start under callgrind:\n{log}")

    def start_instrumentation(self) -> None:
        """Run slowly from here on: what is not instrumented cannot be counted."""
        self._tell_callgrind("instrumentation", "on")

    def start_count(self) -> None:
        """Count from here on."""
        self._client.config_resetstat()
        self._tell_callgrind("zero")

    def read_count(self, jobs: int) -> Cost:
        """What the server has executed since `start_count`, per job."""
        self._tell_callgrind("dump")
        dump = (self._folder / "callgrind.1").read_text("utf-8")
        totals = re.search(
            r"^totals: (\d+)$", dump, re.MULTILINE
        )  # of all threads; `summary` is of one
        assert totals is not None, "callgrind wrote what it counted"
        stats: Any = self._client.info("commandstats")
        by_command = {
            name.removeprefix("cmdstat_"): taken["calls"] / jobs for name, taken in stats.items()
        }
        by_command = {
            name: calls for name, calls in sorted(by_command.items()) if name not in OUTSIDE_SCRIPTS
        }
        return Cost(int(totals[1]) / jobs, sum(by_command.values()), by_command)

    def _tell_callgrind(self, *command: str) -> None:
        subprocess.run(
            [
                "vgdb",
                f"--vgdb-prefix={self._folder / 'vgdb'}",
                f"--pid={self._process.pid}",
                *command,
            ],
            capture_output=True,
            check=True,
            timeout=PATIENCE_SECONDS,
        )


@contextmanager
def counted_server(binary: ServerBinary) -> Iterator[CountedServer]:
    """A new server under callgrind, without any data."""
    with tempfile.TemporaryDirectory(prefix="corral-instructions-") as made:
        folder = Path(made)
        options = SERVER_OPTIONS | {"dir": made, "unixsocket": str(folder / "store.sock")}
        command = [
            *("valgrind", "--tool=callgrind", "--instr-atstart=no"),
            *(f"--callgrind-out-file={folder / 'callgrind'}", f"--vgdb-prefix={folder / 'vgdb'}"),
            *(
                binary.path,
                *(word for name, value in options.items() for word in (f"--{name}", value)),
            ),
        ]
        with (folder / "store.log").open("wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            server = CountedServer(folder, process)
            server.wait_until_it_answers()
            yield server
        finally:
            process.kill()  # nothing of it is kept
            process.wait()


class Caller:
    """One client of the queue, which makes one call at a time.

    Args:
        url: The store.
    """

    def __init__(self, url: str) -> None:
        self._link = Link(url, read_seconds=PATIENCE_SECONDS)
        self._queue = QueueStore(self._link, PREFIX, QUEUE, options=OPTIONS)
        self._opts = encode_options(OPTIONS)
        self._added = 0
        self._seq = 0
        self._running: list[FetchedJob] = []

    async def add(self, batch: int) -> None:
        """Add jobs in one call."""
        numbers = range(self._added, self._added + batch)
        jobs = [
            NewJob(id=f"job-{n:06}", name=QUEUE, data=b'{"n":%d}' % n, opts=self._opts)
            for n in numbers
        ]
        assert all(await self._queue.add(jobs)), "every job is new"
        self._added += batch

    async def drain(self, batch: int) -> None:
        """End the jobs of the call before and fetch as many, in one call."""
        self._seq += 1
        endings = [Ending(job=job, outcome=Completed()) for job in self._running]
        advanced = await self._queue.advance("bench", self._seq, endings, batch)
        assert not any(advanced.codes), "every ending was applied"
        self._running = list(advanced.jobs)
        assert len(self._running) == batch, "the backlog was long enough"

    async def close(self) -> None:
        """Close the connection."""
        await self._link.close()


async def measure(server: CountedServer, case: Case) -> Cost:
    """Make a case's calls on a queue that is in use."""
    caller = Caller(server.url)
    call = caller.drain if case.operation == "drain" else caller.add
    backlog = BACKLOG + (case.jobs if case.operation == "drain" else 0)
    for _ in range(-(-backlog // FILL_BATCH)):
        await caller.add(FILL_BATCH)
    server.start_instrumentation()
    for _ in range(WARM_UP_CALLS):
        await call(case.batch)
    server.start_count()
    for _ in range(case.calls):
        await call(case.batch)
    cost = server.read_count(case.jobs)
    await caller.close()
    return cost


def heading(*, compared: bool) -> str:
    """What the columns of `row` are."""
    if not compared:
        return f"{'case':9} {'instructions/job':>16} {'commands/job':>13}"
    return (
        f"{'':9} {'instructions/job':>32} {'commands/job':>22}\n"
        f"{'case':9} {'before':>10} {'after':>10} {'change':>10} {'before':>14} {'after':>7}"
    )


def row(name: str, after: Cost, before: Cost | None, *, compared: bool) -> str:
    """A case, beside its earlier figures where there are any."""
    if not compared:
        return f"{name:9} {after.instructions:>16,.0f} {after.commands:>13.2f}"
    if before is None:
        return f"{name:9} {'-':>10} {after.instructions:>10,.0f} {'-':>10} {'-':>14} {after.commands:>7.2f}"
    change = after.instructions / before.instructions - 1
    return (
        f"{name:9} {before.instructions:>10,.0f} {after.instructions:>10,.0f} {change:>+10.1%} "
        f"{before.commands:>14.2f} {after.commands:>7.2f}"
    )


def read_figures(path: Path) -> dict[str, Cost]:
    """The costs that an earlier run kept, by the case's name."""
    kept = json.loads(path.read_text("utf-8"))
    return {name: Cost(**cost) for name, cost in kept["cases"].items()}


def write_figures(path: Path, measured_on: str, costs: dict[str, Cost]) -> None:
    """Keep the costs for a later `--compare`."""
    kept = {
        "measured_on": measured_on,
        "cases": {name: asdict(cost) for name, cost in costs.items()},
    }
    path.write_text(json.dumps(kept, indent=2) + "\n", "utf-8")


def count(case: Case) -> Cost:
    """Measure a case on a new server of its own."""
    with counted_server(find_server()) as server:
        return asyncio.run(measure(server, case))


def missing_programs() -> list[str]:
    """What cannot be found of the programs that count."""
    return [program for program in ("valgrind", "vgdb") if shutil.which(program) is None]


def require_callgrind() -> None:
    """End the program where callgrind is not installed."""
    if missing := missing_programs():
        sys.exit(
            f"error: instructions are counted by valgrind, and {' and '.join(missing)} cannot be found on the PATH\n"
            "  hint: apt-get install valgrind"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.instructions", description="Count instructions per job."
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to keep the figures")
    parser.add_argument(
        "--compare", type=Path, metavar="FILE", help="figures of an earlier run, to print beside"
    )
    arguments = parser.parse_args()
    require_callgrind()
    earlier = None if arguments.compare is None else read_figures(arguments.compare)
    compared = earlier is not None
    binary = find_server()
    valgrind = subprocess.run(
        ["valgrind", "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    measured_on = f"{binary}, {valgrind}, corral in {Path(corral.__file__).parent}"
    print(f"{measured_on}\n\n{heading(compared=compared)}", flush=True)
    costs: dict[str, Cost] = {}
    for case in CASES:
        cost = count(case)
        costs[case.name] = cost
        print(row(case.name, cost, (earlier or {}).get(case.name), compared=compared), flush=True)
    if arguments.json is not None:
        write_figures(arguments.json, measured_on, costs)


if __name__ == "__main__":
    main()
