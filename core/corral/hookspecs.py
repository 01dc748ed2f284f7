"""The hooks. This file is the whole contract between Corral and a plugin.

Mark an implementation with `corral.hookimpl`. All hooks are synchronous and must not block. Each
implementation is called on its own: one that raises neither stops the others nor reaches the
worker, unless its docstring says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from pluggy import HookimplMarker, HookspecMarker

if TYPE_CHECKING:  # `hookimpl` is all that a plugin takes from here
    from sqlalchemy import MetaData

    from corral.job import Job
    from corral.outcome import Outcome
    from corral.payload import Payload
    from corral.processor import Processor
    from corral.queue import Queue

__all__ = ["hookimpl", "hookspec"]

hookspec = HookspecMarker("corral")
hookimpl = HookimplMarker("corral")


@hookspec
def corral_queues() -> Iterable[Queue[Any]]:
    """Declare queues.

    Called once, in every process, producers and workers alike: import nothing heavy.

    Returns:
        The queues. Each name must be an entry point of this distribution in the group
        `corral.queues`.

    An exception refuses the start, and is reported with the plugin's name.
    """


@hookspec
def corral_processors() -> Iterable[Processor]:
    """Bind processors to queues.

    Called once, in workers only, and only where the worker serves a queue of this plugin (`corral
    check` asks everybody). Import what processing needs in here.

    Returns:
        What `Queue.processed_by` returned, one per queue.

    An exception refuses the start, and is reported with the plugin's name.
    """


@hookspec
def corral_hookspecs() -> Iterable[object]:
    """Offer hooks of your own to other plugins and to the application.

    Called once, in every process, before anything is checked.

    Returns:
        Modules or objects that hold functions marked with `pluggy.HookspecMarker("corral")`.

    An exception refuses the start, and is reported with the plugin's name.
    """


@hookspec
def corral_tables() -> Iterable[MetaData]:
    """Declare SQL tables.

    Called once, by `corral db create` only. Import SQLAlchemy and what describes the tables in
    here.

    Returns:
        What describes them. Two plugins cannot have tables of one name.

    An exception refuses the command, and is reported with the plugin's name.
    """


@hookspec
def corral_enqueuing(queue: Queue[Any], payload: Payload, carrier: dict[str, str]) -> None:
    """A job is about to be written.

    Called once per job, in the producer's process, after validation and before the write.

    Args:
        queue: Where the job goes.
        payload: The validated payload.
        carrier: What is put in here travels with the job (trace context, as `opts.tm`).

    An exception is logged once per plugin; the job is written all the same.
    """


@hookspec
def corral_job_context(job: Job[Any]) -> AbstractContextManager[object]:
    """A job is about to run.

    Called once per start, in the worker, in the task (or thread) that runs the processor.

    Returns:
        A context manager that is held around the processor: a span, bound log context.

    An exception is logged once per plugin; the job runs all the same.
    """


@hookspec
def corral_job_ended(job: Job[Any], outcome: Outcome) -> None:
    """A run of a job has ended, and the store has its outcome.

    Called once per ending, in the worker, on the event loop.

    Args:
        job: The job.
        outcome: How it ended; one of the types of `corral.outcome`. `outcome.final`: no further
            attempt follows. Those of a failed attempt have `outcome.error`: what the processor
            raised, in this process only.

    An exception is logged once per plugin.
    """
