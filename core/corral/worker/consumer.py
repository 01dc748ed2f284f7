"""`Consumer`: works off one queue.

Its calls go both ways: `advance` hands over every ending that has gathered and brings new jobs for
the free slots. While a call is on its way further endings gather for the next one, so batches grow
with the load by themselves, and an idle queue still answers job by job. A large batch does not
wait: a second call goes out beside the first, so that the store works on one half of the jobs while
the processors run the other. A call whose script failed is not repeated: an error is definite. Its
endings are sent again in smaller calls under numbers of their own, so that one that cannot be
written keeps no other waiting.

`run` is one task that decides what to do next and sleeps in between. While it sleeps, the last
ending of a batch and the answer to a call send the next call themselves: to wake that task first
takes a turn of the event loop.
"""

from __future__ import annotations

import asyncio
import base64
import contextvars
import itertools
import time
from contextlib import suppress
from enum import Enum, auto

from corral.loggers import Logger
from corral.outcome import Completed, Failed, HandedBack, LeaseLost, Outcome, Snoozed
from corral.plugins import Relay
from corral.store.address import StoreAddress
from corral.store.codec import BROKEN, REFUSED, Advanced, Ending, FetchedJob
from corral.store.connection import ThreadLink, blocking_link
from corral.store.late import Late
from corral.store.queue_store import MAX_BATCH
from corral.store.replies import ResponseError
from corral.tasks import start_task
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
from corral.worker.stopping import end_tasks
from corral.worker.suspects import Suspects
from corral.worker.ticks import Ticks
from corral.worker.troubles import QueueTroubles
from corral.worker.unwritten import Unwritten

__all__ = ["Consumer", "Stage"]

log = Logger("corral.worker")

LANES = 2
"""How many calls may be on their way at once. Two keep the store and the processors busy at the
same time: 1.5 times the throughput of one, measured at 100 jobs at once on two cores; a third has
nobody left to keep busy.
"""
LANE_BATCH = 4
"""How large a batch must be for a second call: smaller ones cost more in calls than they save in
waiting.
"""
LEAVE_MS = 5_000
"""How long we leave an iteration to others whose cron expression we cannot read. Run without its
next one made, it would end its schedule.
"""
RIGHTS_SECONDS = 5.0
"""How soon a worker whose store's user lacks a right looks whether it has it now."""
REFUSALS = {
    -4: Failed("JobRefused: the job still has unfinished children"),
    -9: Failed("JobRefused: a child of the job has failed"),
}
"""Endings that the store refuses because of children that were added meanwhile, and what becomes of
them.
"""


class Stage(Enum):
    """What a consumer is doing.

    `stop` leads to `DRAINING` from every other stage, and nothing leads out of it.
    """

    LACKING_RIGHTS = auto()
    """It fetches nothing: the store's user may not be known yet to do all that a worker does."""
    INSTALLING = auto()
    """It fetches nothing: the declared schedule is not installed yet."""
    DECIDING = auto()
    """It works, and decides what to do next. Also between two rounds of a burst."""
    SLEEPING = auto()
    """It works, and there is nothing to decide until a call is answered, a job ends, or something
    wakes it.
    """
    DRAINING = auto()
    """It fetches nothing more, and hands over how its jobs end."""


