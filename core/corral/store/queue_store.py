"""`QueueStore`: one queue's keys, and the few operations that change them.

Each operation is one script, hence atomic.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corral.errors import CorralError, StoreUnavailable
from corral.job_state import JobState
from corral.options import JobOptions
from corral.store.clock import Clock
from corral.store.codec import (
    Advanced,
    Damage,
    Ending,
    FetchedJob,
    NewJob,
    decode_damage,
    decode_job,
    decode_pending_successors,
    encode_declared,
    encode_defaults,
    encode_endings,
    encode_new_jobs,
    made_by_others,
)
from corral.store.connection import Link, ThreadLink
from corral.store.keys import (
    COMPLETED,
    CONTAINERS,
    FAILED,
    LISTS,
    MARKER,
    READY,
    call_key,
    notes_key,
    queue_base,
)
from corral.store.replies import ResponseError
from corral.store.rights import missing_rights
from corral.store.scripts import run, run_blocking, script

__all__ = [
    "BATCH_BYTES",
    "FETCH_BYTES",
    "MAX_BATCH",
    "Note",
    "QueueStore",
    "StaleCall",
    "Stalled",
    "batches",
    "job_bytes",
]

MAX_BATCH = 500
"""Jobs per script call.

Lua can unpack about 8,000 values, and a longer script would keep other clients waiting.
"""
BATCH_BYTES = 1024 * 1024
"""Bytes of new jobs, or of endings, per script call; a larger job or ending goes alone.

At 32 KiB/s, the slowest link that is supported, they take half a minute.
"""
FETCH_BYTES = 256 * 1024
"""How many bytes one fetch may bring while the speed of the link is unknown: 8 s on the slowest."""
METRICS_MINUTES = 20_160
"""How many minutes of counts are kept: two weeks."""
LAST_CALL_MS = 60_000
"""How long the record of a worker's last call is kept, as `release.lua` keeps it."""

_NOTHING_ODD = (0, (), 0, (), (), b"", 0, 0)
"""What a short reply of `advance.lua` leaves out."""


class StaleCall(CorralError):
    """The store has already answered a later call of this worker, so this one changed nothing.

    It was sent earlier, and the network delivered it late.
    """


@dataclass(frozen=True, slots=True)
class Stalled:
    """What a stalled check found.

    Attributes:
        job_ids: The jobs that went back to the waiting list.
        wait_ms: When the next check is allowed, in milliseconds from now.
        quarantined: The damaged keys that were moved into the quarantine.
    """

    job_ids: Sequence[str]
    wait_ms: int
    quarantined: Sequence[Damage] = ()


@dataclass(frozen=True, slots=True)
class Note:
    """Progress, or a log line, of a running job.

    Attributes:
        job_id: The job.
        kind: `"p"`: progress, as JSON text. `"l"`: one log line.
        text: The progress or the line.
        keep: How many log lines the job keeps, 0 for all.
    """

    job_id: str | bytes
    kind: str
    text: str | bytes
    keep: int = 0


def job_bytes(job: NewJob) -> int:
    """How many bytes a job's payload and options have."""
    return len(job.data) + len(job.opts)


def batches(jobs: Iterable[NewJob]) -> Iterator[list[NewJob]]:
    """Cut jobs into batches for `QueueStore.add`: at most `MAX_BATCH`, and about `BATCH_BYTES`.

    Args:
        jobs: Read only as far as the next batch needs.
    """
    batch: list[NewJob] = []
    total = 0
    for job in jobs:
        size = job_bytes(job)
        if batch and (len(batch) == MAX_BATCH or total + size > BATCH_BYTES):
            yield batch
            batch, total = [], 0
        batch.append(job)
        total += size
    if batch:
        yield batch


