"""`Worker`: runs the consumers of one process, opens their resources, and stops them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

from corral.counter import PluginCounter
from corral.deps import Deps, OpenResource
from corral.fleet.processes import process_name
from corral.jobs import JobScheduler
from corral.loggers import Logger
from corral.plugins import Plugins
from corral.processor import Processor
from corral.settings import WorkerSettings
from corral.store.address import StoreAddress
from corral.store.clock import Clock
from corral.store.connection import ThreadLink
from corral.tasks import end_tasks, start_task
from corral.worker.consumer import Consumer
from corral.worker.execution import ActiveJob, Execution
from corral.worker.forked_children import LoopGuard
from corral.worker.leases import Leases
from corral.worker.outage import ConnectionReport, Outage
from corral.worker.slots import Slots
from corral.worker.suspects import Suspects
from corral.worker.threads import Threads
from corral.worker.upkeep import keep_recovering_stalled

__all__ = ["StopReport", "Worker"]

log = Logger("corral.worker")

CANCEL_SECONDS = 0.3
"""How long a cancelled processor may clean up before its job is handed back."""
FLUSH_SECONDS = 1.0
"""How long the last call to the store may take."""
THREAD_SECONDS = 0.5
"""How long the store may be silent when another thread hands jobs back.

The process ends a second later.
"""
LOOK_SECONDS = 0.1
"""How often a stopping worker checks whether a job still runs."""
BEAT_SECONDS = 1.0
"""How often the event loop is recorded as running, and slots are checked for ended jobs."""
FAILING_SECONDS = 15.0
"""How long a queue's calls to the store may fail before it is listed as a problem.

