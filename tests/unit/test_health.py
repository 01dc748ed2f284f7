"""How heartbeats are judged."""

from __future__ import annotations

import pytest

from corral.fleet.processes import LIVE_SECONDS, ProcessRecord, host_of, process_name
from corral.observe.health import Health, judge_heartbeats

FRESH, STALE = ProcessRecord(2.0), ProcessRecord(LIVE_SECONDS + 0.1)
DRAINING = ProcessRecord(0.0, draining=True)
PARENT = ProcessRecord(1.0, processes=2)


def health(**heartbeats: ProcessRecord) -> Health:
    """The health by heartbeats of processes named `w1` or, for a child of `p`, `p_1`."""
    return judge_heartbeats(
        {name.replace("_", "."): heartbeat for name, heartbeat in heartbeats.items()}, "no worker"
    )


def states(found: Health) -> dict[str, str]:
    return {worker.name: worker.state for worker in found.workers}


@pytest.mark.parametrize(
    "heartbeats",
    [
        {"w1": FRESH},
        {"w1": DRAINING},
        {"w1": FRESH, "w2": STALE},
        {"p": PARENT, "p_1": FRESH, "p_2": FRESH},
        {"p": PARENT, "p_1": FRESH, "p_2": DRAINING, "p_3": STALE},
        {"p": ProcessRecord(0.0, draining=True, processes=2), "p_1": DRAINING},
        {"p": ProcessRecord(60.0, processes=2), "p_1": DRAINING},
    ],
    ids=[
        "one",
        "draining",
        "a dead one beside",
        "all of a parent",
        "all and a dead one",
        "a parent drains",
        "no parent",
    ],
)
def test_healthy(heartbeats: dict[str, ProcessRecord]) -> None:
    found = health(**heartbeats)
    assert (found.is_healthy, found.problem) == (True, "")


@pytest.mark.parametrize(
    "heartbeats", [{}, {"w1": STALE}, {"p": PARENT}, {"p": PARENT, "p_1": STALE}]
)
def test_nobody_at_work(heartbeats: dict[str, ProcessRecord]) -> None:
    found = health(**heartbeats)
    assert (found.is_healthy, found.problem) == (
        False,
        "no worker has fetched within the last 15 s",
    )


def test_a_parent_that_misses_a_process_is_not_well_although_others_are() -> None:
    found = health(w1=FRESH, p=PARENT, p_1=FRESH, p_2=STALE)
    assert not found.is_healthy
    assert found.problem == "1 of the 2 worker processes of 'p' are at work"
    assert states(found) == {"w1": "working", "p": "incomplete", "p.1": "working", "p.2": "silent"}


def test_what_a_living_worker_says_an_operator_must_know_is_not_well() -> None:
    """Each problem is reported once, however many workers have it.

    It is no reason to replace a process.
    """
    troubled = ProcessRecord(1.0, troubles=("a is damaged", "b is damaged"))
    found = health(
        w1=troubled, w2=ProcessRecord(1.0, troubles=("b is damaged", "c is damaged")), w3=FRESH
    )
    assert (found.is_healthy, found.problem) == (False, "")
    assert found.troubles == ("a is damaged", "b is damaged", "c is damaged")
    assert health(w1=FRESH, w2=ProcessRecord(60.0, troubles=("a is damaged",))).is_healthy
    draining = health(w1=ProcessRecord(0.0, draining=True, troubles=("a is damaged",)))
    assert (draining.is_healthy, states(draining)) == (False, {"w1": "draining"})


def test_children_of_a_parent_with_a_longer_name_are_not_counted() -> None:
    assert not judge_heartbeats({"p": PARENT, "p.1": FRESH, "pp.1": FRESH}, "no worker").is_healthy


def test_the_host_is_read_from_a_name() -> None:
    """A host's name may contain hyphens, and may be the beginning of another host's name."""
    own = process_name()
    assert host_of(own) == host_of(f"{own}.12")
    assert host_of("web-1-77-a1b2c3.4") == "web-1"
