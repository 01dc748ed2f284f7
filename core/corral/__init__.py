"""Corral: a worker framework whose queues are plugins.

This is the surface for authors of queues and for producers. It loads neither the Redis client nor the worker.
"""

from corral.errors import (
    CatalogError,
    CorralError,
    Fail,
    PayloadRefused,
    RateLimited,
    Retry,
    Snooze,
    StoreUnavailable,
)
from corral.hookspecs import hookimpl
from corral.job import Job
from corral.jobs import Enqueued, JobScheduler
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
    "Enqueued",
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
    "hookimpl",
]
