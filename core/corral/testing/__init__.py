"""The kit for whoever writes queues, or code that enqueues.

* `job` makes the job that a processor is called with: no worker, no store.
* `RecordingJobScheduler` keeps what is enqueued: no store.
* The pytest fixtures `corral_store` and `corral_kit` (a `Kit`) give a real store, a worker that
  drains it, and time that moves when the test says so.
* `find_leaks` looks for what was left untidy in a store.

A name loads its module when it is first asked for: the pytest plugin lives in here, and is loaded
by every pytest of an environment that has Corral.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from corral.testing.draining import Drained, Run
    from corral.testing.kit import Kit
    from corral.testing.leaks import find_leaks
    from corral.testing.recording import RecordedJob, RecordedSchedule, RecordingJobScheduler
    from corral.testing.single import job
    from corral.testing.stored import FoundJob

__all__ = [
    "Drained",
    "FoundJob",
    "Kit",
    "RecordedJob",
    "RecordedSchedule",
    "RecordingJobScheduler",
    "Run",
    "find_leaks",
    "job",
]

if not TYPE_CHECKING:  # a checker that saw this would accept any name
    _MODULE_OF = {
        "Drained": "draining",
        "Kit": "kit",
        "RecordedJob": "recording",
        "RecordedSchedule": "recording",
        "RecordingJobScheduler": "recording",
        "Run": "draining",
        "FoundJob": "stored",
        "find_leaks": "leaks",
        "job": "single",
    }

    def __getattr__(name: str) -> object:
        """Load the module of a name that was not asked for before."""
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'corral.testing' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"corral.testing.{_MODULE_OF[name]}"), name)
        return value

    def __dir__() -> list[str]:
        """The whole surface, loaded or not: what completion offers."""
        return sorted({*globals(), *__all__})
