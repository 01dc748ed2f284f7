"""`Queue`: a name and a payload model, declared once and imported by producers and by workers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Generic, TypeVar, overload

from corral.job import Job, P
from corral.options import JobOptions
from corral.payload import Payload
from corral.processor import Deps, Processor
from corral.schedule import Cron, Every

__all__ = ["Queue"]

R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Queue(Generic[P]):
    """A queue of the catalog. The object is the queue: two objects of one name are two claims to it.

    The constructor judges nothing about the name; the catalog does, so that all faults come in one report.

    Attributes:
        name: Kebab-case, at most 64 characters, and the name of the entry point that declares it.
        payload: The model of its jobs' payloads, a subclass of `Payload`.
        options: What holds for its jobs unless a producer says otherwise.
        timeout: How long an `async def` processor may run, or None for no bound.
        concurrency: How many jobs one worker runs at once, or None for the worker's setting.
        schedule: When it runs by itself, or None.
    """

    name: str
    payload: type[P]
    options: JobOptions = field(default_factory=JobOptions, kw_only=True)
    timeout: timedelta | None = field(default=None, kw_only=True)
    concurrency: int | None = field(default=None, kw_only=True)
    schedule: Cron | Every | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.payload is Payload:
            raise TypeError(
                f"queue {self.name!r}: declare an empty subclass of Payload: the queue needs a payload type of its own"
            )

    @overload
    def processed_by(self, function: Callable[[Job[P]], object]) -> Processor: ...

    @overload
    def processed_by(
        self,
        function: Callable[[Job[P], R], object],
        *,
        using: Callable[[Deps], AbstractAsyncContextManager[R]],
    ) -> Processor: ...

    def processed_by(
        self,
        function: Callable[..., object],
        *,
        using: Callable[[Deps], AbstractAsyncContextManager[Any]] | None = None,
    ) -> Processor:
        """Bind the function that processes this queue's jobs.

        Args:
            function: `function(job)`, or `function(job, resource)` where `using` is given. `async def` runs on the
                worker's event loop, `def` on a thread.
            using: Opens the resource: an async context manager, entered once per worker before its first fetch and
                left after its last job.

        Returns:
            The processor, to be returned from the `corral_processors` hook.
        """
        return Processor(self, function, using)
