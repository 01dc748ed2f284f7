"""`Notes`: writes the progress and the log lines of one queue's jobs to the store.

No job fails or waits long for its notes. They are written in bounded calls, each is tried a few
times, and the notes that are left then are dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from corral.errors import StoreUnavailable
from corral.job import RunState
from corral.loggers import Logger
from corral.store.codec import FetchedJob
from corral.store.queue_store import MAX_BATCH, Note, QueueStore
from corral.store.replies import ResponseError
from corral.tasks import end_tasks, start_task
from corral.worker.outage import ConnectionReport, Outage

__all__ = ["Notes"]

log = Logger("corral.worker")

GATHER_SECONDS = 0.1
"""How long progress and log lines may gather before they are written."""
CALL_BYTES = 256 * 1024
"""Bytes of notes in one call: even a slow link carries them before the reply is overdue."""
TRIES = 3
"""How often a call is tried."""
AGAIN_SECONDS = 0.5
"""How long the next try waits: notes survive a restart of the store."""
FIRST_SECONDS = 1.0
"""How long endings wait for the notes that were added before them.

If the store takes longer, it gets the endings first.
"""


class Notes:
    """The notes of one queue's jobs that the store does not have yet.

    Attributes:
        due: Whether some of them are to be written now.

    Args:
        store: The queue, on another lane than the one for endings.
        worker: The worker's name; unique among all workers.
        outage: Receives failures of the store.
        kept_logs: Returns how many log lines a job keeps.
        wake: Called when notes are due, or were written.
    """

    def __init__(
        self,
        store: QueueStore,
        worker: str,
        outage: Outage,
        kept_logs: Callable[[FetchedJob], int],
        wake: Callable[[], None],
    ) -> None:
        self._store = store
        self._worker = worker
        self._connection = ConnectionReport(outage)
        self._kept_logs = kept_logs
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._gathered: dict[RunState, FetchedJob] = {}
        self.due = False
        self._seq = 0
        self._dropped = False
        self._writing: asyncio.Task[None] | None = None

    def may_write(self) -> bool:
        """Whether notes are due, and no others are being written."""
        if not self.due:
            return False
        if self._writing is not None and self._writing.done():
            writing, self._writing = self._writing, None
            writing.result()
        return self._writing is None

    def gather(self, run: RunState, fetched: FetchedJob) -> None:
        """Have the notes of a job written soon, together with those that others add meanwhile."""
        if not self._gathered:
            self._loop.call_later(GATHER_SECONDS, self._write_soon)
        self._gathered[run] = fetched

    def finish(self, run: RunState, fetched: FetchedJob) -> None:
        """Have the last notes of a job that has ended written at once, before its ending."""
        if run.buffer:
            self._gathered[run] = fetched
            self.due = True

    async def write(self) -> None:
        """Write the gathered notes, and wait for that at most `FIRST_SECONDS`."""
        self.due = False
        notes: list[Note] = []
        for run, fetched in self._gathered.items():
            with suppress(Exception):  # the processor's code can reach its run state
                notes += _take_notes(run, fetched, self._kept_logs(fetched))
        self._gathered.clear()
        if notes:
            self._writing = writing = start_task(
                self._write(notes), f"corral-notes-{self._store.queue}"
            )
            writing.add_done_callback(lambda _: self._wake())
            await asyncio.wait([writing], timeout=FIRST_SECONDS)

    async def stop(self) -> None:
        """Stop writing."""
        writing, self._writing = self._writing, None
        if writing is not None:
            await end_tasks([writing])

    def _write_soon(self) -> None:
        self.due = True
        self._wake()

    async def _write(self, notes: list[Note]) -> None:
        """Write notes in bounded calls.

        Each call is tried a few times under one number. Notes that are left then are dropped.
        """
        queue = self._store.queue
        for batch in _batches(notes):
            self._seq += 1
            for tried in range(TRIES):
                if tried:
                    await asyncio.sleep(AGAIN_SECONDS)
                try:
                    refused = await self._store.note(batch, self._worker, self._seq)
                    break
                except StoreUnavailable as error:
                    self._connection.report_failure(error)
                    failed: Exception = error
                except ResponseError as error:
                    self._connection.report_answer()
                    log.warning(
                        "progress and log lines dropped: the store refused them",
                        queue=queue,
                        error=str(error),
                    )
                    return
            else:
                if not self._dropped:
                    self._dropped = True
                    log.warning(
                        "progress and log lines dropped: the store is unavailable",
                        queue=queue,
                        error=str(failed),
                    )
                return
            self._connection.report_answer()
            self._dropped = False
            for damage in refused:
                log.warning(
                    "progress or log line dropped: a key of the job is damaged",
                    queue=queue,
                    job_id=damage.name,
                    error=damage.reason,
                )


def _take_notes(run: RunState, fetched: FetchedJob, keep: int) -> Iterator[Note]:
    """Take a job's notes since the last call, as the store takes them."""
    for kind, note in run.take_notes():
        # `Job` makes plain texts only. Anything else is dropped: its methods must not run on the
        # worker's loop.
        text = note.encode(errors="replace") if type(note) is str else note
        if type(text) is bytes:
            yield Note(fetched.stored_id, "p" if kind == "progress" else "l", text, keep)


def _batches(notes: Sequence[Note]) -> Iterator[list[Note]]:
    """Divide notes into as few calls as possible."""
    batch: list[Note] = []
    size = 0
    for note in notes:
        size += len(note.text)
        if batch and (size > CALL_BYTES or len(batch) == MAX_BATCH):
            yield batch
            batch, size = [], len(note.text)
        batch.append(note)
    if batch:
        yield batch
