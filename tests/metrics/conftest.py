"""What these tests need: promtool, and what a real worker answers on `/metrics` after it has
worked.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import urllib.request
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import redis

from integration.conftest import acme, command, real_plugins

__all__ = ["acme", "command", "real_plugins"]

_MISSING = "promtool is not installed (Debian: apt-get install prometheus)"


@pytest.fixture(scope="session")
def promtool() -> str:
    """The program. Without it these tests are skipped at home, and fail where CI is true."""
    found = shutil.which("promtool")
    if found is None and os.environ.get("CI") == "true":
        pytest.fail(_MISSING, pytrace=False)
    return found or pytest.skip(_MISSING)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Give all tests that its absence skips one place, so that they are reported in one counted line."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple) and _MISSING in report.longrepr[2]:
        report.longrepr = (str(Path(__file__).parent), 0, report.longrepr[2])
    return report


@pytest.fixture(scope="session")
def scrapes() -> list[bytes]:
    """What was scraped: one scrape does for all tests that look at it."""
    return []


@pytest_asyncio.fixture
async def scraped(command: Any, wait_until: Any, scrapes: list[bytes], store_url: str) -> bytes:
    """`/metrics` of a worker that has completed a job and failed another.

    Beside its queues, one that nobody declares.
    """
    if scrapes:
        return scrapes[0]
    with redis.Redis.from_url(store_url) as store:
        store.hset("bull:acme-legacy:meta", "version", "bullmq:6")
    for text in ("hello", "fail no"):
        enqueued = command("enqueue", "acme-letters", json.dumps({"text": text}))
        assert await asyncio.to_thread(enqueued.wait) == 0
    worker = command("worker", "--metrics-port", "0")
    await wait_until(
        lambda: '"url"' in worker.said and "job failed" in worker.said, "it serves, and has worked"
    )
    (url,) = [line["url"] for line in map(json.loads, worker.said.splitlines()) if "url" in line]

    def get() -> bytes:
        with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            body: bytes = answer.read()
            return body

    both = 'bullmq_{}_jobs_total{{queue="acme-letters"}} 1.0'
    body = b""

    async def finished() -> bool:
        nonlocal body
        body = await asyncio.to_thread(get)
        return all(both.format(ending).encode() in body for ending in ("completed", "failed"))

    await wait_until(finished, "both have ended")
    worker.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait) == 0
    scrapes.append(body)
    return body
