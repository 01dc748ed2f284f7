"""`Job`: what a processor is given.

Data, and three things to say while running: progress, log, cancelled.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
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
    "Run",
    "current_job",
    "cut_to",
]

P = TypeVar("P", bound=Payload, default=Any)

MAX_KEY_LENGTH = 128
"""An idempotency key is a legal job id, and those end at 128 characters."""
MAX_LINE_BYTES = 8 * 1024
"""A longer log line is cut: the board shows lines, and the store holds them in memory."""
MAX_PROGRESS_BYTES = 64 * 1024
"""More progress is refused: it is kept in the store's memory, twice (hash and event), as a result
is.
"""
KEEP_LOGS = 1_000
"""How many log lines a job keeps, the last ones, where neither the job nor a setting says."""
MOST_WAITING = KEEP_LOGS * MAX_LINE_BYTES
"""So many characters may wait for the worker, and as many again before they are counted: in an
outage, say.
"""

Said = tuple[Literal["progress", "log"], bytes | str]


@dataclass(slots=True, eq=False)
class Run:
    """The part of a running job that changes: written by the processor, from any thread, and read
    by the worker.

    What it says is bounded, so that a flood costs nothing: a job keeps its last lines, and those
    are what waits here.

    Attributes:
        cancelled: Whether the worker no longer wants the result: the lock is lost, or it shuts
        down.
        spoke: Called with this object and with `stored`, from the processor's thread, when there is
            something to write: once, until the worker has taken it. None outside a worker.
        stored: The job as its worker knows it, or None outside a worker.
        kept: How many of the last things that were said wait for the worker: no fewer than the job
        keeps lines.
        seconds: How long the processor ran, as soon as it has ended; 0 for a job that was refused
        without running.
        redactor: Masks what is secret in the job, where its log lines need that; made by the first
        of them.
        meddled: Whether it was logged that the job cancelled tasks that are not its own.
        trace: The ids of the trace and of the span that the run is part of, where spans are
        recorded.
        progress: The last progress that the worker has not taken, as JSON text: lines do not push
        it out.
        size: How many characters were said since the worker took them last, or since they were
        counted.
        waits: Whether the worker knows that something was said.
        words: What `said` returns; None as long as nothing was said, as by most jobs.
    """

    cancelled: bool = False
    spoke: Callable[[Run, Any], object] | None = None
    stored: object = field(default=None, repr=False)
    kept: int = field(default=KEEP_LOGS, repr=False)
    seconds: float = 0.0
    redactor: Redactor | None = field(default=None, repr=False)
    meddled: bool = field(default=False, repr=False)
    trace: tuple[int, int] | None = field(default=None, repr=False)
    progress: bytes | None = field(default=None, repr=False)
    size: int = field(default=0, repr=False)
    waits: bool = field(default=False, repr=False)
    words: deque[Said] | None = field(default=None, repr=False)

    @property
    def said(self) -> deque[Said]:
        """Progress, as JSON text, and log lines, in order, until the worker takes them.

        They are the last ones, `kept` of them and at most 16 Mi characters.
        """
        if self.words is None:
            with (
                _FIRST_WORDS
            ):  # two threads may begin to speak at once, and neither's words may be lost
                if self.words is None:
                    self.words = deque(maxlen=self.kept)
        return self.words

    def say(self, kind: Literal["progress", "log"], text: bytes | str) -> None:
        """Keep something until the worker writes it. Callable from any thread."""
        if kind == "progress" and isinstance(text, bytes):
            self.progress = text
        self.said.append((kind, text))
        self.size += len(text)
        if self.size > 2 * MOST_WAITING:
            self._forget()
        spoke = self.spoke  # the worker takes it away when the run ends, from another thread
        if spoke is not None and not self.waits:
            self.waits = True
            spoke(self, self.stored)

    def take(self) -> list[Said]:
        """What was said since it was taken last, as far as it was kept; the last progress always
        is.
        """
        self.waits = False  # first: whoever speaks from here on says so again
        last, self.progress = self.progress, None
        self.size = 0
        taken: list[Said] = []
        if self.words is not None:
            with suppress(IndexError):  # a thread that speaks meanwhile may have pushed some out
                taken.extend(self.words.popleft() for _ in range(len(self.words)))
        if last is not None and not any(text is last for _, text in taken):
            taken.append(("progress", last))
        return taken

    def _forget(self) -> None:
        """Let go of what was said first.

        Counted anew, because what the deque has pushed out is in `size`, too.
        """
        with suppress(IndexError):
            self.size = sum(len(text) for _, text in self.said.copy())
            while self.size > MOST_WAITING:
                self.size -= len(self.said.popleft()[1])


_FIRST_WORDS = threading.Lock()
"""Held while a run's `words` are made: for less than a microsecond, by jobs that say something."""


