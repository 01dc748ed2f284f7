"""`Consumer`: processes the jobs of one queue.

One call to the store, `advance`, does two things: it writes all endings that have gathered, and it
fetches new jobs for the free slots. Further endings gather for the next call while one is on its
way. So batches grow with the load by themselves, and with little load each job is a call of its
own. A large batch does not wait: a second call is sent beside the first, so that the store works on
one half of the jobs while the processors run the other half. A call whose script failed is not
repeated, because the error would come again. Its endings are sent in smaller calls under numbers of
their own, so that one that cannot be written does not hold up the others.

`run` is one task that decides what to do next and sleeps in between. While it sleeps, the last
ending of a batch and the reply to a call send the next call themselves: waking the task first takes
a turn of the event loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import time
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum, auto

from corral.loggers import Logger
from corral.outcome import Completed, Failed, HandedBack, LeaseLost, Outcome, Snoozed
from corral.plugins import JobHooks
from corral.store.address import StoreAddress
from corral.store.codec import BROKEN, REFUSED, Advanced, Ending, FetchedJob, PendingSuccessor
from corral.store.connection import ThreadLink, blocking_link
from corral.store.keys import worker_connection_name
from corral.store.queue_store import MAX_BATCH
from corral.store.replies import ResponseError
from corral.tasks import end_tasks, start_task
from corral.worker.execution import Execution
from corral.worker.finished_job import FinishedJob, least_level, level_of
from corral.worker.lane import Lane
from corral.worker.leases import Lease, Leases, PendingCall
from corral.worker.lookout import Lookout, Reason
from corral.worker.marker import Marker
from corral.worker.neighbours import Neighbours
from corral.worker.notes import Notes
from corral.worker.outage import Outage
from corral.worker.schedule_keeper import ScheduleKeeper
from corral.worker.slots import Slots
from corral.worker.suspects import Suspects
from corral.worker.ticks import Ticks
from corral.worker.troubles import QueueTroubles
from corral.worker.unwritten import UnwrittenEndings

__all__ = ["Consumer", "Stage"]

log = Logger("corral.worker")

LANES = 2
"""How many calls may be on their way at once.

Two keep the store and the processors busy at the same time: 1.5 times the throughput of one,
measured at 100 jobs at once on two cores. A third call adds nothing.
"""
LANE_BATCH = 4
"""The smallest batch for a second call: smaller ones cost more in calls than they save in waits."""
UNREADABLE_SCHEDULE_MS = 5_000
"""Snooze for an iteration whose cron expression we cannot parse.

Another client must run it: if we ran it without creating its successor, the schedule would end.
"""
RIGHTS_SECONDS = 5.0
"""How often a worker whose store's user lacks a right checks whether it has that right now."""
REPLACED_OUTCOMES = {
    -4: Failed("JobRefused: the job still has unfinished children"),
    -9: Failed("JobRefused: a child of the job has failed"),
}
"""The outcome in place of `Completed` if the store refuses that, by the store's code.

It refuses it because of child jobs that were added while the job ran.
"""


class Stage(Enum):
    """What a consumer is doing.

    `stop` leads to `DRAINING` from every other stage, and nothing leads out of it.
    """

    LACKING_RIGHTS = auto()
    """It fetches nothing: it is not known yet that the store's user may do what a worker does."""
    INSTALLING = auto()
    """It fetches nothing: the declared schedule is not installed yet."""
    DECIDING = auto()
    """It works, and decides what to do next. Also between two rounds of a burst."""
    SLEEPING = auto()
    """It works, and waits for a reply, the end of a job, or another reason to wake up."""
    DRAINING = auto()
    """It fetches nothing more, and writes the endings of its jobs."""


