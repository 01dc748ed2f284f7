"""`Notes`: what the jobs of one queue say, progress and log lines, on its way to the store.

Words are never worth a job: they are written in bounded calls, each in a few tries, and what is
left then is dropped. No ending waits long for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from corral.errors import StoreUnavailable
from corral.job import Run
from corral.loggers import Logger
from corral.store.codec import FetchedJob
from corral.store.queue_store import MAX_BATCH, Note, QueueStore
from corral.store.replies import ResponseError
from corral.tasks import start_task
from corral.worker.outage import ConnectionReport, Outage
from corral.worker.stopping import end_tasks

__all__ = ["Notes"]

log = Logger("corral.worker")

GATHER_SECONDS = 0.1
"""How long progress and log lines may gather before they are written."""
CALL_BYTES = 256 * 1024
"""How much of them one call writes: even a slow link carries it within the time that a reply may
take.
"""
TRIES = 3
"""How often a call is tried."""
AGAIN_SECONDS = 0.5
"""How long the next try waits: a store that is restarted loses nobody's words."""
FIRST_SECONDS = 1.0
"""How long endings wait for the words that were said before them.

A store that takes longer gets the endings first.
"""


class Notes:
    """What the jobs of one queue have said and the store does not have yet.

    Attributes:
        due: Whether some of it is to be written now.

    Args:
        store: The queue, on another lane than its endings take.
        worker: The worker's name; unique among all workers.
        outage: Told when the store is away.
        kept_logs: How many log lines a job keeps.
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
        self._contact = ConnectionReport(outage)
        self._kept_logs = kept_logs
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._speaking: dict[Run, FetchedJob] = {}
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

    def spoke(self, run: Run, fetched: FetchedJob) -> None:
        """A processor said something: it is written soon, with what others say meanwhile."""
        if not self._speaking:
            self._loop.call_later(GATHER_SECONDS, self._write_soon)
        self._speaking[run] = fetched

    def ended(self, run: Run, fetched: FetchedJob) -> None:
        """A job has ended: what it said last is written at once, before its ending."""
        if run.words:
            self._speaking[run] = fetched
            self.due = True

    async def write(self) -> None:
        """Write what jobs have said, and wait for that, but not for long: nothing else may wait for
        words.
        """
        self.due = False
        notes: list[Note] = []
        for run, fetched in self._speaking.items():
            with suppress(Exception):  # `job.run` is in the processor's hands
                notes += _notes_of(run, fetched, self._kept_logs(fetched))
        self._speaking.clear()
        if notes:
            self._writing = writing = start_task(
                self._write(notes), f"corral-notes-{self._store.queue}"
            )
            writing.add_done_callback(lambda _: self._wake())
            await asyncio.wait([writing], timeout=FIRST_SECONDS)

    async def stop(self) -> None:
        """Write no more."""
        writing, self._writing = self._writing, None
        if writing is not None:
            await end_tasks([writing])

    def _write_soon(self) -> None:
        self.due = True
        self._wake()

    async def _write(self, notes: list[Note]) -> None:
        """Write notes in bounded calls, each in a few tries under one number; what is left then is
        given up.
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
                    self._contact.failed(error)
                    failed: Exception = error
                except ResponseError as error:
                    self._contact.answered()
                    log.warning(
                        "progress and log lines refused by the store", queue=queue, error=str(error)
                    )
                    return
            else:
                if not self._dropped:
                    self._dropped = True
                    log.warning("progress and log lines dropped", queue=queue, error=str(failed))
                return
            self._contact.answered()
            self._dropped = False
            for damage in refused:
                log.warning(
                    "progress or log line lost: a key of the job is damaged",
                    queue=queue,
                    job_id=damage.name,
                    error=damage.reason,
                )


def _notes_of(run: Run, fetched: FetchedJob, keep: int) -> Iterator[Note]:
    """What a job has said since it was asked last."""
    for kind, said in run.take():
        # `Job` has made a plain text of everything: nobody else's method is called on the worker's
        # loop.
        text = said.encode(errors="replace") if type(said) is str else said
        if type(text) is bytes:
            yield Note(fetched.stored_id, "p" if kind == "progress" else "l", text, keep)


def _batches(notes: Sequence[Note]) -> Iterator[list[Note]]:
    """Notes in as few calls as may be."""
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
