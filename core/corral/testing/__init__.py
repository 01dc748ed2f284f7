"""The kit for authors of queues, and of code that enqueues.

* `job` makes the job that a processor is called with: no worker, no store. `progress_of` and
  `log_of` return what the processor reported with it; `cancel` cancels it.
* `deps` makes the `Deps` that a processor's resource is opened with: no worker, no store.
* `RecordingJobScheduler` keeps what is enqueued: no store.
* The pytest fixtures `corral_store` and `corral_kit` (a `Kit`) give a real store, a worker that
  drains it, and time that moves when the test says so; `corral_worker` starts worker processes.
* `DeclarationContract` is what every package with a queue must keep, as tests to inherit.
* `wait_until` waits for something that happens elsewhere, for a bounded time.
* `find_leaks` looks for what was left untidy in a store.

A name loads its module when it is first used: pytest loads this package's plugin in every
environment that has Corral, whether the tests use Corral or not.
"""

from typing import TYPE_CHECKING

from corral.on_demand import on_demand

if TYPE_CHECKING:
    from corral.testing.contract import DeclarationContract
    from corral.testing.draining import Drained, Run
    from corral.testing.kit import Kit
    from corral.testing.leaks import find_leaks
    from corral.testing.recording import RecordedJob, RecordedSchedule, RecordingJobScheduler
    from corral.testing.resources import deps
    from corral.testing.single import cancel, job, log_of, progress_of
    from corral.testing.stored import FoundJob
    from corral.testing.waiting import wait_until
    from corral.testing.worker_process import WorkerProcess, WorkerProcesses

__all__ = [
    "DeclarationContract",
    "Drained",
    "FoundJob",
    "Kit",
    "RecordedJob",
    "RecordedSchedule",
    "RecordingJobScheduler",
    "Run",
    "WorkerProcess",
    "WorkerProcesses",
    "cancel",
    "deps",
    "find_leaks",
    "job",
    "log_of",
    "progress_of",
    "wait_until",
]

if not TYPE_CHECKING:  # a checker that saw this would accept any name
    __getattr__, __dir__ = on_demand(
        __name__,
        {
            "contract": "DeclarationContract",
            "draining": "Drained Run",
            "kit": "Kit",
            "leaks": "find_leaks",
            "recording": "RecordedJob RecordedSchedule RecordingJobScheduler",
            "resources": "deps",
            "single": "cancel job log_of progress_of",
            "stored": "FoundJob",
            "waiting": "wait_until",
            "worker_process": "WorkerProcess WorkerProcesses",
        },
    )
