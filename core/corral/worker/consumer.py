"""`Consumer`: works off one queue.

Its calls go both ways: `advance` hands over every ending that has gathered and brings new jobs for the free slots.
While a call is on its way further endings gather for the next one, so batches grow with the load by themselves, and an
idle queue still answers job by job. A large batch does not wait: a second call goes out beside the first, so that the
store works on one half of the jobs while the processors run the other. A call survives any outage of the store by
being repeated, under the same number, on a new connection. A call whose script failed is not repeated: an error is
definite. Its endings are sent again in smaller calls under numbers of their own, so that one that cannot be written
keeps no other waiting.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

import structlog

from corral.errors import StoreUnavailable
from corral.job import Run
from corral.outcome import Completed, Failed, HandedBack, LeaseLost, Outcome, Snoozed
from corral.plugins import Relay
from corral.store.clock import Clock
from corral.store.codec import BROKEN, REFUSED, Advanced, Ending, FetchedJob
from corral.store.connection import BLOCK_SECONDS, Link, blocking_link
from corral.store.late import Late
from corral.store.queue_store import BATCH_BYTES, FETCH_BYTES, MAX_BATCH, QueueStore
from corral.store.replies import ResponseError
from corral.tasks import OwnTask, start_task
from corral.worker.ended import Ended, least_level, level_of
from corral.worker.execution import Execution, Running
from corral.worker.leases import Lease, Leases, PendingCall
from corral.worker.marker import Marker
from corral.worker.neighbours import Neighbours
from corral.worker.notes import Notes
from corral.worker.outage import Backoff, Outage
from corral.worker.schedule_keeper import ScheduleKeeper
from corral.worker.stopping import end_tasks
from corral.worker.suspects import Suspects
from corral.worker.ticks import Ticks
from corral.worker.troubles import QueueTroubles

__all__ = ["Consumer"]

T = TypeVar("T")

log = structlog.get_logger("corral.worker")

LANES = 2
"""How many calls may be on their way at once. Two keep the store and the processors busy at the same time: 1.5 times
the throughput of one, measured at 100 jobs at once on two cores; a third has nobody left to keep busy."""
LANE_BATCH = 4
"""How large a batch must be for a second call: smaller ones cost more in calls than they save in waiting."""
MAX_FETCH_BYTES = 16 * 1024 * 1024
"""How large the jobs of one fetch may be on the fastest link: the store reads so much in about 20 ms, and serves nobody
else meanwhile."""
STUCK_SECONDS = 0.5
"""How long an ending that the store could not write waits for its next try."""
LIMIT_SECONDS = 30.0
"""How long a rate-limited worker sleeps at most before it asks again (wire § 15)."""
LEAVE_MS = 5_000
"""How long we leave an iteration to others whose cron expression we cannot read. Run without its next one made, it
would end its schedule."""
RIGHTS_SECONDS = 5.0
"""How soon a worker whose store's user lacks a right looks whether it has it now."""
UNFINISHED_SECONDS = 2.0
"""How often the consumer looks for jobs whose task is done and has told no outcome."""
REFUSALS = {
    -4: Failed("JobRefused: the job still has unfinished children"),
    -9: Failed("JobRefused: a child of the job has failed"),
}
"""Endings that the store refuses because of children that were added meanwhile, and what becomes of them."""


