"""What every test may use: a real store, which must be tidy when the test has ended, and bounded
waiting.

The store is the fixture `corral_store` of `corral.testing`, as our users have it: it looks for
leaks after every test that is not marked `corral_untidy`. Functions come as fixtures
(`wait_until`), so that a test says what it needs.
"""

from __future__ import annotations

import gc
import logging
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import redis.asyncio
import structlog

from chaos import waiting
from chaos.waiting import WAIT_SECONDS
from corral.embedded.server import attach
from corral.store import scripts
from corral.testing import find_leaks

WaitUntil = Callable[..., Awaitable[None]]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests that passed have printed: the figures they measured."""
    passed = [
        report
        for report in terminalreporter.getreports("passed")
        if report.when == "call" and report.capstdout
    ]
    if passed:
        terminalreporter.section("figures")
        for report in passed:
            terminalreporter.write_line(report.nodeid)
            for line in report.capstdout.splitlines():
                terminalreporter.write_line(f"    {line}")


@pytest.fixture(autouse=True)
def own_heap(request: pytest.FixtureRequest) -> Iterator[None]:
    """The collector does not walk what earlier tests have left while a test measures: it takes it
    50 ms a time.
    """
    if request.node.get_closest_marker("timing") is None:
        yield
        return
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def own_logs() -> Iterator[None]:
    """How logs are written is as at the start: what a command configures in this process ends with
    the test.
    """
    root, ours = logging.getLogger(), logging.getLogger("corral")
    before = root.level, root.handlers.copy(), ours.level
    yield
    root.handlers[:] = before[1]
    root.setLevel(before[0])
    ours.setLevel(before[2])
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


@pytest.fixture(params=["lean", "general"])
def path(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run a test twice: on the scripts as they are, and on scripts without their files
    `lean_*.lua`.

    Such a file does no more than what follows it in its script would do. Without it every call goes
    the general way.
    """
    if request.param == "lean":
        yield "lean"
        return
    source = scripts._source  # where a script is put together from its files
    lean = set[str]()

    def without_lean(name: str, package: str) -> str:
        if not name.startswith("lean_"):
            return source(name, package)
        lean.add(name)
        return ""

    scripts.script.cache_clear()
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(scripts, "_source", without_lean)
        yield "general"
    scripts.script.cache_clear()
    assert lean, "this test has run no script that has a lean path"


@pytest.fixture
def store_url(corral_store: str) -> str:
    """The `unix://` URL of a real store: empty before the test, looked through for leaks after it."""
    return corral_store


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A data directory to be made, short enough to have a socket in it.

    No server outlives the test.
    """
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
    return waiting.wait_until


@pytest.fixture
def assert_no_leaks() -> Callable[..., Awaitable[None]]:
    """`await assert_no_leaks(client, "bull")`: in the middle of a test, or on a store that no
    fixture looks through.
    """

    async def check(client: redis.asyncio.Redis, prefix: str = "bull") -> None:
        socket = client.connection_pool.connection_kwargs["path"]
        assert find_leaks(f"unix://{socket}", prefix) == []

    return check
