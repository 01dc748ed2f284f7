"""What a process costs where all six plugins are installed: an idle worker's memory, and the time
that a start takes.

Seconds are medians of a few processes, of which the first is not counted: it compiles. Bytecode is
kept outside the checkout. A shared machine may be slow for minutes: a bound is a number of seconds,
or so many times what an interpreter takes that imports Corral's largest libraries in the same
minute, whichever is longer.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
import redis

RUNS: Final = 5
QUEUES: Final = 6
WAIT_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 0.005

LIBRARIES: Final = "import asyncio, ssl, click, pydantic, structlog"
ENQUEUE_SECONDS: Final = 0.25
"""`corral enqueue`, from its start to its end: 0.2 s on a machine that does nothing else, and 0.37
before a command loaded only what it uses.
"""
ENQUEUE_TIMES: Final = 3.2
READY_SECONDS: Final = 0.60
"""`corral worker`, from its start until each queue waits for jobs: 0.5 s on such a machine, and 0.7
before.
"""
READY_TIMES: Final = 7.5
IDLE_MIB: Final = 75
"""Resident memory of a worker that waits: 71 to 74 measured, 20 of them for SQLAlchemy; 88.5
before.
"""

MAIL: Final = '{"to": "ada@example.com", "template": "welcome", "variables": {"name": "Ada", "url": "https://acme.example"}}'
NOT_FOR_AN_IDLE_WORKER: Final = {
    "redis",
    "rich",
    "jinja2",
    "obstore",
    "httpx2",
    "httpcore2",
    "html",
    "corral.board",
}
PRINT_MODULES: Final = """
import atexit, sys
atexit.register(lambda: print("loaded:", *sys.modules, file=sys.stderr))
"""


@pytest.fixture
def environ(corral_store: str, tmp_path: Path) -> dict[str, str]:
    """The settings of a production process with six plugins, on SQLite; none of the caller's."""
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CORRAL_", "REDIS_", "PYTHON"))
    }
    cache = os.environ.get("PYTHONPYCACHEPREFIX", str(tmp_path / "pycache"))
    settings = own | {
        "PYTHONPYCACHEPREFIX": cache,
        "REDIS_URL": corral_store,
        "CORRAL_ENV": "production",
        "CORRAL_DISABLED_PLUGINS": "traces",  # the seventh of a checkout, which has OpenTelemetry
        "CORRAL_DATA_DIR": str(tmp_path),
        "CORRAL_DATABASE_URL": f"sqlite:///{tmp_path / 'corral.db'}",
        "CORRAL_EMAILS_HOST": "127.0.0.1",
        "CORRAL_EMAILS_SENDER": "Acme <no-reply@acme.example>",
        "CORRAL_BILLING_WEBHOOKS_RETRY_PROVIDERS": "stripe",
        "CORRAL_DATA_EXPORTS_STORAGE": str(tmp_path / "exports"),
    }
    run(settings, "db", "create")
    return settings


def run(environ: dict[str, str], *arguments: str) -> None:
    """Run a command to its end, in the data directory."""
    command = [sys.executable, "-m", "corral", *arguments]
    subprocess.run(
        command, cwd=environ["CORRAL_DATA_DIR"], env=environ, check=True, stdout=subprocess.DEVNULL
    )


@contextmanager
def waiting_worker(
    environ: dict[str, str], folder: Path
) -> Iterator[tuple[subprocess.Popen[bytes], float, Path]]:
    """A worker whose queues all wait for jobs, the seconds until they did, and what it says."""
    said = folder / "worker.err"
    with redis.Redis.from_url(environ["REDIS_URL"]) as client, said.open("wb") as err:
        started = time.monotonic()
        worker = subprocess.Popen(
            [sys.executable, "-m", "corral", "worker"], cwd=folder, env=environ, stderr=err
        )
        try:
            while sum(each["cmd"] == "bzpopmin" for each in client.client_list()) < QUEUES:
                assert worker.poll() is None, said.read_text("utf-8")
                assert time.monotonic() < started + WAIT_SECONDS, said.read_text("utf-8")
                time.sleep(LOOK_SECONDS)
            yield worker, time.monotonic() - started, said
            worker.terminate()
            assert worker.wait(WAIT_SECONDS) == 0, said.read_text("utf-8")
        finally:
            worker.kill()
            worker.wait()


def median_seconds(environ: dict[str, str], measure: Callable[[], float]) -> tuple[float, float]:
    """Medians of some runs after one that compiles: seconds, and how many times what the libraries
    alone take.
    """

    def load_libraries() -> float:
        started = time.monotonic()
        subprocess.run([sys.executable, "-c", LIBRARIES], env=environ, check=True)
        return time.monotonic() - started

    measure()
    load_libraries()
    took = [(measure(), load_libraries()) for _ in range(RUNS)]
    return statistics.median(each for each, _ in took), statistics.median(
        each / libraries for each, libraries in took
    )


@pytest.mark.timing
@pytest.mark.corral_untidy("nobody works off what is enqueued")
def test_one_job_is_enqueued_within_a_quarter_of_a_second(
    environ: dict[str, str], tmp_path: Path
) -> None:
    def enqueue() -> float:
        started = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "corral", "enqueue", "emails", MAIL],
            cwd=tmp_path,
            env=environ,
            check=True,
        )
        return time.monotonic() - started

    seconds, times = median_seconds(environ, enqueue)
    print(f"corral enqueue, six plugins: {seconds * 1000:.0f} ms, {times:.2f} x its libraries")
    assert seconds <= ENQUEUE_SECONDS or times <= ENQUEUE_TIMES


@pytest.mark.timing
def test_a_worker_is_ready_within_six_tenths_of_a_second(
    environ: dict[str, str], tmp_path: Path
) -> None:
    def start() -> float:
        with waiting_worker(environ, tmp_path) as (_, seconds, _):
            return seconds

    seconds, times = median_seconds(environ, start)
    print(
        f"corral worker, six plugins: {seconds:.2f} s until all queues wait, {times:.2f} x its libraries"
    )
    assert seconds <= READY_SECONDS or times <= READY_TIMES


def test_an_idle_worker_has_in_memory_what_it_uses(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(PRINT_MODULES, "utf-8")
    with waiting_worker(environ, tmp_path):
        pass  # it compiles, which leaves memory behind
    with waiting_worker(environ, tmp_path) as (worker, _, _):
        status = Path(f"/proc/{worker.pid}/status").read_text("utf-8")
    mib = int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1024
    print(f"an idle worker, six plugins: {mib:.1f} MiB")
    assert mib <= IDLE_MIB

    with waiting_worker({**environ, "PYTHONPATH": str(tmp_path / "site")}, tmp_path) as (
        _,
        _,
        said,
    ):
        pass
    modules = set(said.read_text("utf-8").splitlines()[-1].removeprefix("loaded: ").split())
    assert {
        "sqlalchemy",
        "corral_webhooks_outgoing.processor",
        "corral_data_exports.storage",
    } <= modules
    assert modules & NOT_FOR_AN_IDLE_WORKER == set()
