"""A real browser on a real board: Chromium, `corral board`, a worker, and six queues."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from board.asking import DIGEST
from board.browser.browsing import chromium, chromium_program
from board.browser.site import Site, served
from parity.conftest import node_modules

__all__ = ["node_modules"]

WaitUntil = Callable[..., Awaitable[None]]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Skip all tests that lack Chromium or Node in one place, so that one line counts them."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple):
        report.longrepr = (str(Path(__file__).parent), 0, report.longrepr[2])
    return report


@pytest.fixture(autouse=True)
def quiet(own_logs: None) -> None:
    """Switch logs off: thousands of jobs fail here on purpose."""
    logging.getLogger("corral").setLevel(logging.CRITICAL)


@pytest.fixture(scope="session")
def artefacts() -> Path:
    """The folder for screenshots: `board` below TEST_ARTEFACTS, or below `.artefacts`."""
    root = Path(os.environ.get("TEST_ARTEFACTS") or Path(__file__).parents[3] / ".artefacts")
    folder = root / "board"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    chromium_program()
    async with chromium() as started:
        yield started


@pytest_asyncio.fixture(loop_scope="session")
async def site(
    store_url: str,
    tmp_path: Path,
    browser: Browser,
    wait_until: WaitUntil,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Site]:
    """The board, with a password and a link that logs in once."""
    monkeypatch.setenv("REDIS_URL", store_url)
    async with served(
        store_url, tmp_path, browser, wait_until, CORRAL_BOARD_PASSWORD=str(DIGEST)
    ) as running:
        yield running
        for window in browser.contexts:
            await window.close()
