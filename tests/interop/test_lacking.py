"""Operations of the matrix that Corral has no call for: listed row by row, until there is one and
a test of it.
"""

from __future__ import annotations

import pytest

import corral
from corral import Cron, Every
from corral.inspector import JobInspector
from corral.jobs import EnqueueOptions, JobScheduler
from interop.peers import KINDS, no_api

OPTIONS = set(EnqueueOptions.__annotations__)
SCHEDULES = {*Cron.__annotations__, *Every.__annotations__}


def lacks(row: int, name: str, there: object, what: str) -> object:
    return pytest.param(
        name, there, what, marks=pytest.mark.matrix(row, peers=tuple(KINDS)), id=f"{row}-{name}"
    )


@pytest.mark.parametrize(
    ("name", "there", "what"),
    [
        lacks(14, "keep_logs", OPTIONS, "our producer cannot say how many log lines one job keeps"),
        lacks(15, "result", dir(JobScheduler), "our producer does not wait for a job's result"),
        lacks(19, "deduplication", OPTIONS, "our producer has no deduplication"),
        lacks(20, "limit", SCHEDULES, "our schedules have no limit, first and last date"),
        lacks(22, "FlowProducer", dir(corral), "our producer makes no flows"),
        lacks(
            24,
            "change_priority",
            dir(JobInspector),
            "our operator changes neither delay nor priority",
        ),
        lacks(25, "obliterate", dir(JobInspector), "our operator does not obliterate a queue"),
    ],
)
def test_we_have_no_call_for_this(name: str, there: object, what: str) -> None:
    assert isinstance(there, (set, list))
    assert name not in there, "there is one now, and this row of the matrix needs its test"
    no_api(what)
