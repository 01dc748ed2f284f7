"""A stage on which many trials run at the same time, on one store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import pytest
import pytest_asyncio
import redis.asyncio

from chaos.fixtures import figure
from corral.catalog import Catalog
from corral.plugins import Plugins
from corral.producer import RedisJobScheduler
from corral.tasks import end_tasks
from damage.layout import Layout
from damage.ours import Ours
from damage.trial import Hand, Trial, Watch, watching
from integration.conftest import acme, command, real_plugins, workshop
from logged import capture_logs
from parity.conftest import node_modules, pytest_runtest_makereport

__all__ = [
    "acme",
    "command",
    "figure",
    "node_modules",
    "pytest_runtest_makereport",
    "real_plugins",
    "workshop",
]

AT_ONCE = 12
"""Trials that run at the same time: most of them wait for the store, or for a lock to run out."""
SECONDS = 30.0
"""How long anything in a trial may take."""


@pytest_asyncio.fixture
async def binary(store_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    """A plain client of `store_url`, replies as bytes: ids are."""
    async with redis.asyncio.Redis.from_url(store_url) as client:
        yield client


@dataclass
class Stage:
    """Where trials run.

    Attributes:
        url: The store.
        client: A plain client of it, replies as bytes.
        watch: Looks at all trials.
        plugins: What our workers load: nothing.
        jobs: A producer without queues, which a worker wants.
        left: The tasks that a trial's worker has left running, by name.
    """

    url: str
    client: redis.asyncio.Redis
    watch: Watch
    plugins: Plugins
    jobs: RedisJobScheduler
    left: list[str] = field(default_factory=list)

    def ours(self) -> Hand:
        """A worker of ours."""
        return Ours(self.url, self.plugins, self.jobs)

    async def run(
        self,
        runs: Sequence[tuple[Layout, int]],
        hand: Callable[[], Hand],
        *,
        seconds: float = SECONDS,
        bound_seconds: float | None = None,
    ) -> list[Trial]:
        """Run cases, each on its layout and at its concurrency.

        Args:
            runs: The layouts and the concurrencies.
            hand: Makes the worker of a trial.
            seconds: How long anything in a trial may take.
            bound_seconds: When no further trial is begun.

        Returns:
            Those that ran.
        """
        turn, began = asyncio.Semaphore(AT_ONCE), time.monotonic()

        async def run(layout: Layout, slots: int) -> Trial | None:
            async with turn:
                if bound_seconds is not None and time.monotonic() - began > bound_seconds:
                    return None
                trial = Trial(layout, slots, seconds)
                await trial.run(hand(), self.watch)
                return trial

        before = asyncio.all_tasks()
        try:
            with capture_logs() as logged:
                ran = await asyncio.gather(*(run(*each) for each in runs))
        finally:
            left = asyncio.all_tasks() - before
            self.left += [task.get_name() for task in left]
            await end_tasks(
                left
            )  # one that swallows its cancellation would keep the event loop from being closed
        trials = [trial for trial in ran if trial is not None]
        lines: dict[str, list[Any]] = {}
        for line in logged:
            lines.setdefault(line.get("queue", ""), []).append(line)
        for trial in trials:
            trial.heard(lines.get(trial.layout.queue, []))
        return trials

    def judge(self, trials: Sequence[Trial]) -> None:
        """Fail with what is wrong, if anything is."""
        sentences = [line for trial in trials for line in trial.sentences]
        sentences += [f"a stopped worker left the task {name}" for name in self.left]
        if sentences:
            pytest.fail(
                "\n".join([f"{len(sentences)} faults of {len(trials)} trials", *sentences[:300]]),
                pytrace=False,
            )


@pytest_asyncio.fixture
async def stage(
    store_url: str, binary: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    """A `Stage` on `store_url`."""
    plugins = Plugins.load([])
    catalog = Catalog(MappingProxyType({}))
    jobs = RedisJobScheduler(
        catalog, plugins.job_hooks, url=store_url, prefix="bull", max_payload_bytes=1
    )
    async with watching(binary, monkeypatch) as watch:
        yield Stage(store_url, binary, watch, plugins, jobs)
