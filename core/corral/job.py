"""`Job`: what a processor is given.

Data, and three things to use while it runs: `progress`, `log` and `cancelled`.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, cast

from pydantic_core import from_json, to_json
from typing_extensions import TypeVar

from corral.frozen_for_checkers import frozen_for_checkers
from corral.payload import Payload
from corral.redactor import Redactor

if TYPE_CHECKING:
    from corral.queue import Queue

__all__ = [
    "KEEP_LOGS",
    "MAX_LINE_BYTES",
    "MAX_PROGRESS_BYTES",
    "Job",
    "P",
    "RunState",
    "current_job",
    "cut_to",
    "run_state",
]

P = TypeVar("P", bound=Payload, default=Any)

MAX_KEY_LENGTH = 128
"""Characters of an idempotency key: it is a legal job id, and those have at most 128."""
MAX_LINE_BYTES = 8 * 1024
"""A longer log line is cut: the board shows lines, and the store holds them in memory."""
MAX_PROGRESS_BYTES = 64 * 1024
"""Larger progress is refused: the store keeps it in memory twice (hash and event), as a result."""
KEEP_LOGS = 1_000
"""How many log lines a job keeps, the last ones, if neither the job nor a setting says."""
MAX_WAITING_CHARS = KEEP_LOGS * MAX_LINE_BYTES
"""Characters of notes that may wait for the worker, for example during an outage of the store.

Twice as many may gather before they are counted again and the oldest are dropped.
"""

JobNote = tuple[Literal["progress", "log"], bytes | str]
"""Progress as JSON text, or a log line."""


@dataclass(slots=True, eq=False)
class RunState:
    """What belongs to one run of a job and is not shown to its author.

    The processor's threads add notes (progress and log lines), and the worker takes them to write
    them. Notes are bounded, so that a flood of them costs nothing: a job keeps only its last lines,
    and only those wait here.

    Attributes:
        enqueued_ms: When the job was enqueued: Unix milliseconds, by the store's clock.
        processed_ms: When this run started: Unix milliseconds, by the store's clock.
        scheduled_ms: When the job was due first, in Unix milliseconds.
        carrier_text: The carrier as it is stored, or None if there is none.
        fetched: The job as the worker fetched it, or None outside a worker.
        max_notes: How many of the last notes wait for the worker: at least as many as the job keeps
            lines.
        cancelled: Whether the worker no longer wants the result: the lock is lost, or the worker
            shuts down.
        on_note: Called with this object and `fetched`, on the processor's thread, when there is
            something to write; then not again until the worker has taken the notes. None outside a
            worker and after the run.
        seconds: How long the processor ran, set when it has ended; 0 for a job that was refused
            without running.
        redactor: Masks the job's secrets in its log lines; made by the first line that needs it.
        has_warned: Whether the log has a warning that this job tried to cancel other tasks.
        trace: The ids of the trace and of the span of this run, if spans are recorded.
        last_progress: The last progress that the worker has not taken, as JSON text: log lines do
            not push it out.
        chars: How many characters of notes were added since the worker took them last, or since
            they were counted.
        is_announced: Whether `on_note` was called and the worker has not taken the notes yet.
        buffer: The notes, made with the first one: most jobs write none. See `notes`.
    """

    enqueued_ms: int = 0
    processed_ms: int = 0
    scheduled_ms: int = 0
    carrier_text: str | None = field(default=None, repr=False)
    fetched: object = field(default=None, repr=False)
    max_notes: int = field(default=KEEP_LOGS, repr=False)
    cancelled: bool = False
    on_note: Callable[[RunState, Any], object] | None = None
    seconds: float = 0.0
    redactor: Redactor | None = field(default=None, repr=False)
    has_warned: bool = field(default=False, repr=False)
    trace: tuple[int, int] | None = field(default=None, repr=False)
    last_progress: bytes | None = field(default=None, repr=False)
    chars: int = field(default=0, repr=False)
    is_announced: bool = field(default=False, repr=False)
    buffer: deque[JobNote] | None = field(default=None, repr=False)

    @property
    def notes(self) -> deque[JobNote]:
        """The last notes in order, until the worker takes them.

        At most `max_notes`, with at most 16 Mi characters together.
        """
        if self.buffer is None:
            # Two threads may add their first notes at once, and neither note may be lost.
            with _FIRST_NOTE:
                if self.buffer is None:
                    self.buffer = deque(maxlen=self.max_notes)
        return self.buffer

    def add_note(self, kind: Literal["progress", "log"], text: bytes | str) -> None:
        """Keep a note until the worker writes it. Callable from any thread."""
        if kind == "progress" and isinstance(text, bytes):
            self.last_progress = text
        self.notes.append((kind, text))
        self.chars += len(text)
        if self.chars > 2 * MAX_WAITING_CHARS:
            self._drop_oldest()
        on_note = self.on_note  # the worker removes it when the run ends, on another thread
        if on_note is not None and not self.is_announced:
            self.is_announced = True
            on_note(self, self.fetched)

    def take_notes(self) -> list[JobNote]:
        """Return the notes since the last call, as far as they were kept, and forget them.

        The last progress is always among them.
        """
        self.is_announced = False  # first: a note that comes from here on is announced again
        last, self.last_progress = self.last_progress, None
        self.chars = 0
        taken: list[JobNote] = []
        if self.buffer is not None:
            with suppress(IndexError):  # a thread that adds notes meanwhile may push some out
                taken.extend(self.buffer.popleft() for _ in range(len(self.buffer)))
        if last is not None and not any(text is last for _, text in taken):
            taken.append(("progress", last))
        return taken

    def _drop_oldest(self) -> None:
        """Drop the oldest notes until the rest is within `MAX_WAITING_CHARS`.

        They are counted anew, because `chars` includes what the deque has pushed out.
        """
        with suppress(IndexError):
            self.chars = sum(len(text) for _, text in self.notes.copy())
            while self.chars > MAX_WAITING_CHARS:
                self.chars -= len(self.notes.popleft()[1])


_FIRST_NOTE = threading.Lock()
"""Held while a run's `buffer` is made: less than a microsecond, by jobs that write notes."""


