"""The operator's port over the store: look at jobs, and put right what went wrong.

The command line and a processor's `deps.inspector` use the same `JobInspector`. Every change is one atomic script, or a
row of them over at most `BATCH` jobs each; what each does to the keys is what BullMQ 6 does (wire § 6.14 to § 6.19).
"""

from corral.inspector.audit import Audit, Audited
from corral.inspector.inspector import CLEANABLE, JobInspector, Page
from corral.inspector.limits import Limits
from corral.inspector.refusals import CurrentIteration, JobLocked, JobNotFound, WrongState
from corral.inspector.stored import STATES, State, StoredJob

__all__ = [
    "CLEANABLE",
    "STATES",
    "Audit",
    "Audited",
    "CurrentIteration",
    "JobInspector",
    "JobLocked",
    "JobNotFound",
    "Limits",
    "Page",
    "State",
    "StoredJob",
    "WrongState",
]
