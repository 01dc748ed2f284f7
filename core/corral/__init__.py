"""Corral: a worker framework whose queues are plugins.

This is the surface for authors of queues and for producers. It loads neither the Redis client nor
the worker; and a name loads its module when it is first asked for, so that `corral --help` does not
wait for pydantic.
"""

from __future__ import annotations

from corral.on_demand import on_demand

TYPE_CHECKING = False  # as checkers read it: the program handles no signal before this is loaded
if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from corral.blocking import BlockingJobScheduler
    from corral.errors import (
        CatalogError,
        CorralError,
        EnqueueInterrupted,
        Fail,
        PayloadRefused,
        RateLimited,
        Retry,
        Snooze,
        StoreUnavailable,
    )
    from corral.hookspecs import hookimpl
    from corral.job import Job
    from corral.jobs import Durability, Enqueued, Entry, JobScheduler
    from corral.options import Exponential, Fixed, JobOptions, Retention
    from corral.payload import Payload
    from corral.processor import Deps, Processor
    from corral.queue import Queue
    from corral.schedule import Cron, Every

__all__ = [
    "CatalogError",
    "CorralError",
    "Cron",
    "Deps",
    "EnqueueInterrupted",
    "Enqueued",
    "Entry",
    "Every",
    "Exponential",
    "Fail",
    "Fixed",
    "Job",
    "JobOptions",
    "JobScheduler",
    "Payload",
    "PayloadRefused",
    "Processor",
    "Queue",
    "RateLimited",
    "Retention",
    "Retry",
    "Snooze",
    "StoreUnavailable",
    "connect",
    "connect_blocking",
    "hookimpl",
]


def connect(*, durability: Durability | None = None) -> AbstractAsyncContextManager[JobScheduler]:
    """A producer's front door: `async with corral.connect() as jobs: await jobs.enqueue(queue,
    payload)`.

    Reads the settings, loads the plugins, builds the catalog and finds the store. A store that is
    away is noticed by the first call.

    Args:
        durability: `"replicated"`: `enqueue` and `enqueue_many` return when a replica of the store
            has the jobs, too. If none has them within a second, they raise `StoreUnavailable` or
            `EnqueueInterrupted`; the outcome of these jobs is unknown: they are written, and are
            lost if the store fails over. None: as soon as the store itself has them.

    Returns:
        A context manager that yields the scheduler. In another event loop than this one, in a
        forked child, and after it was left, its calls raise `corral.errors.SchedulerUnusable`.

    Raises:
        CorralError: On entering: a setting, the catalog, or that no store is configured.
    """
    from corral.app import connect  # noqa: PLC0415  # a declaration must not load the store's client

    return connect(durability=durability)


def connect_blocking(
    *, durability: Durability | None = None
) -> AbstractContextManager[BlockingJobScheduler]:
    """`connect` for programs without an event loop: `with corral.connect_blocking() as jobs:
    jobs.enqueue(…)`.

    The scheduler may be used from several threads, and in processes that are forked from this one:
    each connects again by itself. It may stay open for the program's life (`jobs =
    corral.connect_blocking().__enter__()`): it is closed as the program ends, for which that waits
    two seconds at most.

    Args:
        durability: As `connect`.

    Returns:
        A context manager that yields the scheduler, whose calls raise
        `corral.errors.SchedulerUnusable` after it was left.

    Raises:
        CorralError: As `connect`.
    """
    from corral.app import connect_blocking  # noqa: PLC0415  # as above

    return connect_blocking(durability=durability)


if not TYPE_CHECKING:  # a checker that saw this would accept any name
    __getattr__, __dir__ = on_demand(
        __name__,
        {
            "errors": "CatalogError CorralError EnqueueInterrupted Fail PayloadRefused RateLimited Retry Snooze "
            "StoreUnavailable",
            "hookspecs": "hookimpl",
            "job": "Job",
            "jobs": "Enqueued Entry JobScheduler",
            "options": "Exponential Fixed JobOptions Retention",
            "payload": "Payload",
            "processor": "Deps Processor",
            "queue": "Queue",
            "schedule": "Cron Every",
        },
    )