@frozen_for_checkers(frozen=True, slots=True, eq=False)
class Job(Generic[P]):
    """One job, as its processor sees it.

    It is read-only: type checkers refuse an assignment to a field. Python does not, because one job
    is made per run, and a frozen object costs a microsecond more. An assignment changes nothing in
    the store.

    `corral.testing.job` makes one for a test.

    Attributes:
        id: Unique within its queue.
        queue: The queue it came from.
        name: BullMQ's job name; the queue's own name if Corral wrote the job.
        payload: The validated payload.
        attempt: Which attempt this is, from 1.
        max_attempts: After this many failed attempts the job is failed for good.
        starts: How often the job was started, this start included: attempts, and starts that ended
            with a crash, a snooze or a hand-back.
    """

    id: str
    queue: Queue[P]
    name: str
    payload: P
    attempt: int
    max_attempts: int
    starts: int
    _run: RunState = field(repr=False)

    @property
    def enqueued_at(self) -> datetime:
        """When the job was enqueued (aware, UTC)."""
        return datetime.fromtimestamp(self._run.enqueued_ms / 1000, UTC)

    @property
    def processed_on(self) -> datetime:
        """When this start happened (aware, UTC)."""
        return datetime.fromtimestamp(self._run.processed_ms / 1000, UTC)

    @property
    def scheduled_for(self) -> datetime:
        """The tick that a scheduled job runs for, or `enqueued_at` plus the delay (aware, UTC)."""
        return datetime.fromtimestamp(self._run.scheduled_ms / 1000, UTC)

    @property
    def duration(self) -> timedelta:
        """How long the processor ran; zero until it has ended. For `corral_job_ended`."""
        return timedelta(seconds=self._run.seconds)

    @property
    def idempotency_key(self) -> str:
        """`<queue>.<id>`, the same on every attempt.

        Pass it to a service that recognises repeated requests by their key.
        """
        return self.key()

    @property
    def carrier(self) -> dict[str, str]:
        """The job's trace context, as `corral_enqueuing` or another client wrote it."""
        try:
            held: object = from_json(self._run.carrier_text or "{}")
        except ValueError:  # another client wrote something else
            return {}
        members = cast("dict[str, object]", held) if isinstance(held, dict) else {}
        return {name: text for name, text in members.items() if isinstance(text, str)}

    def key(self, follow_up: str | None = None) -> str:
        """Return a key derived from this job, the same on every attempt.

        It is always a legal job id, so that a follow-up job can be enqueued under it exactly once.
        Enqueue it with `if_failed="retry"` if a later run of this job is to repeat a follow-up that
        has failed.

        Args:
            follow_up: Distinguishes several keys of one job.

        Returns:
            `<queue>.<id>` or `<queue>.<id>.<follow_up>`; hashed if that would be longer than 128
            characters or has a character that is not allowed in a job id.
        """
        parts = (
            (self.queue.name, self.id)
            if follow_up is None
            else (self.queue.name, self.id, follow_up)
        )
        plain = ".".join(parts)
        if len(plain) <= MAX_KEY_LENGTH and all(
            c.isascii() and (c.isalnum() or c in "_.~-") for c in plain
        ):
            return plain
        return f"{self.queue.name}.{hashlib.sha256(plain.encode()).hexdigest()[:40]}"

    @property
    def fence(self) -> tuple[int, int]:
        """A pair that grows with every start: a database can refuse an older start's write by it.

        It is the Unix milliseconds at which the job was enqueued, and `starts`.
        """
        return (self._run.enqueued_ms, self.starts)

    @property
    def cancelled(self) -> bool:
        """Whether the result is no longer wanted; a long `def` processor checks it and returns."""
        return self._run.cancelled

    def progress(self, value: Any) -> None:
        """Report progress.

        Callable from any thread; written within 100 ms, and always before the outcome.

        Args:
            value: A number (0 to 100, by convention) or anything that serialises to JSON, at most
                64 KiB of it.

        Raises:
            PydanticSerializationError: The value does not serialise to JSON.
            ValueError: Its JSON text is larger than 64 KiB.
        """
        text = to_json(value, inf_nan_mode="null")
        if len(text) > MAX_PROGRESS_BYTES:
            raise ValueError(f"the progress has {len(text)} bytes, more than {MAX_PROGRESS_BYTES}")
        self._run.add_note("progress", text)

    def log(self, text: str) -> None:
        """Add a line to the job's own log, which the board shows.

        Callable from any thread; written within 100 ms.

        A job keeps its last 1,000 lines, or as many as its `keepLogs` or `CORRAL_WORKER__KEEP_LOGS`
        says. Lines that cannot be written to the store in three tries are dropped, because the
        job's ending does not wait for them.

        Args:
            text: The line. One of more than 8 KiB is cut and ends with `…`. Anything but a string
                is converted by `str` in this call, which raises what that raises.
        """
        # A subclass of str becomes a plain one: its methods must not run on the worker's loop.
        line = text if type(text) is str else str.__str__(str(text))
        self._run.add_note(
            "log", line if len(line) * 4 <= MAX_LINE_BYTES else cut_to(line, MAX_LINE_BYTES)
        )


def cut_to(text: str, most_bytes: int) -> str:
    """Cut a text to at most `most_bytes` bytes of UTF-8.

    A text that was cut ends with a whole character and `…`.
    """
    raw = text[: most_bytes + 1].encode(errors="replace")
    return (
        raw.decode()
        if len(raw) <= most_bytes
        else raw[: most_bytes - 3].decode(errors="ignore") + "…"
    )


current_job: ContextVar[Job[Any] | None] = ContextVar("corral_current_job", default=None)
"""The job that the current task or thread processes. Log lines take their context from it."""


def run_state(job: Job[Any]) -> RunState:
    """Return the run state of a job, for the framework."""
    return job._run  # pyright: ignore[reportPrivateUsage]  # noqa: SLF001  # hidden from authors only
