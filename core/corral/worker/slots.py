"""`Slots`: the jobs of one queue that run in this process, each from its fetch to its ending."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from corral.forking import forks
from corral.job import Run
from corral.loggers import Logger
from corral.outcome import HandedBack, Outcome
from corral.store.codec import FetchedJob
from corral.tasks import OwnTask
from corral.worker.execution import Execution, Running
from corral.worker.finished_job import FinishedJob
from corral.worker.lane import Lane
from corral.worker.leases import Lease, Leases
from corral.worker.notes import Notes
from corral.worker.suspects import Suspects

__all__ = ["Slots"]

log = Logger("corral.worker")

UNFINISHED_SECONDS = 2.0
"""How often to look for jobs whose task is done and has told no outcome."""


class Slots:
    """Runs the jobs of one queue, at most `concurrency` at once.

    Attributes:
        concurrency: How many jobs run at once.
        started: How many jobs were started so far.
        handed_back: How many of them went back to the waiting list unfinished.

    Args:
        execution: Runs the processor.
        concurrency: How many jobs run at once.
        lane: Confirms the start of jobs that have stalled; its store has the locks.
        leases: Renews the locks.
        lock_seconds: How long a lock lives without renewal.
        suspects: Lets jobs that stalled before start one at a time, among all queues of the
        process.
        max_stalled: How often a job may stall before it is failed.
        notes: Writes what the jobs say.
        on_ended: Called with each ending.
    """

    def __init__(
        self,
        execution: Execution,
        *,
        concurrency: int,
        lane: Lane,
        leases: Leases,
        lock_seconds: float,
        suspects: Suspects,
        max_stalled: int,
        notes: Notes,
        on_ended: Callable[[FinishedJob], object],
    ) -> None:
        self.concurrency = concurrency
        self.started = self.handed_back = 0
        self._execution = execution
        self._lane = lane
        self._leases = leases
        self._lock_seconds = lock_seconds
        self._suspects = suspects
        self._max_stalled = max_stalled
        self._notes = notes
        self._on_ended = on_ended
        self._loop = asyncio.get_running_loop()
        self._forks = forks()
        self._reserved = 0
        self._running: dict[Running, Lease] = {}
        self._abandoned: list[Running] = []
        self._sweep_later: asyncio.TimerHandle | None = None

    @property
    def free(self) -> int:
        """How many slots neither run a job nor are reserved for one."""
        return self.concurrency - len(self._running) - self._reserved

    @property
    def running(self) -> int:
        """How many processors run."""
        return len(self._running)

    @property
    def fetched(self) -> list[FetchedJob]:
        """The jobs that run. From any thread."""
        return [each.fetched for each in list(self._running)]

    @property
    def unended(self) -> list[Running]:
        """The jobs whose task is done, and whose ending was not told."""
        return [each for each in list(self._running) if each.task is not None and each.task.done()]

    @property
    def stuck(self) -> int:
        """How many processors still run although they were abandoned."""
        return sum(
            running.task is not None and not running.task.done() for running in self._abandoned
        )

    def reserve(self, count: int) -> None:
        """Keep slots free for what a call may bring; a negative number gives them back."""
        self._reserved += count

    def start(
        self, jobs: Sequence[FetchedJob], locked: float, refusals: Mapping[bytes, Outcome | None]
    ) -> None:
        """Start jobs.

        Args:
            jobs: What was fetched.
            locked: When their locks were set or renewed, by the monotonic clock.
            refusals: How those end that must not run, by their stored id.
        """
        timeout_seconds = self._execution.timeout_seconds
        store, lost, spoke = self._lane.store, self._lost, self._spoke
        leases: list[Lease] = []
        for fetched in jobs:
            running = self._execution.prepare(fetched)
            running.refusal = refusals.get(fetched.stored_id) or running.refusal
            until = None
            if timeout_seconds is not None:
                until = running.started + timeout_seconds + self._lock_seconds
            lease = Lease(store, fetched.stored_id, fetched.token, lost, running, locked, until)
            self._running[running] = lease
            leases.append(lease)
            if fetched.is_suspect:
                self._suspects.started(running)
            running.run.spoke = spoke
            running.task = task = OwnTask(self._process(running), loop=self._loop)
            task.job = running.job
        self._leases.hold(leases)
        self.started += len(leases)

    def hand_back(self) -> None:
        """Interrupt what still runs; its jobs go back to the waiting list with no attempt spent."""
        for running in list(self._running):
            self._execution.interrupt(running, "shutdown")

    def abandon(self) -> None:
        """Hand back even what did not react to `hand_back`; whatever its processor returns later is
        dropped.
        """
        for running in list(self._running):
            self._abandoned.append(running)
            self._end(running, HandedBack())

    def watch(self) -> None:
        """Look from now on for jobs whose task is done and has told no outcome."""
        self._sweep_later = self._loop.call_later(UNFINISHED_SECONDS, self._end_unfinished)

    def stop_watching(self) -> None:
        """Look no more."""
        if self._sweep_later is not None:
            self._sweep_later.cancel()

    async def _process(self, running: Running) -> None:
        try:
            if running.refusal is None and running.fetched.stalls >= self._max_stalled:
                await self._lane.persist(lambda: self._lane.store.confirm(running.fetched))
            self._end(running, running.refusal or await self._execution.run(running))
        except asyncio.CancelledError:  # before the processor had begun
            self._end(running, self._execution.unfinished(running))
        except GeneratorExit as closed:
            # Thrown into a coroutine, it closes what that awaits, whose outcome is lost: by whoever
            # closes this one, or by a future that the processor awaits.
            if not self._loop.is_running():
                raise
            self._end(running, self._execution.raised(running, closed.with_traceback(None)))
            if running.task is not None:
                running.task.cancel()  # else it may wait for ever, for something that was closed with its coroutine

    def _end_unfinished(self) -> None:
        """End jobs whose task is done and has told no outcome: something else cancelled it before
        it began, say.
        """
        self.watch()
        for running in self.unended:
            outcome = self._execution.unfinished(running)
            self._end(running, outcome)
            known = {
                "queue": self._lane.store.queue,
                "job_id": running.fetched.id,
                "outcome": type(outcome).__name__,
            }
            log.warning("a job's task was done without an outcome: the job is ended", **known)

    def _lost(self, running: Running) -> None:
        """The lock of a job is somebody else's. From the lease thread."""
        self._loop.call_soon_threadsafe(self._lose, running)

    def _lose(self, running: Running) -> None:
        if running in self._running:
            self._execution.interrupt(running, "lease")

    def _spoke(self, run: Run, fetched: FetchedJob) -> None:
        """A job said something.

        From its processor's thread; what it says in a child that it has forked is lost.
        """
        if self._forks == forks():
            self._loop.call_soon_threadsafe(self._notes.spoke, run, fetched)

    def _end(self, running: Running, outcome: Outcome) -> None:
        lease = self._running.pop(running, None)
        if lease is None:
            return  # abandoned: its job was handed back while a thread still ran it
        self.handed_back += isinstance(outcome, HandedBack)
        running.refusal = None  # as of now only the ending holds the exception
        running.run.spoke = (
            None  # what a thread of it still says is not written: another run may have begun
        )
        self._notes.ended(running.run, running.fetched)
        self._on_ended(FinishedJob(running, lease, outcome))
