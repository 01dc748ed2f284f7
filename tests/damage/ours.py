"""Our worker, as the hand of a trial: in this process, on the queue of the trial."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from corral import Fail, Job, JobOptions, Payload, Queue, Snooze
from corral.jobs import JobScheduler
from corral.plugins import Plugins
from corral.settings import WorkerSettings
from corral.store.connection import Link
from corral.store.queue_store import QueueStore
from corral.store.replies import ResponseError
from corral.worker.consumer import LANES
from corral.worker.worker import StopReport, Worker
from damage.layout import DEAD
from damage.trial import AS_ASKED, Gate, Trial

__all__ = ["Ours"]

SETTINGS = WorkerSettings(
    lock_seconds=1.5, stalled_interval_seconds=0.5, max_stalled=1000, shutdown_timeout_seconds=10.0
)
"""Short, so that what is recovered is recovered soon; and on a busy machine no false stall fails an
innocent.
"""
STOP_SECONDS = 30.0
PAUSE = timedelta(milliseconds=5)


class Work(Payload):
    does: str = "complete"
    text: str = ""


@dataclass
class Ours:
    """A worker of this process.

    Attributes:
        url: The store.
        plugins: What it loads.
        jobs: Enqueues; no processor of these tests does.
    """

    url: str
    plugins: Plugins
    jobs: JobScheduler
    _gate: Gate = field(init=False)
    _worker: Worker = field(init=False)
    _running: asyncio.Task[StopReport] = field(init=False)

    async def start(self, trial: Trial) -> None:
        layout, case = trial.layout, trial.case
        queue = Queue(layout.queue, Work, options=JobOptions(attempts=1))
        self._gate = gate = Gate(trial.slots, case.victim, closed=case.when == "held")

        async def process(job: Job[Work]) -> None:
            trial.ran[job.id] += 1
            if await gate.enter(job.id) or job.payload.does == "complete":
                return
            _behave(job, first=trial.ran[job.id] == 1)

        if case.when == "released":
            await self._release(layout.queue)
        self._worker = Worker(
            [queue.processed_by(process)],
            url=self.url,
            prefix="bull",
            settings=SETTINGS,
            plugins=self.plugins,
            jobs=self.jobs,
            concurrency={queue.name: trial.slots},
        )
        self._running = asyncio.create_task(self._worker.run(), name=f"the worker of {trial.name}")

    async def _release(self, queue: str) -> None:
        """Take back what the dead worker had; an error is one that its supervisor would log."""
        store = QueueStore(Link(self.url), "bull", queue)
        try:
            await store.release(DEAD, SETTINGS.max_stalled, lanes=LANES)
        except ResponseError:
            pass
        finally:
            await store.close()

    async def holds(self) -> Counter[str]:
        return Counter(self._gate.inside)

    async def open(self) -> None:
        self._gate.open()

    def tells(self, key: str) -> bool:
        return any(key in sentence for sentence in self._worker.troubles.values())

    async def stop(self) -> list[str]:
        if self._running.done():
            error = self._running.exception()
            return [f"the worker ended by itself: {error!r}"]
        self._gate.open()
        self._worker.stop()
        try:
            stopped = await asyncio.wait_for(self._running, STOP_SECONDS)
        except TimeoutError:
            return [f"the worker did not stop within {STOP_SECONDS} s"]
        except Exception as error:  # noqa: BLE001  # it is a fault of this trial, and the others go on
            return [f"the worker broke as it stopped: {error!r}"]
        return [] if stopped.in_order else [f"the worker did not stop in order: {stopped}"]


def _behave(job: Job[Work], *, first: bool) -> Any:
    match job.payload.does:
        case "fail":
            raise Fail(AS_ASKED)
        case "retry" | "later" if first:
            raise ValueError(AS_ASKED)
        case "snooze" if first:
            raise Snooze(after=PAUSE)
        case "talk":
            job.log("a line")
            job.progress(50)