class QueueStore:
    """One queue in the store.

    Attributes:
        prefix: The first part of its keys.
        queue: Its name.
        base: `<prefix>:<queue>:`, with which all of its keys begin.
        clock: What every script adds to the store's time.
        lane: Which of a worker's connections this is, from 0.

    Args:
        link: The connection.
        options: The queue's own. Their retention holds for jobs that have none, see
            `codec.encode_endings`.
        lane: Calls of one worker that may be on their way at the same time go through stores of
            different lanes.
        clock: In tests, shared by all whose time moves together.
    """

    def __init__(
        self,
        link: Link,
        prefix: str,
        queue: str,
        *,
        options: JobOptions | None = None,
        lane: int = 0,
        clock: Clock | None = None,
    ) -> None:
        self.prefix = prefix
        self.queue = queue
        self.base = queue_base(prefix, queue)
        self.clock = clock or Clock()
        self._link = link
        self._options = options or JobOptions()
        self.lane = lane

    @property
    def bytes_per_second(self) -> float | None:
        """How fast the last large reply came; None before there was one."""
        return self._link.bytes_per_second

    @property
    def unheard_seconds(self) -> float:
        """For how long no byte has come in the middle of a reply; infinite outside of one."""
        return self._link.unheard_seconds

    @property
    def is_connecting(self) -> bool:
        """As `Link.is_connecting`: whether a call waits for its connection."""
        return self._link.is_connecting

    @property
    def offset_ms(self) -> int:
        """Added to the store's time by every script; zero but in tests."""
        return self.clock.offset_ms

    async def add(
        self, jobs: Sequence[NewJob], *, replicated: bool = False
    ) -> list[bool | JobState]:
        """Write jobs.

        May be repeated after a lost reply: a job that an earlier try has made is not made again,
        unless it has run and been removed in between. Its retention decides how long it stays.
        Failed jobs that have the id of a job with `retries_failed` wait again.

        Args:
            jobs: One of `batches`.
            replicated: Whether to wait until a replica has them, see `Link.call`.

        Returns:
            One entry per job: True where this call, or an earlier try of it, made the job. Else its
            id existed: the state of the job that has it, or False where that state is not known (a
            container is damaged, or none holds the job).

        Raises:
            StoreUnavailable: The store is away, or refuses to write. Where its `outcome` is
                `"refused"`, no job was written, and none is retried. Where no replica has confirmed
                the jobs, it is `"unknown"`.
            ResponseError: A key of the queue is damaged; it is named, and no job was written.
        """
        arguments = [self.offset_ms, *encode_new_jobs(jobs)]
        made = await run(self._link, script("add"), [self.base], arguments, replicated=replicated)
        if isinstance(made, int):
            return [True] * made
        written = [each == 1 or (bool(each) and JobState(each.decode())) for each in made]
        failed = [
            place
            for place, job in enumerate(jobs)
            if job.retries_failed and written[place] == JobState.FAILED
        ]
        if failed:
            await self._retry_existing(jobs, failed, written, replicated=replicated)
        return written

    async def _retry_existing(
        self,
        jobs: Sequence[NewJob],
        failed: Sequence[int],
        written: list[bool | JobState],
        *,
        replicated: bool,
    ) -> None:
        """Let jobs run again whose ids a call has enqueued, and which have failed.

        The state of a job that cannot run again, because a key is damaged, becomes False.

        Args:
            jobs: The call's.
            failed: The places of those jobs.
            written: The call's results.
            replicated: As for `add`.

        Raises:
            StoreUnavailable: As for `add`; its outcome is always `"unknown"`: the call may have
                made other jobs.
        """
        arguments = [self.offset_ms, *(jobs[place].id for place in failed)]
        try:
            codes = await run(
                self._link,
                script("retry_existing"),
                [self.base],
                arguments,
                replicated=replicated,
            )
        except StoreUnavailable as error:
            error.outcome = "unknown"
            raise
        for place, code in zip(failed, codes, strict=True):
            if isinstance(code, bytes):
                written[place] = False

    async def advance(
        self,
        worker: str,
        seq: int,
        endings: Sequence[Ending],
        want: int,
        *,
        lock_ms: int = 30_000,
        ticks: bytes = b"{}",
        suspects: int = MAX_BATCH,
        confirm_from: int | None = None,
        max_bytes: int = FETCH_BYTES,
    ) -> Advanced:
        """Finish jobs and fetch more.

        May be repeated: the same `seq` again changes nothing and gives the same reply.

        Args:
            worker: The worker's name; unique among all workers of the queue.
            seq: Counts up with each call of this worker. In each lane only one call may be on its
                way.
            endings: The jobs that ended, at most `MAX_BATCH`; a `LeaseLost` among them is refused.
            want: How many jobs to fetch at most, up to `MAX_BATCH`.
            lock_ms: How long a fetched job's lock lives without renewal.
            ticks: The coming ticks of the queue's cron schedules, made by `schedules.encode_ticks`.
            suspects: How many of the fetched jobs may have stalled before.
            confirm_from: A fetched job that stalled so often must be confirmed (`confirm`) before
                it runs. If the worker dies before that, it has not run the job, and no stall is
                counted. None: no job needs it.
            max_bytes: How large the fetched jobs may be together; the first one may be larger.

        Returns:
            The code of each ending, and the fetched jobs.

        Raises:
            StoreUnavailable: The store is away, or refuses to write.
            StaleCall: A later call of this worker was answered already.
            ResponseError: The script failed; `DAMAGED …` where `meta` is no hash.
        """
        arguments: list[Any] = [seq, worker, want, lock_ms, self.offset_ms, METRICS_MINUTES, ticks]
        arguments += [suspects, "" if confirm_from is None else confirm_from, max_bytes]
        arguments += encode_endings(endings, self._options)
        keys = [self.base, self._record(worker, self.lane)]
        try:
            reply = await run(self._link, script("advance"), keys, arguments)
        except ResponseError as error:
            if str(error).startswith("STALECALL"):
                raise StaleCall(f"call {seq} of worker {worker} came after a later one") from error
            raise
        now, due, limited, codes, flat, *odd = reply
        repeated, pending, held, refused, reports, broken, others_count, cut = odd or _NOTHING_ODD
        token = f"{worker}:{seq}"
        jobs: list[FetchedJob] = []
        unread: list[FetchedJob] = []
        at = 0
        while at < len(flat):
            first = at + 2
            job_id, at = flat[at], first + flat[at + 1]
            fetched = decode_job(job_id, flat[first:at], token, now, started=repeated == 1)
            (jobs if at > first else unread).append(fetched)
        return Advanced(
            now_ms=now,
            due_ms=None if due < 0 else due,
            limited_ms=limited,
            codes=codes or [0] * len(endings),
            jobs=jobs,
            unread=unread,
            cut=cut == 1,
            repeated=repeated == 1,
            pending_successors=decode_pending_successors(pending),
            held=held,
            refused={
                place - 1: why.decode(errors="replace")
                for place, why in zip(refused[::2], refused[1::2], strict=True)
            },
            quarantined=decode_damage(reports),
            broken=broken.decode(errors="replace"),
            others_count=others_count,
        )

    async def mend(self) -> list[Damage]:
        """Move keys of a wrong type away from the names of the queue's own keys.

        Raises:
            StoreUnavailable: The store is away, or refuses to write.
            ResponseError: `DAMAGED …`: a key that only an operator can repair.
        """
        return decode_damage(await self.operate("mend"))

    async def confirm(self, job: FetchedJob) -> None:
        """Confirm that a job is about to start, see `confirm_from` of `advance`.

        Raises:
            StoreUnavailable: The store is away, or refuses to write.
        """
        await self.operate("confirm", job.stored_id)

    def extend(
        self,
        link: ThreadLink,
        leases: Sequence[tuple[str | bytes, str]],
        lock_ms: int,
        *,
        worker: str = "",
        calls: Sequence[tuple[int, int]] = (),
    ) -> tuple[set[int], set[int]]:
        """Renew locks, from the lease thread.

        Args:
            link: The thread's own connection.
            leases: `(job id, token)` pairs.
            lock_ms: How long the locks live from now.
            worker: The worker whose calls are on their way.
            calls: `(lane, seq)` of each: the locks of the jobs that it has fetched are renewed,
                too.

        Returns:
            The places in `leases` of jobs whose lock is not held any more, and the places in
            `calls` of calls whose locks are not all renewed: one is not held any more, or the store
            has no record of the call, because it has not arrived or its record has expired.

        Raises:
            StoreUnavailable: The store is away, or refuses to write.
        """
        lost: set[int] = set()
        not_renewed: set[int] = set()
        keys = [self.base, *(self._record(worker, lane) for lane, _ in calls)]
        for start in range(0, max(len(leases), 1), MAX_BATCH):
            arguments: list[Any] = [lock_ms, worker, *(seq for _, seq in calls)]
            for job_id, token in leases[start : start + MAX_BATCH]:
                arguments += [job_id, token]
            places = run_blocking(link, script("extend"), keys, arguments)
            lost.update(start + place for place in places if place >= 0)
            not_renewed.update(-place - 1 for place in places if place < 0)
        return lost, not_renewed

    async def renew(self, jobs: Sequence[FetchedJob], lock_ms: int) -> list[FetchedJob]:
        """Renew the locks of jobs that were fetched and have not started.

        Args:
            jobs: The jobs, at most `MAX_BATCH`.
            lock_ms: How long the locks live from now.

        Returns:
            The jobs whose lock is still held.

        Raises:
            StoreUnavailable: The store is away, or refuses to write.
        """
        arguments: list[Any] = [lock_ms, ""]
        for job in jobs:
            arguments += [job.stored_id, job.token]
        lost = set(await run(self._link, script("extend"), [self.base], arguments))
        return [job for place, job in enumerate(jobs) if place not in lost]

    async def check_stalled(self, interval_ms: int, max_stalled: int) -> Stalled:
        """Put jobs of dead workers back to the head of the waiting list.

        Does nothing while the interval of another check runs.

        Args:
            interval_ms: How long no other check runs.
            max_stalled: How often a job may stall before the next worker fails it.

        Raises:
            StoreUnavailable: The store is away, or refuses to write.
        """
        arguments = [interval_ms, max_stalled, self.offset_ms]
        wait_ms, ids, reports = await run(self._link, script("stalled"), [self.base], arguments)
        return Stalled(
            [job_id.decode(errors="replace") for job_id in ids], wait_ms, decode_damage(reports)
        )

    async def remove_due(self) -> None:
        """Remove finished jobs of ours whose default retention is over, at most 1,000 per state.

        Endings do the same. This is for a queue in which no job ends.

        Raises:
            StoreUnavailable: The store is away, or refuses to write.
            ResponseError: The script failed.
        """
        await self.operate("due", *encode_defaults(self._options))

    async def count_finished_jobs_at_risk(self) -> Mapping[str, int]:
        """How many finished jobs the declared retention would remove, if others made some of them.

        Returns:
            Their number, by `completed` and `failed`; empty where all jobs of a sample are
            Corral's own.

        Raises:
            StoreUnavailable: The store is away.
        """
        if self._options.keep_completed is None and self._options.keep_failed is None:
            return {}
        found = await self.operate("history", *encode_declared(self._options))
        counts = zip((COMPLETED, FAILED), found, strict=True)
        return {name: due for name, (due, sample) in counts if made_by_others(sample)}

    async def release(self, worker: str, max_stalled: int, *, lanes: int = 1) -> list[str]:
        """Do at once what the stalled check would do to the jobs of a worker that is dead.

        Only locks with the worker's own tokens are touched. A call of the dead worker that arrives
        later changes nothing.

        Args:
            worker: Its name; no later worker may have the same.
            max_stalled: As for `check_stalled`.
            lanes: How many lanes its calls went through.

        Returns:
            The jobs' ids.

        Raises:
            StoreUnavailable: The store is away, or refuses to write.
        """
        keys, arguments = self._release(worker, max_stalled, lanes)
        ids = await run(self._link, script("release"), keys, arguments)
        return [job_id.decode(errors="replace") for job_id in ids]

    def give_up(
        self,
        link: ThreadLink,
        worker: str,
        endings: Sequence[Ending],
        max_stalled: int,
        *,
        lanes: int,
    ) -> int:
        """Write the last endings of a worker whose event loop is stuck, and release its other jobs.

        From another thread.

        Args:
            link: The thread's own connection.
            worker: The worker's name.
            endings: How its jobs ended, as far as that is known.
            max_stalled: As for `release`.
            lanes: As for `release`: a call on its way may have fetched jobs.

        Returns:
            How many jobs were released beside `endings`.

        Raises:
            StoreUnavailable: The store is away, or refuses to write.
        """
        last = f"{worker}:last"  # with numbers of its own: the loop may have used any
        keys = [self.base, self._record(last, 0)]
        for seq, start in enumerate(range(0, len(endings), MAX_BATCH), 1):
            arguments = [
                seq,
                last,
                0,
                LAST_CALL_MS,
                self.offset_ms,
                METRICS_MINUTES,
                b"{}",
                0,
                "",
                0,
            ]
            batch = encode_endings(endings[start : start + MAX_BATCH], self._options)
            run_blocking(link, script("advance"), keys, [*arguments, *batch])
        return len(
            run_blocking(link, script("release"), *self._release(worker, max_stalled, lanes))
        )

    def _release(self, worker: str, max_stalled: int, lanes: int) -> tuple[list[str], list[Any]]:
        keys = [self.base, *(self._record(worker, lane) for lane in range(lanes))]
        return keys, [worker, max_stalled, self.offset_ms]

    async def note(self, notes: Iterable[Note], worker: str = "", seq: int = 0) -> list[Damage]:
        """Write progress and log lines of running jobs.

        May be repeated under a number: the same `seq` again, or an earlier one, writes nothing.

        Args:
            notes: At most `MAX_BATCH`.
            worker: The worker's name; unique among all workers of the queue.
            seq: Counts up with each call of this worker; only one may be on its way. 0: the call is
                not repeated.

        Returns:
            The jobs for which something could not be written, because their keys are damaged.

        Raises:
            StoreUnavailable: The store is away, or refuses to write.
        """
        arguments: list[Any] = [seq]
        for note in notes:
            arguments += [note.job_id, note.kind, note.text, note.keep]
        keys = [self.base, notes_key(self.base, worker)]
        return (
            decode_damage(await run(self._link, script("note"), keys, arguments))
            if len(arguments) > 1
            else []
        )

    async def operate(self, name: str, *arguments: Any) -> Any:
        """Run a script that needs nothing but this queue's keys and the time.

        Args:
            name: The script; its first argument is `offset_ms`.
            arguments: The rest of them.

        Raises:
            StoreUnavailable: The store is away, or refuses to write.
        """
        return await run(self._link, script(name), [self.base], [self.offset_ms, *arguments])

    async def missing_rights(self) -> str:
        """Which rights of a worker the store's user lacks; see `corral.store.rights`.

        Raises:
            StoreUnavailable: The store is away.
        """
        return await missing_rights(self._link, self.prefix, self.queue, "worker")

    async def signal(self) -> None:
        """Put back the marker that a cancelled wait may have taken.

        A marker too many costs an empty fetch.

        Raises:
            StoreUnavailable: The store is away, or refuses to write.
        """
        await self._link.call("ZADD", self.base + MARKER, 0, READY)

    async def counts(self) -> dict[str, int]:
        """How many jobs are in each container, by the container's name.

        Raises:
            StoreUnavailable: The store is away.
        """
        source = (
            "return {"
            + ",".join(
                f"redis.call('{'LLEN' if name in LISTS else 'ZCARD'}', KEYS[1] .. '{name}')"
                for name in CONTAINERS
            )
            + "}"
        )
        replies = await self._link.call("EVAL", source, 1, self.base)
        return dict(zip(CONTAINERS, replies, strict=True))

    def _record(self, worker: str, lane: int) -> str:
        return call_key(self.base, worker, lane)

    async def close(self) -> None:
        """Close the connection; a later call opens another."""
        await self._link.close()
