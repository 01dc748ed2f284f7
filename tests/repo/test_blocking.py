"""The two schedulers cannot drift apart: the blocking one has the calls of the port, written by a
program.
"""

from __future__ import annotations

import ast
import inspect

from corral.blocking import BlockingJobScheduler
from corral.jobs import JobScheduler
from repo.blocking import TWIN, twin


def test_the_blocking_scheduler_is_as_it_is_written_from_the_port() -> None:
    as_it_is, as_written = ast.parse(TWIN.read_text("utf-8")), ast.parse(twin())
    assert ast.dump(as_it_is) == ast.dump(as_written), "run `python tests/repo/blocking.py`"


def test_it_has_each_public_call_with_the_same_parameters() -> None:
    calls = {
        name: call for name, call in vars(JobScheduler).items() if inspect.iscoroutinefunction(call)
    }
    public = {
        name: inspect.signature(call) for name, call in calls.items() if not name.startswith("_")
    }
    assert public.keys() == {"enqueue", "enqueue_many", "schedule", "unschedule"}
    assert {
        name: inspect.signature(getattr(BlockingJobScheduler, name)) for name in public
    } == public
