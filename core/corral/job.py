"""`Job`: what a processor is given. Data, and three things to say while running: progress, log, cancelled."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, Literal, cast

from pydantic_core import from_json, to_json
from typing_extensions import TypeVar

from corral.payload import Payload
from corral.veil import Veil

if TYPE_CHECKING:
    from corral.queue import Queue

__all__ = ["Job", "P", "Run", "current_job"]

P = TypeVar("P", bound=Payload, default=Any)

MAX_KEY_LENGTH = 128
"""An idempotency key is a legal job id, and those end at 128 characters."""


@dataclass(slots=True, eq=False)
class Run:
    """The part of a running job that changes: written by the processor, from any thread, and read by the worker.

    Attributes:
        cancelled: Whether the worker no longer wants the result: the lock is lost, or it shuts down.
        said: Progress, as JSON text, and log lines, in order, until the worker has written them to the store.
        spoke: Called, from the processor's thread, when there is something to write; None outside a worker.
        seconds: How long the processor ran, as soon as it has ended; 0 for a job that was refused without running.
        veil: Masks what is secret in the job, where its log lines need that; made by the first of them.
        meddled: Whether it was logged that the job cancelled tasks that are not its own.
    """

    cancelled: bool = False
    said: deque[tuple[Literal["progress", "log"], bytes | str]] = field(
        default_factory=deque[tuple[Literal["progress", "log"], bytes | str]]
    )
    spoke: Callable[[], object] | None = None
    seconds: float = 0.0
    veil: Veil | None = field(default=None, repr=False)
    meddled: bool = field(default=False, repr=False)

    def say(self, kind: Literal["progress", "log"], text: bytes | str) -> None:
        """Keep something until the worker writes it. Callable from any thread."""
        self.said.append((kind, text))
        spoke = self.spoke  # the worker takes it away when the run ends, from another thread
        if spoke is not None:
            spoke()


@dataclass(frozen=True, slots=True, eq=False)
class Job(Generic[P]):
    """One job, as its processor sees it.

    Attributes:
        id: Unique within its queue.
        queue: The queue it came from.
        name: BullMQ's job name; the queue's own name where Corral wrote the job.
        payload: The validated payload.
        attempt: Which attempt this is, from 1.
        max_attempts: After this many failed attempts the job is failed for good.
        starts: How often the job was started, this start included: attempts, and starts that ended with a crash, a
            snooze or a hand-back.
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
        """`<queue>.<id>`: the same on every attempt, to hand to whoever can recognise a repetition by it."""
        return self.key()

    @property
    def carrier(self) -> dict[str, str]:
        """What came along with the job, as `corral_enqueuing` or another client put it in: its trace context."""
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
            `<queue>.<id>` or `<queue>.<id>.<follow_up>`; hashed where that would be longer than 128 characters or
            holds a character that a job id must not have.
        """
        parts = (self.queue.name, self.id) if follow_up is None else (self.queue.name, self.id, follow_up)
        plain = ".".join(parts)
        if len(plain) <= MAX_KEY_LENGTH and all(c.isascii() and (c.isalnum() or c in "_.~-") for c in plain):
            return plain
        return f"{self.queue.name}.{hashlib.sha256(plain.encode()).hexdigest()[:40]}"

    @property
    def fence(self) -> tuple[int, int]:
        """`(enqueued_ms, starts)`: grows with every start, so that a database can refuse an older start's write."""
        return (self.enqueued_ms, self.starts)

    @property
    def cancelled(self) -> bool:
        """Whether the result is no longer wanted; a long `def` processor looks at it and returns."""
        return self.run.cancelled

    def progress(self, value: Any) -> None:
        """Report progress. Callable from any thread; written within 100 ms, and always before the outcome.

        Args:
            value: A number (0 to 100, by convention) or anything that serialises to JSON.

        Raises:
            PydanticSerializationError: It does not.
        """
        self.run.say("progress", to_json(value, inf_nan_mode="null"))

    def log(self, text: str) -> None:
        """Add a line to the job's own log, which the board shows. Callable from any thread; written within 100 ms.

        Args:
            text: The line. `str` makes one of anything else, in here: what that raises is the caller's.
        """
        # A plain copy of a subclass: the worker's loop calls no method of anybody else's.
        self.run.say("log", text if type(text) is str else str.__str__(str(text)))


current_job: ContextVar[Job[Any] | None] = ContextVar("corral_current_job", default=None)
"""The job that the current task or thread processes: what log lines take their context from."""