@frozen_for_checkers(frozen=True, slots=True, eq=False)
class Job(Generic[P]):
    """One job, as its processor sees it.

    It is read-only: type checkers refuse an assignment to a field. Python does not, because one job
    is made per run and a frozen object costs a microsecond more; what is assigned changes nothing
    in the store.

    Attributes:
        id: Unique within its queue.
        queue: The queue it came from.
        name: BullMQ's job name; the queue's own name where Corral wrote the job.
        payload: The validated payload.
        attempt: Which attempt this is, from 1.
        max_attempts: After this many failed attempts the job is failed for good.
        starts: How often the job was started, this start included: attempts, and starts that ended
            with a crash, a snooze or a hand-back.
        enqueued_ms: Unix milliseconds, by the store's clock.
        processed_ms: Unix milliseconds of this start, by the store's clock.
        scheduled_ms: Unix milliseconds at which the job was due first.
        run: The part that changes while the job runs.
        carrier_text: The carrier as it is stored, or None without one.
    """

    id: str
    queue: Queue[P]
    name: str
    payload: P
    attempt: int
    max_attempts: int
    starts: int
    enqueued_ms: int
    processed_ms: int
    scheduled_ms: int
    run: Run = field(default_factory=Run, repr=False)
    carrier_text: str | None = field(default=None, repr=False)

    @property
    def enqueued_at(self) -> datetime:
        """When the job was enqueued (aware, UTC)."""
        return datetime.fromtimestamp(self.enqueued_ms / 1000, UTC)

    @property
    def processed_on(self) -> datetime:
        """When this start happened (aware, UTC)."""
        return datetime.fromtimestamp(self.processed_ms / 1000, UTC)

    @property
    def scheduled_for(self) -> datetime:
        """The tick this job stands for, or `enqueued_at` plus its delay (aware, UTC)."""
        return datetime.fromtimestamp(self.scheduled_ms / 1000, UTC)

    @property
    def idempotency_key(self) -> str:
        """`<queue>.<id>`: the same on every attempt, to hand to whoever can recognise a repetition
        by it.
        """
        return self.key()

    @property
    def carrier(self) -> dict[str, str]:
        """What came along with the job, as `corral_enqueuing` or another client put it in: its
        trace context.
        """
        try:
            held: object = from_json(self.carrier_text or "{}")
        except ValueError:  # some client's own text
            return {}
        members = cast("dict[str, object]", held) if isinstance(held, dict) else {}
        return {name: text for name, text in members.items() if isinstance(text, str)}

    def key(self, follow_up: str | None = None) -> str:
        """A key derived from this job, the same on every attempt.

        It is always a legal job id, so that a follow-up job can be enqueued under it exactly once.

        Args:
            follow_up: Tells several keys of one job apart.

        Returns:
            `<queue>.<id>` or `<queue>.<id>.<follow_up>`; hashed where that would be longer than 128
            characters or holds a character that a job id must not have.
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
        """`(enqueued_ms, starts)`: grows with every start, so that a database can refuse an older
        start's write.
        """
        return (self.enqueued_ms, self.starts)

    @property
    def cancelled(self) -> bool:
        """Whether the result is no longer wanted; a long `def` processor looks at it and returns."""
        return self.run.cancelled

    def progress(self, value: Any) -> None:
        """Report progress.

        Callable from any thread; written within 100 ms, and always before the outcome.

        Args:
            value: A number (0 to 100, by convention) or anything that serialises to JSON, at most
            64 KiB of it.

        Raises:
            PydanticSerializationError: It does not.
            ValueError: It is more.
        """
        text = to_json(value, inf_nan_mode="null")
        if len(text) > MAX_PROGRESS_BYTES:
            raise ValueError(f"the progress has {len(text)} bytes, more than {MAX_PROGRESS_BYTES}")
        self.run.say("progress", text)

    def log(self, text: str) -> None:
        """Add a line to the job's own log, which the board shows.

        Callable from any thread; written within 100 ms.

        A job keeps its last 1,000 lines, or as many as its `keepLogs` or `CORRAL_WORKER__KEEP_LOGS`
        says. What the store does not take in three tries is dropped, because no job waits for its
        words.

        Args:
            text: The line; one of more than 8 KiB is cut, and ends with `…`. `str` makes one of
                anything else, in here: what that raises is the caller's.
        """
        # A plain copy of a subclass: the worker's loop calls no method of anybody else's.
        line = text if type(text) is str else str.__str__(str(text))
        self.run.say(
            "log", line if len(line) * 4 <= MAX_LINE_BYTES else cut_to(line, MAX_LINE_BYTES)
        )


def cut_to(text: str, most_bytes: int) -> str:
    """A text of at most so many bytes of UTF-8.

    One that was cut ends with a whole character and `…`.
    """
    raw = text[: most_bytes + 1].encode(errors="replace")
    return (
        raw.decode()
        if len(raw) <= most_bytes
        else raw[: most_bytes - 3].decode(errors="ignore") + "…"
    )


current_job: ContextVar[Job[Any] | None] = ContextVar("corral_current_job", default=None)
"""The job that the current task or thread processes: what log lines take their context from."""
