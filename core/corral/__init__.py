"""Corral: a worker framework whose queues are plugins.

This package has the names that authors of queues and producers need. A name loads its module when
it is first used: `import corral` loads neither pydantic, nor the store's client, nor the worker.
"""

from __future__ import annotations

from corral.on_demand import on_demand

TYPE_CHECKING = False  # not imported: `typing` would be loaded before signals are handled
if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from corral.blocking import BlockingJobScheduler
    from corral.counter import PluginCounter
    from corral.deps import Answer, Deps, HookRaised
    from corral.errors import (
        CatalogError,
        ConfigurationError,
        CorralError,
        DatabaseUnavailable,
        EnqueueInterrupted,
        Fail,
        JobRefused,
        PayloadRefused,
        RateLimited,
        Retry,
        SchedulerUnusable,
        Snooze,
        StoreUnavailable,
        UnknownQueue,
    )
    from corral.hookspecs import hookimpl, hookspec
    from corral.inspector import JobInspector
    from corral.job import Job
    from corral.job_state import JobState
    from corral.jobs import Durability, Enqueued, Entry, JobScheduler
    from corral.options import (
        Backoff,
        EnqueueOptions,
        Exponential,
        Fixed,
        JobOptions,
        Retention,
        check_job_id,
    )
    from corral.outcome import Outcome
    from corral.payload import Payload
    from corral.plugin_settings import PluginSettings
    from corral.processor import Processor
    from corral.queue import Queue
    from corral.schedule import Cron, Every

__all__ = [
    "Answer",
    "Backoff",
    "BlockingJobScheduler",
    "CatalogError",
    "ConfigurationError",
    "CorralError",
    "Cron",
    "DatabaseUnavailable",
    "Deps",
    "Durability",
    "EnqueueInterrupted",
    "EnqueueOptions",
    "Enqueued",
    "Entry",
    "Every",
    "Exponential",
    "Fail",
    "Fixed",
    "HookRaised",
    "Job",
    "JobOptions",
    "JobRefused",
    "JobScheduler",
    "JobState",
    "Outcome",
    "Payload",
    "PayloadRefused",
    "PluginCounter",
    "PluginSettings",
    "Processor",
    "Queue",
    "RateLimited",
    "Retention",
    "Retry",
    "SchedulerUnusable",
    "Snooze",
    "StoreUnavailable",
    "UnknownQueue",
    "check_job_id",
    "connect",
    "connect_blocking",
    "hookimpl",
    "hookspec",
    "open_inspector",
]


def connect(*, durability: Durability | None = None) -> AbstractAsyncContextManager[JobScheduler]:
    """Connect a producer: `async with corral.connect() as jobs: await jobs.enqueue(…)`.

    On entering, it reads the settings, loads the plugins, builds the catalog and looks up the URL
    of the store. It does not contact the store: one that is away is noticed by the first call.

    Args:
        durability: None: `enqueue` and `enqueue_many` return as soon as the store has the jobs.
            `"replicated"`: they return when a replica has the jobs as well. If none has them
            within a second, they raise `StoreUnavailable` or `EnqueueInterrupted`. The outcome of
            these jobs is unknown: the store has them, and loses them if it fails over.

    Returns:
        A context manager that yields the scheduler. The scheduler's calls raise
        `SchedulerUnusable` in another event loop, in a forked child, and after the `with` block.

    Raises:
        CorralError: On entering: a setting is wrong, the catalog is refused, or no store is
            configured.
    """
    from corral.app import connect  # noqa: PLC0415  # `import corral` must not load the store's client

    return connect(durability=durability)


def connect_blocking(
    *, durability: Durability | None = None
) -> AbstractContextManager[BlockingJobScheduler]:
    """Connect a producer without an event loop: `with corral.connect_blocking() as jobs: …`.

    Threads may share the scheduler. In a forked child it connects again by itself. It may stay open
    for the life of the program (`jobs = corral.connect_blocking().__enter__()`): it is closed when
    the program ends, which waits at most two seconds for that.

    Args:
        durability: See `connect`.

    Returns:
        A context manager that yields the scheduler. The scheduler's calls raise
        `SchedulerUnusable` after the `with` block.

    Raises:
        CorralError: On entering, as for `connect`.
    """
    from corral.app import connect_blocking  # noqa: PLC0415  # it would load the store's client

    return connect_blocking(durability=durability)


def open_inspector() -> AbstractAsyncContextManager[JobInspector]:
    """Open an inspector, for a program that reads or repairs jobs of the installed queues.

    ```python
    import corral


    async def failed_mails() -> list[str]:
        async with corral.open_inspector() as inspector:
            page = await inspector.list("emails", corral.JobState.FAILED)
        return [job.id for job in page.jobs]
    ```

    On entering, it reads the settings, loads the plugins, builds the catalog and looks up the URL
    of the store, as `connect` does. A processor takes its worker's inspector instead:
    `await deps.enter(corral.inspector.of_worker)`.

    Returns:
        A context manager that yields the inspector, and closes it.

    Raises:
        CorralError: On entering: a setting is wrong, the catalog is refused, or no store is
            configured.
    """
    from corral.app import open_inspector  # noqa: PLC0415  # it would load the store's client

    return open_inspector()


if not TYPE_CHECKING:  # with a `__getattr__` in sight, a type checker accepts any name
    __getattr__, __dir__ = on_demand(
        __name__,
        {
            "blocking": "BlockingJobScheduler",
            "counter": "PluginCounter",
            "deps": "Answer Deps HookRaised",
            "errors": "CatalogError ConfigurationError CorralError DatabaseUnavailable "
            "EnqueueInterrupted Fail JobRefused PayloadRefused RateLimited Retry "
            "SchedulerUnusable Snooze StoreUnavailable UnknownQueue",
            "hookspecs": "hookimpl hookspec",
            "job": "Job",
            "job_state": "JobState",
            "jobs": "Durability Enqueued Entry JobScheduler",
            "options": "Backoff EnqueueOptions Exponential Fixed JobOptions Retention check_job_id",
            "outcome": "Outcome",
            "payload": "Payload",
            "plugin_settings": "PluginSettings",
            "processor": "Processor",
            "queue": "Queue",
            "schedule": "Cron Every",
        },
    )
