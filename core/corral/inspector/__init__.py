"""The operator's port over the store: look at jobs, and put right what went wrong.

The command line, the board and a processor's `deps.inspector` use the same `JobInspector`. Every
change is one atomic script, or a row of them over at most `BATCH` jobs each; what each does to the
keys is what BullMQ 6 does (wire § 6.14 to § 6.19). A name loads its module when it is first asked
for: a process that writes one job needs two.
"""

from typing import TYPE_CHECKING

from corral.on_demand import on_demand

if TYPE_CHECKING:
    from corral.inspector.audit import Audit, Audited
    from corral.inspector.inspector import CLEANABLE, JobInspector, drained_states
    from corral.inspector.limits import Limits
    from corral.inspector.quarantine import QuarantinedJob, QuarantinePage, ReturnedJob
    from corral.inspector.reading import Page
    from corral.inspector.refusals import (
        CurrentIteration,
        DamagedKey,
        JobLocked,
        JobNotFound,
        WrongState,
    )
    from corral.inspector.search import Found
    from corral.inspector.sizes import Sizes
    from corral.inspector.stored import STATES, State, StoredJob
    from corral.inspector.summary import Failure, FailureGroup, Summary
    from corral.inspector.timeline import Occurrence
    from corral.inspector.workers import Running, WorkerSeen

__all__ = [
    "CLEANABLE",
    "STATES",
    "Audit",
    "Audited",
    "CurrentIteration",
    "DamagedKey",
    "Failure",
    "FailureGroup",
    "Found",
    "JobInspector",
    "JobLocked",
    "JobNotFound",
    "Limits",
    "Occurrence",
    "Page",
    "QuarantinePage",
    "QuarantinedJob",
    "ReturnedJob",
    "Running",
    "Sizes",
    "State",
    "StoredJob",
    "Summary",
    "WorkerSeen",
    "WrongState",
    "drained_states",
]

if not TYPE_CHECKING:  # a checker that saw this would accept any name
    __getattr__, __dir__ = on_demand(
        __name__,
        {
            "audit": "Audit Audited",
            "inspector": "CLEANABLE JobInspector drained_states",
            "limits": "Limits",
            "quarantine": "QuarantinedJob QuarantinePage ReturnedJob",
            "reading": "Page",
            "refusals": "CurrentIteration DamagedKey JobLocked JobNotFound WrongState",
            "search": "Found",
            "sizes": "Sizes",
            "stored": "STATES State StoredJob",
            "summary": "Failure FailureGroup Summary",
            "timeline": "Occurrence",
            "workers": "Running WorkerSeen",
        },
    )
