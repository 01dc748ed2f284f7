"""`Slots`: the jobs of one queue that run in this process, each from its fetch to its ending."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from corral.forking import forks
from corral.job import RunState
from corral.loggers import Logger
from corral.outcome import HandedBack, Outcome
from corral.store.codec import FetchedJob
from corral.tasks import OwnTask
from corral.worker.execution import ActiveJob, Execution
from corral.worker.finished_job import FinishedJob
from corral.worker.lane import Lane
from corral.worker.leases import Lease, Leases
from corral.worker.notes import Notes
from corral.worker.suspects import Suspects

__all__ = ["Slots"]

log = Logger("corral.worker")

UNFINISHED_SECONDS = 2.0
"""How often to look for jobs whose task is done and has left no outcome."""


class Slots:
    """Runs the jobs of one queue, at most `concurrency` at once.

    Attributes:
        concurrency: How many jobs run at once.
        started: How many jobs were started so far.
        handed_back: How many of them went back to the waiting list unfinished.

    Args:
        execution: Runs the processor.
        concurrency: How many jobs run at once.
        lane: Confirms the start of jobs that have stalled; its store holds the locks.
        leases: Renews the locks.
        lock_seconds: How long a lock lives without renewal.
        suspects: Lets jobs that stalled before start one at a time, among all queues of the
            process.
        max_stalled: How often a job may stall before it is failed.
        notes: Writes the jobs' progress and log lines.
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
        self._running: dict[ActiveJob, Lease] = {}
        self._abandoned: list[ActiveJob] = []
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
        """The jobs that run, as they were fetched. Callable from any thread."""
        return [each.fetched for each in list(self._running)]

    @property
    def without_ending(self) -> list[ActiveJob]:
        """The jobs whose task is done and which still take a slot: they have no ending."""
        return [each for each in list(self._running) if each.task is not None and each.task.done()]

    @property
    def stuck(self) -> int:
        """How many processors still run although they were abandoned."""
        return sum(active.task is not None and not active.task.done() for active in self._abandoned)

    def reserve(self, count: int) -> None:
        """Keep slots free for the jobs that a call may bring; a negative number releases them."""
        self._reserved += count

    def start(
        self, jobs: Sequence[FetchedJob], locked: float, refusals: Mapping[bytes, Outcome | None]
    ) -> None:
        """Start jobs.

        Args:
            jobs: The fetched jobs.
            locked: When their locks were set or renewed, by the monotonic clock.
            refusals: The outcomes of jobs that must not run, by their stored id.
        """
        timeout_seconds = self._execution.timeout_seconds
        store, on_loss, on_note = self._lane.store, self._on_loss, self._on_progress_or_log
        leases: list[Lease] = []
        for fetched in jobs:
            active = self._execution.prepare(fetched)
            active.refusal = refusals.get(fetched.stored_id) or active.refusal
            until = None
            if timeout_seconds is not None:
                until = active.started + timeout_seconds + self._lock_seconds
            lease = Lease(store, fetched.stored_id, fetched.token, on_loss, active, locked, until)
            self._running[active] = lease
            leases.append(lease)
            if fetched.is_suspect:
                self._suspects.start(active)
            active.run.on_note = on_note
            active.task = task = OwnTask(self._process(active), loop=self._loop)
            task.job = active.job
        self._leases.hold(leases)
        self.started += len(leases)

    def hand_back(self) -> None:
        """Interrupt what still runs; its jobs go back to the waiting list with no attempt spent."""
        for active in list(self._running):
            self._execution.interrupt(active, "shutdown")

    def abandon(self) -> None:
        """Hand back the jobs that did not react to `hand_back`; their later results are dropped."""
        for active in list(self._running):
            self._abandoned.append(active)
            self._end(active, HandedBack())

    def watch(self) -> None:
        """Start to look for jobs whose task is done and has left no outcome."""
        self._sweep_later = self._loop.call_later(UNFINISHED_SECONDS, self._end_unfinished)

    def stop_watching(self) -> None:
        """Stop to look for them."""
        if self._sweep_later is not None:
            self._sweep_later.cancel()

    async def _process(self, active: ActiveJob) -> None:
        try:
            if active.refusal is None and active.fetched.stalls >= self._max_stalled:
                await self._lane.persist(lambda: self._lane.store.confirm(active.fetched))
            self._end(active, active.refusal or await self._execution.run(active))
        except asyncio.CancelledError:  # it came before the processor began
            self._end(active, self._execution.outcome_of_unfinished(active))
        except GeneratorExit as closed:
            # The code that closes this coroutine, or a future that the processor awaits, throws
            # it. It has closed the coroutine that this one awaits, and that one's outcome is lost.
            if not self._loop.is_running():
                raise
            self._end(active, self._execution.outcome_of_error(active, closed.with_traceback(None)))
            if active.task is not None:
                # It may await something that was closed with its coroutine, and wait for ever.
                active.task.cancel()

    def _end_unfinished(self) -> None:
        """End jobs whose task is done and has left no outcome.

        Other code has cancelled it before it began, for example.
        """
        self.watch()
        for active in self.without_ending:
            outcome = self._execution.outcome_of_unfinished(active)
            self._end(active, outcome)
            known = {
                "queue": self._lane.store.queue,
                "job_id": active.fetched.id,
                "outcome": type(outcome).__name__,
            }
            log.warning("a job's task ended without an outcome, and gets this one", **known)

    def _on_loss(self, active: ActiveJob) -> None:
        """React to a lock that another worker has now. Called on the lease thread."""
        self._loop.call_soon_threadsafe(self._lose, active)

    def _lose(self, active: ActiveJob) -> None:
        if active in self._running:
            self._execution.interrupt(active, "lease")

    def _on_progress_or_log(self, run: RunState, fetched: FetchedJob) -> None:
        """React to a job's progress or log line. Called on its processor's thread.

        Notes of a child that the processor has forked are lost.
        """
        if self._forks == forks():
            self._loop.call_soon_threadsafe(self._notes.gather, run, fetched)

    def _end(self, active: ActiveJob, outcome: Outcome) -> None:
        lease = self._running.pop(active, None)
        if lease is None:
            return  # abandoned: its job was handed back while a thread still ran it
        self.handed_back += isinstance(outcome, HandedBack)
        active.refusal = None  # from now on only the ending holds the exception
        # Notes that a thread of it still adds are not written: another run may have begun.
        active.run.on_note = None
        self._notes.finish(active.run, active.fetched)
        self._on_ended(FinishedJob(active, lease, outcome))
