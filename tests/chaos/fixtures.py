"""Fixtures for tests with real processes; the conftest of each folder that has such tests imports
them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from chaos.processes import install_plugin
from chaos.scene import Scene, staged
from corral.testing import find_leaks

__all__ = ["at_length", "figure", "kills", "restarts", "scene", "scenes", "site", "stage"]


@pytest.fixture(scope="session")
def site() -> Iterator[Path]:
    """A folder in which the plugin of these tests is installed."""
    with tempfile.TemporaryDirectory(prefix="corral-chaos-") as folder:
        install_plugin(Path(folder))
        yield Path(folder)


@pytest_asyncio.fixture
async def scene(
    request: pytest.FixtureRequest, site: Path, wait_until: Callable[..., Any]
) -> AsyncIterator[Scene]:
    """A `Scene` with a running store; afterwards no process is left, and the store is tidy or the
    test says why not.
    """
    async with _staged(request, site, wait_until) as scene:
        yield scene


@pytest_asyncio.fixture
async def scenes(
    request: pytest.FixtureRequest, site: Path, wait_until: Callable[..., Any]
) -> AsyncIterator[tuple[Scene, Scene]]:
    """Two, for what mostly waits: on each of them half of it at the same time."""
    async with (
        _staged(request, site, wait_until) as one,
        _staged(request, site, wait_until) as other,
    ):
        yield one, other


@pytest.fixture
def stage(
    request: pytest.FixtureRequest, site: Path, wait_until: Callable[..., Any]
) -> Callable[[], AbstractAsyncContextManager[Scene]]:
    """`async with stage() as scene`, as often as a test likes."""
    return lambda: _staged(request, site, wait_until)


@asynccontextmanager
async def _staged(
    request: pytest.FixtureRequest, site: Path, wait_until: Callable[..., Any]
) -> AsyncIterator[Scene]:
    failed = request.session.testsfailed
    async with staged(site, wait_until) as scene:
        yield scene
        for worker in scene.hired:
            worker.close()
        if (
            request.node.get_closest_marker("corral_untidy") is None
            and request.session.testsfailed == failed
        ):
            assert find_leaks(scene.store.url) == []


@pytest.fixture
def kills() -> int:
    """How many workers are killed: three, and twenty where nothing is to be spared."""
    return int(os.environ.get("TEST_KILLS") or (20 if os.environ.get("CI") == "true" else 3))


@pytest.fixture
def restarts() -> int:
    """How many worker processes are restarted one after the other: five, and fifty where nothing is
    to be spared.
    """
    return int(os.environ.get("TEST_RESTARTS") or (50 if os.environ.get("CI") == "true" else 5))


@pytest.fixture
def at_length() -> bool:
    """Whether nothing is to be spared."""
    return is_at_length()


def is_at_length() -> bool:
    """Whether nothing is to be spared; where tests are collected."""
    return os.environ.get("CI") == "true" or bool(os.environ.get("TEST_LONG"))


@pytest.fixture
def figure() -> Callable[[str], None]:
    """`figure("on after 0.1 s")`: what was measured; `tests/conftest.py` shows it when the run
    ends.
    """
    return print
