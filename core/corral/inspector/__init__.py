"""The operator's access to the store: read jobs, and repair what went wrong.

The command line, the board, programs (`corral.open_inspector`) and processors
(`await deps.enter(corral.inspector.of_worker)`) use the same `JobInspector`. Every change is one
atomic script, or a series of scripts over at most `BATCH` jobs each, and changes the keys as BullMQ
6 does (wire § 6.14 to § 6.19). A name of this package loads its module when it is first used, so
that a process that enqueues one job loads only two of them.
"""

from typing import TYPE_CHECKING

from corral.on_demand import on_demand

if TYPE_CHECKING:
    from corral.inspector.audit import Audit, AuditEntry
    from corral.inspector.inspector import CLEANABLE, JobInspector, drained_states
    from corral.inspector.job_reader import JobPage
    from corral.inspector.limits import Limits
    from corral.inspector.orphans import OrphanedQueues, OrphanSearch
    from corral.inspector.quarantine import QuarantinedJob, QuarantinePage, ReturnedJob
    from corral.inspector.refusals import (
        CurrentIteration,
        DamagedKey,
        JobLocked,
        JobNotFound,
        PayloadChanged,
        WrongState,
    )
    from corral.inspector.search import SearchResult
    from corral.inspector.sizes import QueueSizes, Retrying
    from corral.inspector.stored_job import StoredJob
    from corral.inspector.summary import AttemptFailures, Failure, FailureGroup, QueueSummary
    from corral.inspector.timeline import TimelineEntry
    from corral.inspector.worker_resource import of_worker
    from corral.inspector.workers import RunningJob, WorkerStatus

__all__ = [
    "CLEANABLE",
    "AttemptFailures",
    "Audit",
    "AuditEntry",
    "CurrentIteration",
    "DamagedKey",
    "Failure",
    "FailureGroup",
    "JobInspector",
    "JobLocked",
    "JobNotFound",
    "JobPage",
    "Limits",
    "OrphanSearch",
    "OrphanedQueues",
    "PayloadChanged",
    "QuarantinePage",
    "QuarantinedJob",
    "QueueSizes",
    "QueueSummary",
    "Retrying",
    "ReturnedJob",
    "RunningJob",
    "SearchResult",
    "StoredJob",
    "TimelineEntry",
    "WorkerStatus",
    "WrongState",
    "drained_states",
    "of_worker",
]

if not TYPE_CHECKING:  # type checkers would accept any name of a package with `__getattr__`
    __getattr__, __dir__ = on_demand(
        __name__,
        {
            "audit": "Audit AuditEntry",
            "inspector": "CLEANABLE JobInspector drained_states",
            "job_reader": "JobPage",
            "limits": "Limits",
            "orphans": "OrphanSearch OrphanedQueues",
            "quarantine": "QuarantinedJob QuarantinePage ReturnedJob",
            "refusals": (
                "CurrentIteration DamagedKey JobLocked JobNotFound PayloadChanged WrongState"
            ),
            "search": "SearchResult",
            "sizes": "QueueSizes Retrying",
            "stored_job": "StoredJob",
            "summary": "AttemptFailures Failure FailureGroup QueueSummary",
            "timeline": "TimelineEntry",
            "worker_resource": "of_worker",
            "workers": "RunningJob WorkerStatus",
        },
    )
