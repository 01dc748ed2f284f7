"""Tasks of Corral's own: how they are started so that no job can cancel them, and how they end.

A processor that tidies up with `for task in asyncio.all_tasks(): task.cancel()`, as examples of a
graceful shutdown do, means the tasks that it has started itself. It must not end the worker, nor
the jobs that run beside it.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Collection, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from corral.job import Job, current_job, run_state
from corral.loggers import Logger

__all__ = ["OwnTask", "end_tasks", "start_task"]

log = Logger("corral.worker")

T = TypeVar("T")

CANCEL_AGAIN_SECONDS = 0.1
"""How long a cancelled task has to end before it is cancelled again."""


class OwnTask(asyncio.Task[T]):
    """A task that jobs cannot cancel, except the job that runs in it.

    A task that awaits this one directly is protected as well: asyncio passes its cancellation on to
    the task that it awaits.

    Attributes:
        job: The job that runs in it, or None.
    """

    job: Job[Any] | None = None

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the task, unless the caller is a job and this is not that job's task.

        Returns:
            Whether a cancellation was requested. Also True if a job was refused: False would tell
            asyncio to cancel the task that awaits this one at its next step.
        """
        job = current_job.get()
        if job is None or job is self.job:
            return super().cancel(msg)
        state = run_state(job)
        if not state.has_warned:
            state.has_warned = True
            with suppress(Exception):  # the program's own logging may be broken
                log.warning(
                    "a job tried to cancel tasks that are not its own: refused",
                    task=self.get_name(),
                )
        return True


def start_task(
    coroutine: Coroutine[Any, Any, T], name: str, *, context: contextvars.Context | None = None
) -> OwnTask[T]:
    """Start a task of Corral's own that belongs to no job, even if a job's code led to this call.

    Args:
        coroutine: What the task runs.
        name: The task's name.
        context: Its context variables; by default a copy of the caller's.
    """
    context = contextvars.copy_context() if context is None else context
    # Its own timeouts cancel it, and those must not count as a job's.
    context.run(current_job.set, None)
    return OwnTask(coroutine, loop=asyncio.get_running_loop(), name=name, context=context)


async def end_tasks(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have ended; the exceptions that they raise are ignored.

    The client library swallows a cancellation that reaches it while it opens a connection (measured
    with redis-py 8.1), so a task that goes on is cancelled again.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_SECONDS)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # marks it as retrieved: the loop does not report it as forgotten