An ordinary failover is over by then.
"""
CALLS = "calls"
"""The kind of our own sentences in `Worker.all_troubles`."""


@dataclass(frozen=True, slots=True)
class StopReport:
    """How a worker ended.

    Attributes:
        handed_back: How many jobs went back to the waiting list unfinished.
        stuck: How many processors still run, on a thread or because they ignore their cancellation:
            do not wait for them.
        unwritten: How many endings were not written: those jobs will be found stalled, and run
            again.
        unclosed: Whether a resource failed to close, as the log says. It does not concern the jobs.
    """

    handed_back: int = 0
    stuck: int = 0
    unwritten: int = 0
    unclosed: bool = False

    @property
    def in_order(self) -> bool:
        """Whether each job that was started has ended, and its ending is written."""
        return not (self.handed_back or self.stuck or self.unwritten)


class Worker:
    """Serves queues until it is stopped.

    Attributes:
        name: Unique among all workers.
        opens: The queue whose resource it is opening, or failed to open; else None.
        stalled: How many jobs of dead workers it has found and put back, by queue.
        repaired: How often it has found that a declared schedule was gone, and has made it again,
            by queue.
        counters: What its plugins count, by the counter's name; see `Deps.counter`.
        troubles: The present problems that an operator must solve, as sentences, by queue and kind:
            `damage`, a key that must be repaired by hand; `ending`, an ending that cannot be
            written; `reported`, what a plugin reports; `rights`, rights that the store's user
            lacks; `schedule`, a schedule that this worker cannot keep. See `all_troubles`.

    Args:
        processors: One per queue.
        url: The store.
        prefix: The first part of the keys.
        settings: Concurrency, locks, intervals.
        concurrency: How many jobs run at once, by queue name; overrides declarations and settings.
        plugins: The loaded plugins.
        jobs: Enqueues follow-up jobs.
        provided: Resources that processors may enter and that the worker's owner closes; see
            `Deps`.
        burst: Whether to end when nothing waits and nothing runs.
        name: Unique among all workers; generated if it is None.
        clock: Moves the store's time, in tests.
        idle: Called when a burst seems to have nothing left to do; the burst goes on as long as it
            returns True.
        on_check: Called after every outage and once per stalled interval, for other checks of the
            store.
    """

    def __init__(
        self,
        processors: Sequence[Processor],
        *,
        url: str,
        prefix: str,
        settings: WorkerSettings,
        plugins: Plugins,
        jobs: JobScheduler,
        provided: Mapping[OpenResource[Any], object] | None = None,
        concurrency: Mapping[str, int] | None = None,
        burst: bool = False,
        name: str | None = None,
        clock: Clock | None = None,
        idle: Callable[[], Awaitable[bool]] | None = None,
        on_check: Callable[[], object] = lambda: None,
    ) -> None:
        self.name = name or process_name()
        self.opens: str | None = None
        self._processors = processors
        self._address = StoreAddress(url, prefix, clock)
        self._settings = settings
        self._plugins = plugins
        self._jobs = jobs
        self._provided = provided
        self._concurrency = concurrency or {}
        self._burst = burst
        self._idle = idle
        self._on_check = on_check
        self._stop = asyncio.Event()
        self._hurries = False
        self._opening: asyncio.Timeout | None = None
        self._outage = Outage()
        self._consumers: Sequence[Consumer] = ()
        self.stalled: Counter[str] = Counter()
        self.repaired: Counter[str] = Counter()
        self.counters: dict[str, PluginCounter] = {}
        self.troubles: dict[tuple[str, str], str] = {}
        self._suspects = Suspects()
        self._made = time.monotonic()
        self._without_ending: dict[ActiveJob, float] = {}

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stop.is_set()

    @property
    def is_serving(self) -> bool:
        """Whether its resources are open and it fetches jobs, or would if the store were there."""
        return bool(self._consumers) and not self.is_stopping

    @property
    def running(self) -> int:
        """How many jobs run."""
        return sum(each.slots.running for each in self._consumers)

    @property
    def misses_store(self) -> bool:
        """Whether the store is away, as far as its loops know."""
        return self._outage.lasts

    @property
    def silent_seconds(self) -> float:
        """Seconds since the store last answered a call of a queue: the highest of all queues."""
        made = time.monotonic() - self._made  # none serves yet: a resource is being opened
        return max((consumer.silent_seconds for consumer in self._consumers), default=made)

    @property
    def seconds_since_last_call(self) -> float:
        """Seconds since a call of a queue was answered or failed: the highest of all queues.

        It stays small even in an outage, because calls fail then; if it grows, calls hang.
        """
        made = time.monotonic() - self._made
        return max((consumer.seconds_since_last_call for consumer in self._consumers), default=made)

    @property
    def without_ending_seconds(self) -> float:
        """For how many seconds a job takes a slot although its task has ended; 0 without one."""
        now = time.monotonic()
        return now - min(self._without_ending.values(), default=now)

    @property
    def all_troubles(self) -> dict[tuple[str, str], str]:
        """`troubles`, and under the kind `calls` the queues whose calls have failed for long.

        Callable from any thread.
        """
        failing = [
            each.queue.name for each in self._consumers if each.failing_seconds > FAILING_SECONDS
        ]
        sentence = "calls of queue {!r} to the store have failed for more than {:g} s"
        return {
            **self.troubles,
            **{(queue, CALLS): sentence.format(queue, FAILING_SECONDS) for queue in failing},
        }

    def stop(self) -> None:
        """Fetch no more, let jobs finish within the shutdown timeout, then hand back the rest."""
        self._stop.set()
        if self._opening is not None:
            self._opening.reschedule(0)
            self._opening = None

    def hurry(self) -> None:
        """Stop, and hand back the running jobs at once."""
        self._hurries = True
        self.stop()

    def hand_back(self) -> int:
        """Hand back the jobs of a worker whose event loop is stuck and whose process ends.

        Callable from any thread.

        Returns:
            How many jobs were handed back.

        Raises:
            StoreUnavailable: The store is away. The stalled check will find the jobs.
        """
        link = ThreadLink(self._address.url, THREAD_SECONDS)
        try:
            return sum(each.hand_back(link, self.name) for each in self._consumers)
        finally:
            link.close()

    async def run(self) -> StopReport:
        """Serve the queues until stopped; in burst mode until there is nothing left to do.

        Returns:
            How it ended.
        """
        return await start_task(self._run(), "corral-worker")

    async def _run(self) -> StopReport:
        lock_seconds = self._settings.lock_seconds
        leases = Leases(self._address.url, lock_seconds, ConnectionReport(self._outage))
        threads = Threads("corral-processor")
        leases.start()
        guard = LoopGuard(asyncio.get_running_loop())
        stopped: StopReport | None = None
        try:
            async with AsyncExitStack() as resources:
                deps = Deps(
                    self._jobs,
                    self._plugins,
                    resources,
                    self._provided,
                    counters=self.counters,
                    troubles=self.troubles,
                )
                self._consumers = consumers = await self._open(deps, leases, threads)
                if consumers or not self.is_stopping:
                    served = {
                        consumer.queue.name: consumer.slots.concurrency for consumer in consumers
                    }
                    log.info("worker started", queues=served)
                    await self._serve(consumers, leases)
                stopped = StopReport(
                    handed_back=sum(each.slots.handed_back for each in consumers),
                    stuck=sum(each.slots.stuck for each in consumers),
                    unwritten=sum(each.unwritten.count for each in consumers),
                )
        except Exception as error:
            if stopped is None:
                raise
            log.error("resource cannot be closed", exc_info=error)  # noqa: TRY400  # the logger is ours
            stopped = replace(stopped, unclosed=True)
        finally:
            leases.stop()
            threads.close()
            del guard
        log.info("worker stopped", handed_back=stopped.handed_back, unwritten=stopped.unwritten)
        return stopped

    async def _open(self, deps: Deps, leases: Leases, threads: Threads) -> Sequence[Consumer]:
        """Open the resources; return no consumers if `stop` is called before all are open."""
        try:
            # `stop` sets its deadline.
            async with asyncio.timeout(0 if self.is_stopping else None) as self._opening:
                return [
                    await self._consumer(processor, deps, leases, threads)
                    for processor in self._processors
                ]
        except Exception:
            if not self.is_stopping:
                raise
            return ()
        finally:
            self._opening = None

    async def _consumer(
        self, processor: Processor, deps: Deps, leases: Leases, threads: Threads
    ) -> Consumer:
        queue = processor.queue
        self.opens = queue.name
        resource = None if processor.using is None else await deps.enter(processor.using)
        self.opens = None
        return Consumer(
            Execution(
                processor,
                resource,
                self._plugins.job_hooks,
                threads,
                keep_logs=self._settings.keep_logs,
            ),
            address=self._address,
            worker=self.name,
            concurrency=self._concurrency.get(queue.name)
            or queue.concurrency
            or self._settings.concurrency,
            lock_seconds=self._settings.lock_seconds,
            leases=leases,
            job_hooks=self._plugins.job_hooks,
            outage=self._outage,
            suspects=self._suspects,
            max_stalled=self._settings.max_stalled,
            troubles=self.troubles,
            burst=self._burst,
        )

    async def _serve(self, consumers: Sequence[Consumer], leases: Leases) -> None:
        serving = start_task(_work_off(consumers, self._idle), "corral-serving")
        upkeep: list[asyncio.Task[None]] = [
            start_task(self._recover(each), "corral-stalled") for each in consumers
        ]
        upkeep += [start_task(self._keep_schedule(each), "corral-schedule") for each in consumers]
        upkeep.append(start_task(self._beat(consumers, leases), "corral-heartbeat"))
        stopping = start_task(self._stop.wait(), "corral-stop")
        try:
            tasks: set[asyncio.Task[Any]] = {serving, stopping, *upkeep}
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            await end_tasks(upkeep[:-1])
            for consumer in consumers:
                consumer.stop()
            await self._drain(consumers, serving)
        finally:
            await end_tasks([serving, *upkeep, stopping])
        if not serving.cancelled():
            serving.result()

    async def _recover(self, consumer: Consumer) -> None:
        await consumer.may_work.wait()
        await keep_recovering_stalled(
            consumer.store,
            self._settings,
            self._outage,
            self.stalled,
            consumer.troubles.report,
            look_further=consumer.neighbours.look,
        )

    async def _keep_schedule(self, consumer: Consumer) -> None:
        await consumer.may_work.wait()
        await consumer.schedule.keep(
            self._outage,
            interval_seconds=self._settings.stalled_interval_seconds,
            troubles=self.troubles,
            repaired=self.repaired,
            checked=self._on_check,
        )

    async def _beat(self, consumers: Sequence[Consumer], leases: Leases) -> None:
        while True:
            leases.note_turn()
            now, seen = time.monotonic(), self._without_ending
            self._without_ending = {
                job: seen.get(job, now)
                for consumer in consumers
                for job in consumer.slots.without_ending
            }
            await asyncio.sleep(BEAT_SECONDS)

    async def _drain(self, consumers: Sequence[Consumer], serving: asyncio.Task[None]) -> None:
        deadline = time.monotonic() + self._settings.shutdown_timeout_seconds
        while not serving.done() and not self._hurries and time.monotonic() < deadline:
            if self._outage.lasts and not any(
                each.slots.running or each.unwritten.count for each in consumers
            ):
                break  # only a store that is away is left to wait for
            await asyncio.wait([serving], timeout=LOOK_SECONDS)
        for give_up, seconds in ((Slots.hand_back, CANCEL_SECONDS), (Slots.abandon, FLUSH_SECONDS)):
            if not serving.done():
                for consumer in consumers:
                    give_up(consumer.slots)
                await asyncio.wait([serving], timeout=seconds)
        if not serving.done():
            log.warning(
                "the endings of the last jobs could not be written to the store:"
                " the stalled check will find these jobs, and they will run again"
            )


async def _work_off(
    consumers: Sequence[Consumer], idle: Callable[[], Awaitable[bool]] | None
) -> None:
    """Run consumers, in a burst again and again, until a round of all has started no job.

    In a burst, one queue's job may enqueue into another queue.
    """
    started, more = 0, True
    try:
        while more:
            running = [start_task(each.run(), f"corral-{each.queue.name}") for each in consumers]
            try:
                await asyncio.gather(*running)
            finally:
                await end_tasks(running)
            before, started = started, sum(each.slots.started for each in consumers)
            more = await idle() if idle is not None else started > before
    finally:
        for consumer in consumers:
            await consumer.close()
