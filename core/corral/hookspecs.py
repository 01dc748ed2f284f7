"""The core's hooks. This file is the contract between Corral and a plugin.

Mark an implementation with `corral.hookimpl`. All hooks of this file are synchronous and must not
block. Each implementation is called on its own: one that raises neither stops the others nor
reaches the worker, unless its docstring says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from pluggy import HookimplMarker, HookspecMarker

if TYPE_CHECKING:  # at run time a plugin takes only the markers from here
    from corral.job import Job
    from corral.outcome import Outcome
    from corral.payload import Payload
    from corral.plugin_settings import PluginSettings
    from corral.processor import Processor
    from corral.queue import Queue

__all__ = ["hookimpl", "hookspec"]

hookspec = HookspecMarker("corral")
"""Marks the specification of a hook that a plugin offers to others; see `corral_hookspecs`."""
hookimpl = HookimplMarker("corral")
"""Marks a function of a plugin that implements a hook."""


@hookspec
def corral_queues() -> Iterable[Queue[Any]]:
    """Declare queues.

    Called once in every process, producers and workers alike: import nothing that loads slowly.

    Returns:
        The queues. Each name must be an entry point of this distribution in the group
        `corral.queues`.

    An exception refuses the start, and is reported with the plugin's name.
    """


@hookspec
def corral_processors() -> Iterable[Processor]:
    """Bind processors to queues.

    Called once, in workers only, and only if the worker serves a queue of this plugin; `corral
    check` asks every plugin. Import what processing needs in here.

    Returns:
        What `Queue.processed_by` returned, one per queue.

    An exception refuses the start, and is reported with the plugin's name.
    """


@hookspec
def corral_hookspecs() -> Iterable[object]:
    """Offer hooks of your own to other plugins and to the application.

    Called once in every process, before any implementation is checked. Processors call these hooks
    with `Deps.ask_first` and `Deps.ask_all`.

    Returns:
        Modules or objects that hold functions marked with `corral.hookspec`.

    An exception refuses the start, and is reported with the plugin's name.
    """


@hookspec
def corral_settings() -> Iterable[type[PluginSettings]]:
    """Declare the settings of this plugin: the variables below its prefix.

    Called once, by `corral check` and by every process whose environment has variables of
    plugins. A variable below the prefix that no field reads refuses the start; `corral check`
    judges the values, too. The plugin reads its settings where it needs them: `MySettings()`.

    Returns:
        Subclasses of `corral.PluginSettings`.

    An exception refuses the start, and is reported with the plugin's name.
    """


@hookspec
def corral_enqueuing(queue: Queue[Any], payload: Payload) -> Mapping[str, str] | None:
    """A job is about to be written.

    Called once per job, in the producer's process, after validation and before the write.

    Args:
        queue: The queue that the job goes to.
        payload: The validated payload.

    Returns:
        Texts that travel with the job, by name; None or an empty mapping for nothing. They are
        stored as `opts.tm`, where BullMQ keeps trace context, and a worker reads them as
        `job.carrier`. If two implementations return the same name, the one called later wins.

    An exception, and a return value of another type, is logged once per plugin; the job is written
    all the same.
    """


@hookspec
def corral_job_context(job: Job[Any]) -> AbstractContextManager[object]:
    """A job is about to run.

    Called once per start, in the worker, in the task (or thread) that runs the processor.

    Returns:
        A context manager that is entered around the processor: a span, bound log context.

    An exception is logged once per plugin; the job runs all the same.
    """


@hookspec
def corral_job_ended(job: Job[Any], outcome: Outcome) -> None:
    """A run of a job has ended, and its outcome is in the store.

    Called once per run, in the worker, on the event loop.

    Args:
        job: The job.
        outcome: How the run ended; one of the types of `corral.outcome`. `outcome.final` says
            whether no further attempt follows. The outcomes of a failed attempt have
            `outcome.error`: the exception that the processor raised, in this process only.

    An exception is logged once per plugin.
    """