class Consumer:
    """Processes the jobs of one queue until it is stopped.

    Attributes:
        queue: The queue's declaration.
        store: The queue in the store.
        slots: The jobs that run.
        unwritten: The endings that the store does not have yet.
        may_work: Set as soon as the store's user is known to have its rights.
        troubles: The queue's problems, for the log and for operators.
        neighbours: Watches other clients of the queue.
        schedule: Keeps the queue's schedules.

    Args:
        execution: Runs the processor.
        address: Where the queue is kept.
        worker: The worker's name; unique among all workers.
        concurrency: How many jobs run at once.
        lock_seconds: How long a lock lives without renewal.
        leases: Renews the locks.
        job_hooks: Calls the subscribers of `corral_job_ended`.
        outage: Receives failures of the store.
        suspects: Lets jobs that stalled before start one at a time, among all queues of the
            process.
        max_stalled: How often a job may stall before it is failed.
        troubles: Problems for operators, by queue and kind; see `Worker.troubles`.
        burst: Whether to end when nothing waits and nothing runs.
    """

    def __init__(
        self,
        execution: Execution,
        *,
        address: StoreAddress,
        worker: str,
        concurrency: int,
        lock_seconds: float,
        leases: Leases,
        job_hooks: JobHooks,
        outage: Outage,
        suspects: Suspects,
        max_stalled: int,
        troubles: dict[tuple[str, str], str],
        burst: bool = False,
    ) -> None:
        self.queue = queue = execution.queue
        stores = [address.queue(queue.name, options=queue.options, lane=n) for n in range(LANES)]
        numbers = itertools.count(1)
        self._lanes = [Lane(store, worker, numbers, lock_seconds, outage) for store in stores]
        self._first = self._lanes[0]
        self.store = stores[0]
        self._lock_seconds = lock_seconds
        self._leases = leases
        self._job_ended = job_hooks.job_ended
        self._suspects = suspects
        self._max_stalled = max_stalled
        self.troubles = QueueTroubles(queue.name, troubles)
        self.neighbours = Neighbours(self.store)
        self.may_work = asyncio.Event()
        self._burst = burst
        name = worker_connection_name(address.prefix, queue.name, worker)
        waiting = blocking_link(address.url, name)
        self._wake = asyncio.Event()
        self._lookout = Lookout(self._wake.set)
        self._marker = Marker(stores, waiting, outage, self._on_signal)
        self._ticks = Ticks(self.store, queue.schedule)
        self.schedule = ScheduleKeeper(self.store, queue)
        self.unwritten = UnwrittenEndings(self._wake.set)
        self._unstarted: list[FetchedJob] = []  # fetched, to be handed back
        # The first lane is for endings.
        self._notes = Notes(stores[-1], worker, outage, execution.kept_logs, self._wake.set)
        self.slots = Slots(
            execution,
            concurrency=concurrency,
            lane=self._first,
            leases=leases,
            lock_seconds=lock_seconds,
            suspects=suspects,
            max_stalled=max_stalled,
            notes=self._notes,
            on_ended=self._add_ending,
        )
        self._stage = Stage.LACKING_RIGHTS
        self._context = contextvars.copy_context()

    @property
    def silent_seconds(self) -> float:
        """Seconds since the store last answered; 0 if nothing is requested from it.

        Also 0 while the bytes of a reply arrive: on a slow link a large reply takes longer than a
        worker may be silent.
        """
        if self._requests_nothing():
            return 0.0
        return min(lane.silent_seconds for lane in self._lanes)

    @property
    def seconds_since_last_call(self) -> float:
        """Seconds since a call was answered or failed; 0 if nothing is requested."""
        return (
            0.0
            if self._requests_nothing()
            else min(lane.seconds_since_last_call for lane in self._lanes)
        )

    @property
    def failing_seconds(self) -> float:
        """For how many seconds all calls on one of its connections have failed."""
        return max(lane.failing_seconds for lane in self._lanes)

    def stop(self) -> None:
        """Fetch no more; `run` returns when what runs has ended."""
        self._stage = Stage.DRAINING
        self._wake.set()

    async def run(self) -> None:
        """Process the queue until stopped; in burst mode until nothing waits and nothing runs."""
        if self._stage is Stage.LACKING_RIGHTS:
            await self._wait_for_rights()
        if self._stage is Stage.DRAINING:
            return
        self._lookout.add(Reason.START)
        self._marker.start()
        self.slots.watch()
        try:
            if self._stage is Stage.INSTALLING:
                await self._install()
            await self._work()
        finally:
            self.slots.stop_watching()
            self._lookout.stop()
            self.unwritten.stop()
            await end_tasks([lane.call for lane in self._lanes if lane.call is not None])
            await self._notes.stop()
            await self._marker.stop()

    async def _wait_for_rights(self) -> None:
        """Wait until the store's user has all rights that a worker needs.

        A script that is refused half-way leaves jobs locked. The stalled check finds them, and in
        the end fails them.
        """
        while self._stage is Stage.LACKING_RIGHTS:
            missing = await self._first.persist(self.store.missing_rights)
            self.troubles.report_rights(missing)
            if not missing:
                self.may_work.set()
                self._pass_on(Stage.LACKING_RIGHTS, Stage.INSTALLING)
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(RIGHTS_SECONDS):
                    await self._wake.wait()
            self._wake.clear()

    async def _install(self) -> None:
        await self._first.persist(self.schedule.install)
        self.troubles.warn_of_removals(
            await self._first.persist(self.store.count_finished_jobs_at_risk)
        )
        self._pass_on(Stage.INSTALLING, Stage.DECIDING)

    def _pass_on(self, before: Stage, after: Stage) -> None:
        """Go on to another stage, unless `stop` was called meanwhile."""
        if self._stage is before:
            self._stage = after

    def hand_back(self, link: ThreadLink, worker: str) -> int:
        """Write the endings of a stuck event loop from another thread; hand back what still runs.

        Args:
            link: The thread's connection.
            worker: The worker's name.

        Returns:
            How many jobs were handed back: those that still ran, and those that were fetched and
            not started.

        Raises:
            StoreUnavailable: The store is away.
        """
        endings = [Ending(each.active.fetched, each.outcome) for each in self.unwritten.ready]
        back = [*self.slots.fetched, *self._unstarted]
        endings += [Ending(job, HandedBack()) for job in back]
        return len(back) + self.store.give_up(link, worker, endings, self._max_stalled, lanes=LANES)

    async def close(self) -> None:
        """Close the connections; `run` leaves them open for another call of it."""
        await self._marker.close()

    async def _work(self) -> None:
        while True:
            if self._stage is Stage.DRAINING:
                await self._marker.stop()
            # A job may have added notes and ended while others' notes were written.
            while self._notes.may_write():
                await self._notes.write()
            for lane in self._lanes:
                if lane.call is not None and lane.call.done():
                    lane.call.result()  # raises: a call that succeeded is not kept here
            if not self._send_next():
                if self._is_finished():
                    return
                await self._sleep()

    def _is_finished(self) -> bool:
        if (
            self.slots.running
            or self.unwritten.ready
            or self.unwritten.has_stuck
            or self._unstarted
        ):
            return False
        if self._is_calling():
            return False
        return self._stage is Stage.DRAINING or (
            self._burst and self._lookout.found_nothing and not self._lookout
        )

    def _requests_nothing(self) -> bool:
        return self._stage is Stage.DRAINING or (self.slots.free <= 0 and not self._is_calling())

    def _is_calling(self) -> bool:
        for lane in self._lanes:  # noqa: SIM110  # any() takes 0.5 µs more, three times per call
            if lane.call is not None:
                return True
        return False

    def _free_lane(self, want: int) -> Lane | None:
        """Return a connection for the next call, which asks for `want` jobs, or None.

        It is the first one if no call is on its way, and another one for a large batch only.
        """
        free = [lane for lane in self._lanes if lane.call is None]
        if len(free) == LANES:
            return free[0]
        batch = max(len(self.unwritten.ready), want)
        return free[0] if free and batch >= LANE_BATCH else None

    def _count_wanted(self) -> int:
        """Return how many jobs the next call asks for.

        Of a large number of slots it is half, so that the halves take turns.
        """
        if self._stage is Stage.DRAINING or not (self.unwritten.ready or self._lookout):
            return 0
        concurrency = self.slots.concurrency
        share = concurrency if concurrency < LANES * LANE_BATCH else -(-concurrency // LANES)
        return min(self.slots.free, share, MAX_BATCH)

    def _send_next(self) -> bool:
        """Send the next call if there is something to write or to fetch, and a free lane."""
        want = self._count_wanted()
        if not (want or self.unwritten.ready or self._unstarted):
            return False
        lane = self._free_lane(want)
        if lane is not None:
            self._send(lane, want)
        return lane is not None

    def _send_at_once(self) -> bool:
        """Send the next call here; `_work` would send it a turn of the loop later.

        Only while `_work` sleeps: if it is awake, it may be writing notes of the jobs, and those
        must be written before their endings.
        """
        return self._stage is Stage.SLEEPING and not self._notes.due and self._send_next()

    def _send(self, lane: Lane, want: int) -> None:
        """Start a call that writes the endings that are ready and fetches jobs for free slots."""
        unstarted, self._unstarted = self._unstarted[:MAX_BATCH], self._unstarted[MAX_BATCH:]
        ended = self.unwritten.take(MAX_BATCH - len(unstarted))
        if want:
            # The next call fills the remaining slots. A marker that comes while this call is on its
            # way is a new reason to ask.
            self._lookout.clear(for_all_slots=want >= self.slots.free)
            self._marker.release()
        self.slots.reserve(want)
        # Not in the context of the job whose ending is sent: the jobs that the call fetches would
        # inherit it.
        lane.call = start_task(
            self._call(lane, ended, unstarted, want),
            f"corral-advance-{self.queue.name}",
            context=self._context.copy(),
        )

    async def _call(
        self, lane: Lane, ended: list[FinishedJob], unstarted: list[FetchedJob], want: int
    ) -> None:
        """Make a call, send the next one, and wake `_work` only if something is left to do."""
        try:
            await self._advance(lane, ended, unstarted, want)
        except BaseException:
            self._wake.set()  # `_work` finds the call failed, and raises its error
            raise
        lane.call = None
        while self._send_at_once():
            pass
        is_needed = self._stage is not Stage.SLEEPING or self._notes.due or self._marker.held
        # With a free slot and no call, `_work` waits for a marker, or ends a burst.
        if is_needed or (not self._is_calling() and self.slots.free > 0):
            self._wake.set()

    async def _advance(
        self, lane: Lane, ended: list[FinishedJob], unstarted: list[FetchedJob], want: int
    ) -> None:
        """Make one call to the store, repeat it until it is answered, and act on the reply."""
        pending = lane.next_call()
        turn = self._suspects.reserve() if want else None
        if want:
            self._leases.expect(pending)
        failed = None
        try:
            endings = [Ending(each.active.fetched, each.outcome) for each in ended]
            endings += [Ending(job, HandedBack()) for job in unstarted]
            reply = await lane.advance(
                pending,
                endings,
                want,
                ticks=self._ticks.coming,
                suspects=int(turn is not None),
                confirm_from=self._max_stalled,
            )
            endings.clear()  # they hold exceptions, see `_settle`
            self._settle(ended, reply)
            await self._begin(lane, pending, reply, want)
        except ResponseError as error:
            failed = error
        finally:
            self.slots.reserve(-want)
            self._leases.forget(pending)
            if turn is not None:
                self._suspects.release(turn)
        if failed is not None:
            await self._split(lane, ended, unstarted, failed)
        elif reply.broken:
            await lane.pause()

    async def _begin(self, lane: Lane, pending: PendingCall, reply: Advanced, want: int) -> None:
        """Start the jobs that a call has fetched, and decide when to ask again."""
        self._ticks.set_store_time(reply.now_ms)
        self.troubles.report(reply.quarantined, reply.broken)
        if want:
            self.neighbours.check_count(reply.others_count)
        if want and not reply.broken and not self.unwritten.has_stuck:
            self.troubles.clear()
        refusals = {
            pending.job_id: await self._make_successor(lane, pending)
            for pending in reply.pending_successors
        }
        self._unstarted += reply.unread
        jobs = reply.jobs
        while jobs and time.monotonic() - pending.renewed >= self._lock_seconds:
            jobs = await self._renew(lane, pending, jobs)
        self.slots.start(jobs, pending.renewed, refusals)
        self._lookout.read_reply(reply, want, clock_by_hand=lane.store.clock.by_hand)
        if want and not reply.jobs and reply.due_ms is None:
            self.schedule.check_soon()
        if reply.held:
            self._suspects.call_when_free(self._on_turn)

    async def _renew(
        self, lane: Lane, pending: PendingCall, jobs: Sequence[FetchedJob]
    ) -> Sequence[FetchedJob]:
        """Renew the locks of fetched jobs if it is not known whether they still live.

        It is more than a lock's life since the call was made, and the lease thread has found no
        record of it. If the call waited that long before it was sent, the locks are new. If its
        reply did, they may have expired, and another worker may run the jobs.

        Returns:
            The jobs whose lock is still held.
        """
        held = await lane.renew(pending, jobs)
        if lost := len(jobs) - len(held):
            log.warning(
                "fetched jobs are dropped: their locks expired before the store's reply was read,"
                " and another worker may run them",
                queue=self.queue.name,
                jobs=lost,
                lock_ms=int(self._lock_seconds * 1000),
            )
        return held

    async def _split(
        self,
        lane: Lane,
        ended: list[FinishedJob],
        unstarted: list[FetchedJob],
        error: ResponseError,
    ) -> None:
        """Send the endings of a failed call in smaller calls, down to one ending at a time."""
        whole_queue = str(error).startswith("DAMAGED")
        if ended or whole_queue:
            # Else they are what the script fails for: the stalled check will find them.
            self._unstarted += unstarted
        if len(ended) > 1 and not whole_queue:
            half = len(ended) // 2
            await self._advance(lane, ended[:half], [], 0)
            await self._advance(lane, ended[half:], [], 0)
            return
        if whole_queue or not ended:
            self.troubles.report((), str(error))
        elif not ended[0].unwritable:
            ended[0].unwritable = True
            self.troubles.report_ending(ended[0].active.job.id, error)
        self.unwritten.retry_later(ended)
        self._lookout.add(Reason.FAILURE)
        await lane.pause()

    async def _make_successor(self, lane: Lane, pending: PendingSuccessor) -> Outcome | None:
        """Make the next iteration of a schedule before this one runs.

        Returns:
            None, or if that failed, the outcome of this iteration, which then must not run.
        """
        try:
            made = await lane.persist(lambda: self._ticks.make_successor(pending))
        except ResponseError as error:
            return Failed(f"job refused: {str(error).removeprefix('DAMAGED ')}")
        return None if made else Snoozed(UNREADABLE_SCHEDULE_MS)

    async def _sleep(self) -> None:
        """Sleep until a reply, a job's end, a marker, a due delayed job, or `stop` wakes us."""
        if self.slots.free > 0 and not self._is_calling():
            self._marker.want()
        elif self.slots.free <= 0:
            # The slots were filled meanwhile: another worker may take the marker.
            await self._marker.put_back()
        self._pass_on(Stage.DECIDING, Stage.SLEEPING)
        try:
            await self._wake.wait()
        finally:
            self._pass_on(Stage.SLEEPING, Stage.DECIDING)
        self._wake.clear()

    def _on_signal(self) -> None:
        self._lookout.look(Reason.SIGNAL)

    def _on_turn(self) -> None:
        self._lookout.look(Reason.TURN)

    def _add_ending(self, ended: FinishedJob) -> None:
        """Write the ending of a job with the next call; the last job of a batch sends that call."""
        if isinstance(ended.outcome, LeaseLost):
            self._suspects.release_job(ended.active)
            self._leases.release([ended.lease])
            self._report(ended, ended.outcome)
        else:
            self.unwritten.add(ended)
        if self.slots.running or not self._send_at_once():
            self._wake.set()

    def _settle(self, ended: list[FinishedJob], reply: Advanced) -> None:
        """Act on the code that the store has answered for each ending."""
        settled: list[Lease] = []
        stuck: list[FinishedJob] = []
        least = 0
        with suppress(Exception):  # the program's own logging may be broken
            least = least_level()
        for place, (each, code) in enumerate(zip(ended, reply.codes, strict=False)):
            if code in REPLACED_OUTCOMES and isinstance(each.outcome, Completed):
                each.outcome = REPLACED_OUTCOMES[code]
                self.unwritten.ready.append(each)
            elif code == BROKEN:
                stuck.append(each)
            else:
                self.unwritten.count -= 1
                self._suspects.release_job(each.active)
                settled.append(each.lease)
                if each.unwritable:
                    self.troubles.clear_ending()
                if code == REFUSED:
                    each.outcome = Failed(reply.refused.get(place, ""))
                self._report(each, each.outcome if code >= 0 else LeaseLost(), code, least)
        self.unwritten.retry_later(stuck)
        self._leases.release(settled)
        ended.clear()  # they hold exceptions, and those keep frames alive

    def _report(self, ended: FinishedJob, outcome: Outcome, code: int = 0, least: int = 0) -> None:
        """Log an ending that the store has written, or refused with this code; call the plugins."""
        if level_of(outcome) >= least:  # nothing is prepared for a line that is not written
            # The program's own logging may be broken: the other endings are reported all the same.
            with suppress(Exception):
                ended.log_ending(outcome, code)
        if self._job_ended is not None:
            self._job_ended(ended.active.job, outcome)
