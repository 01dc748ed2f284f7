"""The operator's port over the store: look at jobs, and put right what went wrong.

The command line, the board and a processor's `deps.inspector` use the same `JobInspector`. Every change is one atomic
script, or a row of them over at most `BATCH` jobs each; what each does to the keys is what BullMQ 6 does
(wire § 6.14 to § 6.19).
"""

from corral.inspector.audit import Audit, Audited
from corral.inspector.inspector import CLEANABLE, JobInspector, drained_states
from corral.inspector.limits import Limits
from corral.inspector.quarantine import QuarantinedJob, QuarantinePage, ReturnedJob
from corral.inspector.reading import Page
from corral.inspector.refusals import CurrentIteration, DamagedKey, JobLocked, JobNotFound, WrongState
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