class Consumer:
    """Works off one queue until it is stopped.

    Attributes:
        queue: The queue's declaration.
        store: The queue in the store.
        slots: The jobs that run.
        unwritten: The endings that the store does not have yet.
        may_work: Set as soon as the store's user is known to have its rights.
        troubles: What an operator must know of the queue.
        neighbours: What other clients do to the queue.
        schedule: Keeps the queue's schedules.

    Args:
        execution: Runs the processor.
        address: Where the queue is kept.
        worker: The worker's name; unique among all workers.
        concurrency: How many jobs run at once.
        lock_seconds: How long a lock lives without renewal.
        leases: Renews the locks.
        relay: Tells the subscribers of `corral_job_ended`.
        outage: Told when the store is away.
        suspects: Lets jobs that stalled before start one at a time, among all queues of the
        process.
        max_stalled: How often a job may stall before it is failed.
        troubles: What an operator must know, by queue and kind; see `Worker.troubles`.
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
        relay: Relay,
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
        self._job_ended = relay.job_ended
        self._suspects = suspects
        self._max_stalled = max_stalled
        self.troubles = QueueTroubles(queue.name, troubles)
        self.neighbours = Neighbours(self.store)
        self.may_work = asyncio.Event()
        self._burst = burst
        encoded = base64.b64encode(queue.name.encode()).decode()
        waiting = blocking_link(address.url, f"{address.prefix}:{encoded}:w:{worker}")
        self._wake = asyncio.Event()
        self._lookout = Lookout(self._wake.set)
        self._marker = Marker(stores, waiting, outage, self._signalled)
        self._ticks = Ticks(self.store, queue.schedule)
        self.schedule = ScheduleKeeper(self.store, queue)
        self.unwritten = Unwritten(self._wake.set)
        self._unstarted: list[FetchedJob] = []
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
            on_ended=self._ended,
        )
        self._stage = Stage.LACKING_RIGHTS
        self._context = contextvars.copy_context()

    @property
    def silent_seconds(self) -> float:
        """How long nothing was fetched, or found not to be there; 0 where nothing is asked for, or
        where a reply comes.

        On a slow link a large one takes longer than a worker may be silent.
        """
        if self._asks_nothing():
            return 0.0
        return min(lane.silent_seconds for lane in self._lanes)

    @property
    def still_seconds(self) -> float:
        """How long no call was answered, and none failed; 0 where nothing is asked for."""
        return 0.0 if self._asks_nothing() else min(lane.still_seconds for lane in self._lanes)

    @property
    def failing_seconds(self) -> float:
        """How long calls on one of its connections have failed, one after the other."""
        return max(lane.failing_seconds for lane in self._lanes)

    def stop(self) -> None:
        """Fetch no more; `run` returns when what runs has ended."""
        self._stage = Stage.DRAINING
        self._wake.set()

    async def run(self) -> None:
        """Work off the queue until stopped, or in burst mode until nothing waits and nothing runs."""
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
        """Fetch nothing before the store's user may do all that a worker does.

        A call that is refused half-way leaves jobs to the stalled check, which in the end fails
        them.
        """
        while self._stage is Stage.LACKING_RIGHTS:
            lacking = await self._first.persist(self.store.missing_rights)
            self.troubles.report_rights(lacking)
            if not lacking:
                self.may_work.set()
                self._pass_on(Stage.LACKING_RIGHTS, Stage.INSTALLING)
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(RIGHTS_SECONDS):
                    await self._wake.wait()
            self._wake.clear()

    async def _install(self) -> None:
        await self._first.persist(self.schedule.install)
        self.troubles.warn_of_removals(await self._first.persist(self.store.history_at_risk))
        self._pass_on(Stage.INSTALLING, Stage.DECIDING)

    def _pass_on(self, before: Stage, after: Stage) -> None:
        """Go on to another stage, unless `stop` was called meanwhile."""
        if self._stage is before:
            self._stage = after

    def hand_back(self, link: ThreadLink, worker: str) -> int:
        """Write from another thread how the jobs of a stuck loop end: those that still run are
        handed back.

        Args:
            link: The thread's connection.
            worker: The worker's name.

        Returns:
            How many still ran, or were not told to have been started.

        Raises:
            StoreUnavailable: The store is away.
        """
        endings = [Ending(each.running.fetched, each.outcome) for each in self.unwritten.ready]
        back = [*self.slots.fetched, *self._unstarted]
        endings += [Ending(job, HandedBack()) for job in back]
        return len(back) + self.store.give_up(link, worker, endings, self._max_stalled, lanes=LANES)

    async def close(self) -> None:
        """Close the connections; `run` leaves them open for another one."""
        await self._marker.close()

    async def _work(self) -> None:
        while True:
            if self._stage is Stage.DRAINING:
                await self._marker.stop()
            # A job may have spoken and ended while others' notes were written.
            while self._notes.may_write():
                await self._notes.write()
            for lane in self._lanes:
                if lane.call is not None and lane.call.done():
                    lane.call.result()  # it has failed: one that is answered is not there any more
            if not self._send_next():
                if self._finished():
                    return
                await self._sleep()

    def _finished(self) -> bool:
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

    def _asks_nothing(self) -> bool:
        return self._stage is Stage.DRAINING or (self.slots.free <= 0 and not self._is_calling())

    def _is_calling(self) -> bool:
        for lane in self._lanes:  # noqa: SIM110  # any() takes 0.5 µs more, three times per call
            if lane.call is not None:
                return True
        return False

    def _free_lane(self, want: int) -> Lane | None:
        """A connection for the next call, which asks for so many jobs: the first, or for a large
        batch another.
        """
        free = [lane for lane in self._lanes if lane.call is None]
        if len(free) == LANES:
            return free[0]
        batch = max(len(self.unwritten.ready), want)
        return free[0] if free and batch >= LANE_BATCH else None

    def _wanted(self) -> int:
        """How many jobs the next call asks for: half of a large number of slots, so that the halves
        take turns.
        """
        if self._stage is Stage.DRAINING or not (self.unwritten.ready or self._lookout):
            return 0
        concurrency = self.slots.concurrency
        share = concurrency if concurrency < LANES * LANE_BATCH else -(-concurrency // LANES)
        return min(self.slots.free, share, MAX_BATCH)

    def _send_next(self) -> bool:
        """Start the next call, if there is anything to hand over or to ask for, and a lane for it."""
        want = self._wanted()
        if not (want or self.unwritten.ready or self._unstarted):
            return False
        lane = self._free_lane(want)
        if lane is not None:
            self._send(lane, want)
        return lane is not None

    def _send_at_once(self) -> bool:
        """Start the next call without waking `_work`, which would do the same a turn of the loop
        later.

        Not while `_work` is awake, because it may be writing what the jobs have said, which goes
        before their endings; and not after it.
        """
        return self._stage is Stage.SLEEPING and not self._notes.due and self._send_next()

    def _send(self, lane: Lane, want: int) -> None:
        """Start a call: with the endings there are, and for jobs for the free slots."""
        unstarted, self._unstarted = self._unstarted[:MAX_BATCH], self._unstarted[MAX_BATCH:]
        ended = self.unwritten.take(MAX_BATCH - len(unstarted))
        if want:
            # Slots that are left are the next call's; a marker that comes while this one is on its
            # way says so again.
            self._lookout.asking(for_all_slots=want >= self.slots.free)
            self._marker.fetching()
        self.slots.reserve(want)
        # Not in the context of the job whose ending is sent: the jobs that the call brings would
        # inherit it.
        lane.call = start_task(
            self._call(lane, ended, unstarted, want),
            f"corral-advance-{self.queue.name}",
            context=self._context.copy(),
        )

    async def _call(
        self, lane: Lane, ended: list[FinishedJob], unstarted: list[FetchedJob], want: int
    ) -> None:
        """Make a call, send the next one, and wake `_work` only if something is left for it."""
        try:
            await self._advance(lane, ended, unstarted, want)
        except BaseException:
            self._wake.set()  # `_work` finds the call done, and raises this
            raise
        lane.call = None
        while self._send_at_once():
            pass
        is_awaited = self._stage is not Stage.SLEEPING or self._notes.due or self._marker.held
        if is_awaited or (
            not self._is_calling() and self.slots.free > 0
        ):  # to wait for a marker, or to end a burst
            self._wake.set()

    async def _advance(
        self, lane: Lane, ended: list[FinishedJob], unstarted: list[FetchedJob], want: int
    ) -> None:
        """One call to the store, repeated until it is answered, and what follows from the answer."""
        pending = lane.next_call()
        turn = self._suspects.reserve() if want else None
        if want:
            self._leases.expect(pending)
        failed = None
        try:
            endings = [Ending(each.running.fetched, each.outcome) for each in ended]
            endings += [Ending(job, HandedBack()) for job in unstarted]
            reply = await lane.advance(
                pending,
                endings,
                want,
                ticks=self._ticks.coming,
                suspects=int(turn is not None),
                confirm_from=self._max_stalled,
            )
            endings.clear()  # as below: they hold exceptions
            self._settle(ended, reply)
            await self._begin(lane, pending, reply, want)
        except ResponseError as error:
            failed = error
        finally:
            self.slots.reserve(-want)
            self._leases.answered(pending)
            if turn is not None:
                self._suspects.release(turn)
        if failed is not None:
            await self._split(lane, ended, unstarted, failed)
        elif reply.broken:
            await lane.pause()

    async def _begin(self, lane: Lane, pending: PendingCall, reply: Advanced, want: int) -> None:
        """Start what a call has brought, and decide when to ask again."""
        self._ticks.store_time(reply.now_ms)
        self.troubles.report(reply.quarantined, reply.broken)
        if want:
            self.neighbours.saw_count(reply.others_count)
        if want and not reply.broken and not self.unwritten.has_stuck:
            self.troubles.clear()
        refusals = {late.job_id: await self._advance_schedule(lane, late) for late in reply.late}
        self._unstarted += reply.unread
        if time.monotonic() - pending.renewed < self._lock_seconds:
            self.slots.start(reply.jobs, pending.renewed, refusals)
        elif reply.jobs:
            self._unstarted += reply.jobs
            log.warning(
                "fetched jobs are handed back: the process was blocked for longer than their locks live",
                queue=self.queue.name,
                jobs=len(reply.jobs),
                lock_ms=int(self._lock_seconds * 1000),
            )
        self._lookout.answered(reply, want, clock_by_hand=lane.store.clock.by_hand)
        if want and not reply.jobs and reply.due_ms is None:
            self.schedule.doubt()
        if reply.held:
            self._suspects.when_free(self._has_turn)

    async def _split(
        self,
        lane: Lane,
        ended: list[FinishedJob],
        unstarted: list[FetchedJob],
        error: ResponseError,
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
        self.unwritten.retry_later(ended)
        self._lookout.add(Reason.FAILURE)
        await lane.pause()

    async def _advance_schedule(self, lane: Lane, late: Late) -> Outcome | None:
        """Make the next iteration of a schedule before this one runs; how it ends without running
        where that fails.
        """
        try:
            made = await lane.persist(lambda: self._ticks.advance(late))
        except ResponseError as error:
            return Failed(f"job refused: {str(error).removeprefix('DAMAGED ')}")
        return None if made else Snoozed(LEAVE_MS)

    async def _sleep(self) -> None:
        """Until a call is answered, a job ends, a marker comes, a delayed job is due, or somebody
        stops us.
        """
        if self.slots.free > 0 and not self._is_calling():
            self._marker.want()
        elif self.slots.free <= 0:
            await (
                self._marker.put_back()
            )  # the slots filled meanwhile: it is somebody else's to take
        self._pass_on(Stage.DECIDING, Stage.SLEEPING)
        try:
            await self._wake.wait()
        finally:
            self._pass_on(Stage.SLEEPING, Stage.DECIDING)
        self._wake.clear()

    def _signalled(self) -> None:
        self._lookout.look(Reason.SIGNAL)

    def _has_turn(self) -> None:
        self._lookout.look(Reason.TURN)

    def _ended(self, ended: FinishedJob) -> None:
        """A job has ended: hand that over with the next call, which the last one of a batch sends
        at once.
        """
        if isinstance(ended.outcome, LeaseLost):
            self._suspects.ended(ended.running)
            self._leases.release([ended.lease])
            self._tell(ended, ended.outcome)
        else:
            self.unwritten.add(ended)
        if self.slots.running or not self._send_at_once():
            self._wake.set()

    def _settle(self, ended: list[FinishedJob], reply: Advanced) -> None:
        """Act on what the store said to each ending."""
        settled: list[Lease] = []
        stuck: list[FinishedJob] = []
        least = 0
        with suppress(Exception):  # the program's own logging may be broken
            least = least_level()
        for place, (each, code) in enumerate(zip(ended, reply.codes, strict=False)):
            if code in REFUSALS and isinstance(each.outcome, Completed):
                each.outcome = REFUSALS[code]
                self.unwritten.ready.append(each)
            elif code == BROKEN:
                stuck.append(each)
            else:
                self.unwritten.count -= 1
                self._suspects.ended(each.running)
                settled.append(each.lease)
                if each.unwritable:
                    self.troubles.clear_ending()
                if code == REFUSED:
                    each.outcome = Failed(reply.refused.get(place, ""))
                self._tell(each, each.outcome if code >= 0 else LeaseLost(), code, least)
        self.unwritten.retry_later(stuck)
        self._leases.release(settled)
        ended.clear()  # they hold exceptions, and those hold frames: nobody needs them any more

    def _tell(self, ended: FinishedJob, outcome: Outcome, code: int = 0, least: int = 0) -> None:
        """Log an ending that the store has, or has refused with this code, and tell the plugins."""
        if level_of(outcome) >= least:  # nothing is prepared for a line that is not written
            # The program's own logging may be broken, and the other endings are told all the same.
            with suppress(Exception):
                ended.tell(outcome, code)
        if self._job_ended is not None:
            self._job_ended(ended.running.job, outcome)
