"""The checker tells every fault that it is there for: one that finds nothing anywhere would pass every other test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from chaos.checker import Snapshot, faults, snapshot
from chaos.journal import Line


def healthy() -> dict[str, Any]:
    """Two jobs that ran once, one of them fetched twice, and one whose first worker died."""
    return {
        "places": {"wait": [], "active": [], "completed": ["a", "b", "c"]},
        "jobs": {"a": {"ats": "1"}, "b": {"ats": "2"}, "c": {"ats": "2", "stc": "1"}},
        "locks": [],
        "enqueued": {"a", "b", "c"},
        "lines": [Line(1.0, 7, event, job, 1, (5, 1)) for job in "abc" for event in ("start", "end")],
    }


def found(queue: dict[str, Any]) -> list[str]:
    return faults([Snapshot(queue["places"], queue["jobs"], queue["locks"])], queue["enqueued"], queue["lines"])


def test_a_healthy_queue_has_no_faults() -> None:
    assert found(healthy()) == []


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (lambda q: q["enqueued"].add("d"), "d is lost"),
        (lambda q: q["enqueued"].remove("b"), "b was never enqueued"),
        (lambda q: q["places"]["completed"].remove("b"), "b is in no place"),
        (lambda q: q["places"]["completed"].append("b"), "b is in 2 places"),
        (lambda q: q["places"]["wait"].append("a"), "a is in 2 places"),
        (lambda q: q["places"]["wait"].append("a"), "a is in wait"),
        (lambda q: q["places"]["active"].append("ghost"), "ghost is in a place and has no fields"),
        (lambda q: q["locks"].append("a"), "a is locked"),
        (lambda q: q["lines"].remove(Line(1.0, 7, "end", "a", 1, (5, 1))), "a is completed and never ran to its end"),
        (lambda q: q["jobs"]["a"].update(stc="1"), "a was fetched 1 times and stalled 1 times"),
        (lambda q: q["lines"].append(Line(2.0, 8, "start", "a")), "a ran 2 times and stalled 0 times"),
        (lambda q: q["lines"].append(Line(2.0, 8, "start", "c", 1, (5, 1))), "c started 2 times as (5, 1)"),
    ],
)
def test_each_fault_is_told(break_it: Callable[[dict[str, Any]], object], told: str) -> None:
    queue = healthy()
    break_it(queue)
    assert told in found(queue)


@pytest.mark.asyncio
@pytest.mark.corral_untidy("it holds what the checker must find")
async def test_a_snapshot_holds_what_is_in_the_store(raw: Any) -> None:
    await raw.hset("bull:chaos:meta", "opts.maxLenEvents", "10000")
    await raw.xadd("bull:chaos:events", {"event": "added"})
    for job in ("a", "b", "c"):
        await raw.hset(f"bull:chaos:{job}", "ats", "1")
    await raw.rpush("bull:chaos:wait", "a")
    await raw.zadd("bull:chaos:completed", {"b": 1, "ghost": 2})
    await raw.set("bull:chaos:b:lock", "token")
    await raw.rpush("bull:chaos:b:logs", "a line")

    left = await snapshot(raw, "bull:chaos:")

    assert {name: ids for name, ids in left.places.items() if ids} == {"wait": ["a"], "completed": ["b", "ghost"]}
    assert left.jobs == {job: {"ats": "1"} for job in ("a", "b", "c")}
    assert left.locks == ["b"]
