"""What every test may use: a real store, bounded waiting, and a check that no job was left in two places or none.

Functions come as fixtures (`wait_until`, `assert_no_leaks`), so that a test says what it needs and imports nothing.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import redis
import redis.asyncio
import structlog

from corral.store.embedded import attach, embedded_store

WAIT_SECONDS = 15.0
"""How long anything that is awaited may take, unless a test says otherwise: enough for two loaded cores."""

WaitUntil = Callable[..., Awaitable[None]]
AssertNoLeaks = Callable[..., Awaitable[None]]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests that passed have printed: the figures they measured."""
    passed = [report for report in terminalreporter.getreports("passed") if report.when == "call" and report.capstdout]
    if passed:
        terminalreporter.section("figures")
        for report in passed:
            terminalreporter.write_line(report.nodeid)
            for line in report.capstdout.splitlines():
                terminalreporter.write_line(f"    {line}")


@pytest.fixture(autouse=True)
def logs_on_stderr() -> Iterator[None]:
    """As in a worker: stdout is for what a test prints."""
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def session_store_url() -> Iterator[str]:
    """A store of this test run alone; whatever tests leave in it, they leave to each other."""
    with (
        tempfile.TemporaryDirectory(prefix="corral-tests-") as folder,
        embedded_store(Path(folder), server=os.environ.get("CORRAL_VALKEY_SERVER")) as url,
    ):
        yield url


@pytest.fixture
def store_url(session_store_url: str) -> str:
    """The `unix://` URL of a real, empty store: emptied before each test, so that a failed one can be looked at."""
    with redis.Redis.from_url(session_store_url) as client:
        client.flushall()
    return session_store_url


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A data directory to be made, short enough to have a socket in it. No server outlives the test."""
    with tempfile.TemporaryDirectory(prefix="corral-data-") as folder:
        path = Path(folder) / "data"
        yield path
        with attach(path):  # and leave it: whatever a failed test left running is stopped
            pass


class Process:
    """A process of a test: talks by lines, and never outlives the test."""

    def __init__(self, script: str, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def line(self) -> str:
        """The next line that it prints."""
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            assert selector.select(WAIT_SECONDS), f"nothing said in {WAIT_SECONDS} s"
        return self._process.stdout.readline().strip()

    def end(self, how: signal.Signals | None = None) -> int:
        """Let it leave, or send its process group a signal; wait for its end."""
        if how is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
        else:
            os.killpg(self._process.pid, how)
        return self._process.wait(WAIT_SECONDS)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        with self._process:
            pass


@pytest.fixture
def spawn() -> Iterator[Callable[..., Process]]:
    """`spawn(script, *arguments)` runs a Python script in a process, and process group, of its own."""
    started: list[Process] = []

    def start(script: str, *arguments: object) -> Process:
        started.append(Process(script, *arguments))
        return started[-1]

    yield start
    for process in started:
        process.close()


@pytest_asyncio.fixture
async def raw(store_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """A plain client of `store_url`, replies as text, to look at keys past everything that is ours."""
    async with redis.asyncio.Redis.from_url(store_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def wait_until() -> WaitUntil:
    """`await wait_until(predicate, "what is awaited")`; the predicate may be a coroutine function."""
    return _wait_until


async def _wait_until(
    predicate: Callable[[], object], description: str, *, seconds: float = WAIT_SECONDS, every: float = 0.005
) -> None:
    deadline = time.monotonic() + seconds
    while True:
        met = predicate()
        if inspect.isawaitable(met):
            met = await met
        if met:
            return
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds} s in vain until {description}")
        await asyncio.sleep(every)


@pytest.fixture
def assert_no_leaks() -> AssertNoLeaks:
    """`await assert_no_leaks(client, "bull")`: after a test, with no worker running."""
    return _assert_no_leaks


LISTS = ("wait", "active")
SORTED_SETS = ("prioritized", "delayed", "waiting-children", "completed", "failed")
STATES = (*LISTS, *SORTED_SETS)
QUEUE_KEYS = frozenset(
    {*STATES, "id", "pc", "marker", "events", "meta", "stalled", "stalled-check", "limiter", "repeat"}
    | {f"metrics:{ending}{data}" for ending in ("completed", "failed") for data in ("", ":data")}
)
"""wire § 2.1; `paused` is missing, because BullMQ 6 never writes it and neither do we."""
JOB_SUFFIXES = ("logs", "dependencies", "processed", "failed", "unsuccessful")
"""wire § 2.2, without `lock`: no lock outlives its worker."""


async def _assert_no_leaks(client: Any, prefix: str = "bull") -> None:
    """Check all queues below a prefix: no lock, no unknown key, every job in one state, every id has its job.

    Args:
        client: An asyncio client, whether it decodes replies or not.
        prefix: The keys' prefix.
    """
    keys: dict[str, dict[str, str]] = {}
    async for found in client.scan_iter(match=_literal(f"{prefix}:") + "*", count=1000):
        queue, _, rest = _text(found)[len(prefix) + 1 :].partition(":")
        keys.setdefault(queue, {})[rest] = _text(await client.type(found))
    leaks = [leak for queue, held in keys.items() for leak in await _leaks(client, f"{prefix}:{queue}", held)]
    if leaks:
        pytest.fail("the store was left untidy:\n  " + "\n  ".join(sorted(leaks)))


async def _leaks(client: Any, queue: str, keys: dict[str, str]) -> list[str]:
    places: dict[str, list[str]] = {}
    for state in STATES:
        ids = (
            await client.lrange(f"{queue}:{state}", 0, -1)
            if state in LISTS
            else await client.zrange(f"{queue}:{state}", 0, -1)
        )
        for job in map(_text, ids):
            places.setdefault(job, []).append(state)
    jobs = {key for key, kind in keys.items() if kind == "hash" and (key in places or _is_job(key))}
    leaks = [f"{queue}: job {job} is in {' and '.join(states)}" for job, states in places.items() if len(states) > 1]
    leaks += [f"{queue}: job {job} is in no state" for job in jobs - places.keys()]
    leaks += [f"{queue}: id {job} is in {places[job][0]} and has no job" for job in places.keys() - jobs]
    leaks += [f"{queue}:{key} is left ({keys[key]})" for key in keys if not _is_known(key, jobs)]
    return leaks


def _is_job(key: str) -> bool:
    """Whether a hash of this name must be a job: not a queue's own hash, and not a hash beside a job."""
    if key in QUEUE_KEYS or key.startswith("dn:") or key.rpartition(":")[2] in JOB_SUFFIXES:
        return False
    return ":" not in key or re.fullmatch(r"repeat:.+:\d+", key) is not None


def _is_known(key: str, jobs: set[str]) -> bool:
    if key in QUEUE_KEYS or key in jobs or key.startswith(("de:", "dn:")):
        return True
    owner, _, suffix = key.rpartition(":")
    if suffix in JOB_SUFFIXES:
        return owner in jobs
    return key.startswith("repeat:") and suffix != "lock"


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _literal(text: str) -> str:
    """The text as a `SCAN` pattern that matches only itself."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", text)
