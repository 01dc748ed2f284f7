"""`start_task`: the tasks of Corral itself, which no job can cancel.

A processor that tidies up with `for task in asyncio.all_tasks(): task.cancel()`, as examples of a
graceful shutdown do, means what it has started itself. It must not end the worker, nor the jobs
that run beside it.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from corral.job import Job, current_job
from corral.loggers import Logger

__all__ = ["OwnTask", "start_task"]

log = Logger("corral.worker")

T = TypeVar("T")


class OwnTask(asyncio.Task[T]):
    """A task that jobs cannot cancel, but the job that it runs.

    Whoever awaits it directly cannot be cancelled by them either: a cancellation is handed on to
    what is awaited.

    Attributes:
        job: The job that it runs, or None.
    """

    job: Job[Any] | None = None

    def cancel(self, msg: Any | None = None) -> bool:
        """Ask the task to end, unless a job asks whose task it is not.

        Returns:
            Whether it was asked. True, too, where a job was refused: where a task that awaits this
            one is cancelled, it would be ended at its next step if this one said no.
        """
        by = current_job.get()
        if by is None or by is self.job:
            return super().cancel(msg)
        if not by.run.meddled:
            by.run.meddled = True
            with suppress(Exception):  # the program's own logging may be broken
                log.warning(
                    "a job cancelled tasks that are not its own: refused", task=self.get_name()
                )
        return True


def start_task(
    coroutine: Coroutine[Any, Any, T], name: str, *, context: contextvars.Context | None = None
) -> OwnTask[T]:
    """Start a task of Corral's own, outside of the job that may have led to it.

    Args:
        coroutine: What it runs.
        name: What it is called.
        context: Its context variables; by default a copy of the caller's.
    """
    context = contextvars.copy_context() if context is None else context
    context.run(current_job.set, None)  # its own time limits cancel it, and they are no job's
    return OwnTask(coroutine, loop=asyncio.get_running_loop(), name=name, context=context)
