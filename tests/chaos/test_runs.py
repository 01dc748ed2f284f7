"""The runs of `chaos.runs`, of Corral alone: `python -m chaos` makes the same ones, and prints them
as a table.

What needs no clock is asserted beside other tests; bounds in seconds are asserted alone, in runs of
their own.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.runs import FAKETIME, LONG_ROUNDS, RECOVERY_SECONDS, ROUNDS, RUNS, Report, Run, perform
from chaos.sides import Corral

pytestmark = pytest.mark.asyncio

Figure = Callable[[str], None]

HIT = {
    "R-01 idle",
    "R-02 running",
    "R-03 effect",
    "R-04 unstarted",
    "R-05 failing",
    "R-06 after send",
}


async def made(run: Run, site: Path, rounds: int, figure: Figure, *, timed: bool = False) -> Report:
    """Make a run; nothing may be wrong with what it leaves.

    The seed is in the figures, and in a failure's text.
    """
    if run.every_ms and not FAKETIME.exists():
        assert os.environ.get("CI") != "true", "libfaketime is missing"
        pytest.skip("libfaketime is not installed: apt-get install faketime")
    seed = int(os.environ.get("TEST_SEED") or random.randrange(10**6))
    report = await perform(run, Corral(), site=site, seed=seed, rounds=rounds, timed=timed)
    figure(str(report))
    assert not report.violations, "\n".join([str(report), *report.violations])
    return report


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
async def test_no_fault_loses_or_doubles_a_job(
    run: Run, site: Path, figure: Figure, at_length: bool
) -> None:
    """I1 to I9, I13 to I15, I17 and I19 of the reliability page, whatever the run does to store,
    workers, producers.
    """
    report = await made(run, site, LONG_ROUNDS if at_length else ROUNDS, figure)
    assert report.acked > 0
    assert report.faults, "nothing has happened"
    if run.name == "A":
        assert report.hit.keys() >= HIT, "a kind of kill hit nothing"
    if run.name == "B everysec":
        assert report.lost, "no power was lost: nothing was shown"
    if run.name == "C":
        assert report.lost, "nothing was in danger: nothing was shown"
    if run.name == "C replicated":
        assert report.unknown, "nothing was in danger: nothing was shown"
        assert report.lost == 0


@pytest.mark.timing
@pytest.mark.parametrize("name", ["A", "C", "F", "G"])
async def test_work_goes_on_in_time(name: str, site: Path, figure: Figure) -> None:
    """I10, I12 and I16: a thawed worker stops, work goes on after an outage, due jobs start; no
    clock costs a lock.
    """
    (run,) = (each for each in RUNS if each.name == name)
    report = await made(run, site, ROUNDS, figure, timed=True)
    if name in {"C", "F"}:
        assert report.recovery <= RECOVERY_SECONDS
    if name == "C":
        assert report.accepted <= RECOVERY_SECONDS
    if name == "G":
        assert (report.stalls, report.doubled) == (0, 0)