class Consumer:
    """Works off one queue until it is stopped.

    Args:
        execution: Runs the processor.
        url: The store.
        prefix: The first part of the keys.
        worker: The worker's name; unique among all workers.
        concurrency: How many jobs run at once.
        lock_seconds: How long a lock lives without renewal.
        leases: Renews the locks.
        relay: Tells the subscribers of `corral_job_ended`.
        outage: Told when the store is away.
        suspects: Lets jobs that stalled before start one at a time, among all queues of the process.
        max_stalled: How often a job may stall before it is failed.
        troubles: What an operator must know, by queue and kind; see `Worker.troubles`.
        burst: Whether to end when nothing waits and nothing runs.
        clock: Moves the store's time, in tests.
    """

    def __init__(
        self,
        execution: Execution,
        *,
        url: str,
        prefix: str,
        worker: str,
        concurrency: int,
        lock_seconds: float,
        leases: Leases,
        relay: Relay,
        outage: Outage,
        suspects: Suspects,
        max_stalled: int,
        troubles: dict[tuple[str, str], str],
        burst: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self.queue = queue = execution.queue
        self._lanes = [
            QueueStore(Link(url), prefix, queue.name, options=queue.options, lane=n, clock=clock) for n in range(LANES)
        ]
        self.store = self._lanes[0]
        self.handed_back = self.unwritten = self.started = 0
        self._abandoned: list[Running] = []
        self._execution = execution
        self._worker = worker
        self.concurrency = concurrency
        self._lock_seconds = lock_seconds
        self._leases = leases
        self._job_ended = relay.job_ended
        self._outage = outage
        self._suspects = suspects
        self._max_stalled = max_stalled
        self.troubles = QueueTroubles(queue.name, troubles)
        self.neighbours = Neighbours(self.store)
        self.may_work = asyncio.Event()
        self._backoffs = {lane: Backoff(outage) for lane in self._lanes}
        self._burst = burst
        encoded = base64.b64encode(queue.name.encode()).decode()
        waiting = blocking_link(url, f"{prefix}:{encoded}:w:{worker}")
        self._marker = Marker(self._lanes, waiting, outage, self._look_now)
        self._loop = asyncio.get_running_loop()
        self._ticks = Ticks(self.store, queue.schedule)
        self.schedule = ScheduleKeeper(self.store, queue)
        self._seq = 0
        self._calls: dict[QueueStore, asyncio.Task[None]] = {}
        self._reserved = 0
        self._running: dict[Running, Lease] = {}
        self._ended: list[Ended] = []
        self._stuck: list[list[Ended]] = []
        self._stuck_later: asyncio.TimerHandle | None = None
        self._unstarted: list[FetchedJob] = []
        self._wake = asyncio.Event()
        # The first lane is for endings.
        self._notes = Notes(self._lanes[-1], worker, outage, execution.kept_logs, self._wake.set)
        self._look = False
        self._slots_left = False
        self._look_later: asyncio.TimerHandle | None = None
        self._sweep_later: asyncio.TimerHandle | None = None
        self._found_nothing = False
        self._stopping = False
        self._scheduled = False

    @property
    def silent_seconds(self) -> float:
        """How long nothing was fetched, or found not to be there; 0 where nothing is asked for, or where a reply comes.

        On a slow link a large one takes longer than a worker may be silent.
        """
        if self._asks_nothing():
            return 0.0
        return min(min(backoff.silent_seconds, lane.unheard_seconds) for lane, backoff in self._backoffs.items())

    @property
    def still_seconds(self) -> float:
        """How long no call was answered, and none failed; 0 where nothing is asked for."""
        return 0.0 if self._asks_nothing() else min(each.still_seconds for each in self._backoffs.values())

    @property
    def failing_seconds(self) -> float:
        """How long calls on one of its connections have failed, one after the other."""
        return max(each.failing_seconds for each in self._backoffs.values())

    @property
    def unended(self) -> list[Running]:
        """The jobs whose task is done, and whose ending was not handed over."""
        return [each for each in list(self._running) if each.task is not None and each.task.done()]

    @property
    def running(self) -> int:
        """How many processors run."""
        return len(self._running)

    @property
    def stuck(self) -> int:
        """How many processors still run although they were abandoned."""
        return sum(running.task is not None and not running.task.done() for running in self._abandoned)

    def stop(self) -> None:
        """Fetch no more; `run` returns when what runs has ended."""
        self._stopping = True
        self._wake.set()

    def hand_back(self) -> None:
        """Interrupt what still runs; its jobs go back to the waiting list with no attempt spent."""
        for running in list(self._running):
            self._execution.interrupt(running, "shutdown")

    def abandon(self) -> None:
        """Hand back even what did not react to `hand_back`; whatever its processor returns later is dropped."""
        for running in list(self._running):
            self._abandoned.append(running)
            self._end(running, HandedBack())

    async def run(self) -> None:
        """Work off the queue until stopped, or in burst mode until nothing waits and nothing runs."""
        if not await self._wait_for_rights():
            return
        self._look = True
        self._marker.start()
        self._sweep_later = self._loop.call_later(UNFINISHED_SECONDS, self._end_unfinished)
        try:
            if not self._scheduled:
                await self._persist(self.store, self.schedule.install)
                self.troubles.warn_of_removals(await self._persist(self.store, self.store.history_at_risk))
                self._scheduled = True
            await self._work()
        finally:
            for timer in (self._look_later, self._stuck_later, self._sweep_later):
                if timer is not None:
                    timer.cancel()
            await end_tasks(self._calls.values())
            await self._notes.stop()
            await self._marker.stop()

    async def _wait_for_rights(self) -> bool:
        """Fetch nothing before the store's user may do all that a worker does; False where it was stopped before that.

        A call that is refused half-way leaves jobs to the stalled check, which in the end fails them.
        """
        while not (self._stopping or self.may_work.is_set()):
            lacking = await self._persist(self.store, self.store.missing_rights)
            self.troubles.report_rights(lacking)
            if not lacking:
                self.may_work.set()
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(RIGHTS_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
        return self.may_work.is_set()

    async def close(self) -> None:
        """Close the connections; `run` leaves them open for another one."""
        await self._marker.close()

    async def _work(self) -> None:
        while True:
            if self._stopping:
                await self._marker.stop()
            # A job may have spoken and ended while others' notes were written.
            while self._notes.may_write():
                await self._notes.write()
            for answered in [lane for lane, call in self._calls.items() if call.done()]:
                self._calls.pop(answered).result()
            lane, want = self._free_lane(), self._wanted()
            if lane is not None and (self._ended or self._unstarted or want):
                self._send(lane, want)
            elif self._finished():
                return
            else:
                await self._sleep()

    def _finished(self) -> bool:
        if self._running or self._ended or self._stuck or self._unstarted or self._calls:
            return False
        return self._stopping or (self._burst and self._found_nothing and not self._look)

    def _asks_nothing(self) -> bool:
        return self._stopping or (self._free_slots() <= 0 and not self._calls)

    def _free_slots(self) -> int:
        return self.concurrency - len(self._running) - self._reserved

    def _free_lane(self) -> QueueStore | None:
        """A connection for the next call: the first, or for a large batch another."""
        free = [lane for lane in self._lanes if lane not in self._calls]
        if not self._calls:
            return free[0]
        batch = max(len(self._ended), self._wanted())
        return free[0] if free and batch >= LANE_BATCH else None

    def _wanted(self) -> int:
        """How many jobs the next call asks for: half of a large number of slots, so that the halves take turns."""
        if self._stopping or not (self._ended or self._look or self._slots_left):
            return 0
        share = self.concurrency if self.concurrency < LANES * LANE_BATCH else -(-self.concurrency // LANES)
        return min(self._free_slots(), share, MAX_BATCH)

    def _send(self, lane: QueueStore, want: int) -> None:
        """Start a call: with the endings there are, and for jobs for the free slots."""
        unstarted, self._unstarted = self._unstarted[:MAX_BATCH], self._unstarted[MAX_BATCH:]
        room = _fitting(self._ended, MAX_BATCH - len(unstarted))
        ended, self._ended = self._ended[:room], self._ended[room:]
        if want:
            # Slots that are left are the next call's; a marker that comes while this one is on its way says so again.
            self._look, self._slots_left = False, want < self._free_slots()
            self._marker.fetching()
        self._reserved += want
        call = self._advance(lane, ended, unstarted, want)
        self._calls[lane] = start_task(call, f"corral-advance-{self.queue.name}")
        self._calls[lane].add_done_callback(lambda _: self._wake.set())

    async def _advance(self, lane: QueueStore, ended: list[Ended], unstarted: list[FetchedJob], want: int) -> None:
        """One call to the store, repeated until it is answered, and what follows from the answer."""
        self._seq += 1
        pending = PendingCall(lane, self._worker, self._seq, time.monotonic())
        turn = self._suspects.reserve() if want else None
        if want:
            self._leases.expect(pending)
        failed = None
        try:
            endings = [Ending(each.running.fetched, each.outcome) for each in ended]
            endings += [Ending(job, HandedBack()) for job in unstarted]
            reply = await self._ask(lane, pending, endings, want, suspects=turn is not None)
            endings.clear()  # as below: they hold exceptions
            self._settle(ended, reply)
            await self._begin(lane, pending, reply, want)
        except ResponseError as error:
            failed = error
        finally:
            self._reserved -= want
            self._leases.answered(pending)
            if turn is not None:
                self._suspects.release(turn)
        if failed is not None:
            await self._split(lane, ended, unstarted, failed)
        elif reply.broken:
            await self._backoffs[lane].wait()

    async def _begin(self, lane: QueueStore, pending: PendingCall, reply: Advanced, want: int) -> None:
        """Start what a call has brought, and decide when to ask again."""
        self._ticks.store_time(reply.now_ms)
        self.troubles.report(reply.quarantined, reply.broken)
        if want:
            self.neighbours.saw_count(reply.others_count)
        if want and not reply.broken and not self._stuck:
            self.troubles.clear()
        refusals = {late.job_id: await self._advance_schedule(lane, late) for late in reply.late}
        self._unstarted += reply.unread
        if time.monotonic() - pending.renewed < self._lock_seconds:
            self._start(reply, pending.renewed, refusals)
        elif reply.jobs:
            self._unstarted += reply.jobs
            log.warning(
                "fetched jobs are handed back: the process was blocked for longer than their locks live",
                queue=self.queue.name,
                jobs=len(reply.jobs),
                lock_ms=int(self._lock_seconds * 1000),
            )
        if reply.repeated or reply.cut or (want > 0 and len(reply.jobs) == want):
            self._look = True
        elif want:
            self._slots_left = False  # nor would another call find anything for them
        if want:
            waits = reply.held or (reply.limited_ms and not lane.clock.by_hand)
            self._found_nothing = not (reply.jobs or waits)
            if not reply.jobs and reply.due_ms is None:
                self.schedule.doubt()
        if reply.held:
            self._suspects.when_free(self._look_now)
        self._look_again_in(reply)

    async def _ask(
        self, lane: QueueStore, pending: PendingCall, endings: Sequence[Ending], want: int, *, suspects: bool
    ) -> Advanced:
        """One call under one number, repeated until the store answers it."""
        sizes = self._fetch_sizes(lane)

        async def ask() -> Advanced:
            return await lane.advance(
                self._worker,
                pending.seq,
                endings,
                want,
                lock_ms=int(self._lock_seconds * 1000),
                ticks=self._ticks.coming(),
                suspects=int(suspects),
                confirm_from=self._max_stalled,
                max_bytes=next(sizes),
            )

        return await self._persist(lane, ask)

    def _fetch_sizes(self, lane: QueueStore) -> Iterator[int]:
        """How large the jobs of one fetch may be, for each try of its call.

        It is what the link brings in a quarter of a lock's life. If the call must be repeated more than once, its reply
        may be what the link breaks under: the later tries ask for less and less.
        """
        size = FETCH_BYTES
        if lane.bytes_per_second is not None:
            size = min(int(lane.bytes_per_second * self._lock_seconds / 4), MAX_FETCH_BYTES)
        yield size
        while True:
            yield size
            size = min(size // 2, FETCH_BYTES)

    async def _split(
        self, lane: QueueStore, ended: list[Ended], unstarted: list[FetchedJob], error: ResponseError
    ) -> None:
        """A script failed: send what it was given in smaller calls, down to one ending at a time."""
        whole_queue = str(error).startswith("DAMAGED")
        if ended or whole_queue:
            self._unstarted += unstarted  # else they made it fail; they will be found stalled
        if len(ended) > 1 and not whole_queue:
            half = len(ended) // 2
            await self._advance(lane, ended[:half], [], 0)
            await self._advance(lane, ended[half:], [], 0)
            return
        if whole_queue or not ended:
            self.troubles.report((), str(error))
        elif not ended[0].unwritable:
            ended[0].unwritable = True
            self.troubles.report_ending(ended[0].running.job.id, error)
        self._keep_for_later(ended)
        self._look = True
        await self._backoffs[lane].wait()

    async def _advance_schedule(self, lane: QueueStore, late: Late) -> Outcome | None:
        """Make the next iteration of a schedule before this one runs; how it ends without running where that fails."""
        try:
            made = await self._persist(lane, lambda: self._ticks.advance(late))
        except ResponseError as error:
            return Failed(f"job refused: {str(error).removeprefix('DAMAGED ')}")
        return None if made else Snoozed(LEAVE_MS)

    async def _sleep(self) -> None:
        """Until a call is answered, a job ends, a marker comes, a delayed job is due, or somebody stops us."""
        if self._free_slots() > 0 and not self._calls:
            self._marker.want()
        elif self._free_slots() <= 0:
            await self._marker.put_back()  # the slots filled meanwhile: it is somebody else's to take
        await self._wake.wait()
        self._wake.clear()

    def _look_now(self) -> None:
        self._look = True
        self._wake.set()

    def _look_again_in(self, reply: Advanced) -> None:
        """Fetch again when the rate limit ends, or when the earliest delayed job is due."""
        if reply.limited_ms:
            seconds = min(reply.limited_ms / 1000, LIMIT_SECONDS)
        elif reply.due_ms is not None and reply.due_ms < BLOCK_SECONDS * 1000:
            seconds = reply.due_ms / 1000 + 0.001
        else:
            return
        if self._look_later is not None:
            self._look_later.cancel()
        self._look_later = self._loop.call_later(seconds, self._look_now)

    async def _persist(self, lane: QueueStore, attempt: Callable[[], Awaitable[T]]) -> T:
        """Repeat until the store answers, with a reply or with an error of its own."""
        backoff = self._backoffs[lane]
        while True:
            try:
                reply = await attempt()
            except StoreUnavailable as error:
                await backoff.failed(error)
            except ResponseError:
                backoff.answered()
                raise
            else:
                backoff.succeeded()
                return reply

    def _keep_for_later(self, ended: list[Ended]) -> None:
        """Send endings that the store could not write again, until it can."""
        if ended:
            self._stuck.append(ended)
        if self._stuck and self._stuck_later is None:
            self._stuck_later = self._loop.call_later(STUCK_SECONDS, self._retry_stuck)

    def _retry_stuck(self) -> None:
        self._stuck_later = None
        self._ended += self._stuck.pop(0)
        self._keep_for_later([])
        self._wake.set()

    def _start(self, reply: Advanced, locked: float, refusals: Mapping[bytes, Outcome | None]) -> None:
        timeout_seconds = self._execution.timeout_seconds
        lost, spoke = self._lost, self._spoke
        leases: list[Lease] = []
        for fetched in reply.jobs:
            running = self._execution.prepare(fetched)
            running.refusal = refusals.get(fetched.stored_id) or running.refusal
            until = None
            if timeout_seconds is not None:
                until = running.started + timeout_seconds + self._lock_seconds
            lease = Lease(self.store, fetched.stored_id, fetched.token, lost, running, locked, until)
            self._running[running] = lease
            leases.append(lease)
            if fetched.is_suspect:
                self._suspects.started(running)
            running.run.spoke = spoke
            running.task = task = OwnTask(self._process(running), loop=self._loop)
            task.job = running.job
        self._leases.hold(leases)
        self.started += len(leases)

    async def _process(self, running: Running) -> None:
        try:
            if running.refusal is None and running.fetched.stalls >= self._max_stalled:
                await self._persist(self.store, lambda: self.store.confirm(running.fetched))
            self._end(running, running.refusal or await self._execution.run(running))
        except asyncio.CancelledError:  # before the processor had begun
            self._end(running, self._execution.unfinished(running))
        except GeneratorExit as closed:
            # Thrown into a coroutine, it closes what that awaits, whose outcome is lost: by whoever closes this one, or
            # by a future that the processor awaits.
            if not self._loop.is_running():
                raise
            self._end(running, self._execution.raised(running, closed.with_traceback(None)))
            if running.task is not None:
                running.task.cancel()  # else it may wait for ever, for something that was closed with its coroutine

    def _end_unfinished(self) -> None:
        """End jobs whose task is done and has told no outcome: something else cancelled it before it began, say."""
        self._sweep_later = self._loop.call_later(UNFINISHED_SECONDS, self._end_unfinished)
        for running in self.unended:
            outcome = self._execution.unfinished(running)
            self._end(running, outcome)
            known = {"queue": self.queue.name, "job_id": running.fetched.id, "outcome": type(outcome).__name__}
            log.warning("a job's task was done without an outcome: the job is ended", **known)

    def _lost(self, running: Running) -> None:
        """The lock of a job is somebody else's. From the lease thread."""
        self._loop.call_soon_threadsafe(self._lose, running)

    def _spoke(self, run: Run, fetched: FetchedJob) -> None:
        """A job said something. From its processor's thread."""
        self._loop.call_soon_threadsafe(self._notes.spoke, run, fetched)

    def _lose(self, running: Running) -> None:
        if running in self._running:
            self._execution.interrupt(running, "lease")

    def _end(self, running: Running, outcome: Outcome) -> None:
        lease = self._running.pop(running, None)
        if lease is None:
            return  # abandoned: its job was handed back while a thread still ran it
        self.handed_back += isinstance(outcome, HandedBack)
        ended = Ended(running, lease, outcome)
        if isinstance(outcome, LeaseLost):
            self._suspects.ended(running)
            self._leases.release([lease])
            self._tell(ended, outcome)
        else:
            self._ended.append(ended)
            self.unwritten += 1
        self._wake.set()
        running.refusal = None  # as of now only the ending holds the exception
        running.run.spoke = None  # what a thread of it still says is not written: another run may have begun
        self._notes.ended(running.run, running.fetched)

    def _settle(self, ended: list[Ended], reply: Advanced) -> None:
        """Act on what the store said to each ending."""
        settled: list[Lease] = []
        stuck: list[Ended] = []
        least = 0
        with suppress(Exception):  # the program's own logging may be broken
            least = least_level()
        for place, (each, code) in enumerate(zip(ended, reply.codes, strict=False)):
            if code in REFUSALS and isinstance(each.outcome, Completed):
                each.outcome = REFUSALS[code]
                self._ended.append(each)
            elif code == BROKEN:
                stuck.append(each)
            else:
                self.unwritten -= 1
                self._suspects.ended(each.running)
                settled.append(each.lease)
                if each.unwritable:
                    self.troubles.clear_ending()
                if code == REFUSED:
                    each.outcome = Failed(reply.refused.get(place, ""))
                self._tell(each, each.outcome if code >= 0 else LeaseLost(), code, least)
        self._keep_for_later(stuck)
        self._leases.release(settled)
        ended.clear()  # they hold exceptions, and those hold frames: nobody needs them any more

    def _tell(self, ended: Ended, outcome: Outcome, code: int = 0, least: int = 0) -> None:
        """Log an ending that the store has, or has refused with this code, and tell the plugins."""
        if level_of(outcome) >= least:  # nothing is prepared for a line that is not written
            # The program's own logging may be broken, and the other endings are told all the same.
            with suppress(Exception):
                ended.tell(outcome, code)
        if self._job_ended is not None:
            self._job_ended(ended.running.job, outcome)


def _fitting(ended: Sequence[Ended], most: int) -> int:
    """How many of these endings go into one call: at most `most`, and of about `BATCH_BYTES` together."""
    size = 0
    for place, each in enumerate(ended[:most]):
        size += each.size
        if size > BATCH_BYTES and place:
            return place
    return min(len(ended), most)
