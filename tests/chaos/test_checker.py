"""The checker reports every violation that it is there for: one that finds nothing anywhere would
pass every other test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chaos import checker, history
from chaos.checker import Bounds, Snapshot, faults, run_faults, snapshot
from chaos.journal import Line


def healthy() -> dict[str, Any]:
    """Two jobs that ran once, one of them fetched twice, and one whose first worker died."""
    return {
        "places": {"wait": [], "active": [], "completed": ["a", "b", "c"]},
        "jobs": {"a": {"ats": "1"}, "b": {"ats": "2"}, "c": {"ats": "2", "stc": "1"}},
        "locks": [],
        "enqueued": {"a", "b", "c"},
        "lines": [
            Line(1.0, 7, event, job, 1, (5, 1)) for job in "abc" for event in ("start", "end")
        ],
    }


def found(queue: dict[str, Any]) -> list[str]:
    return faults(
        [Snapshot(queue["places"], queue["jobs"], queue["locks"])],
        queue["enqueued"],
        queue["lines"],
    )


def test_a_healthy_queue_has_no_faults() -> None:
    assert found(healthy()) == []


@pytest.mark.parametrize(
    ("break_it", "violation"),
    [
        (lambda q: q["enqueued"].add("d"), "d is lost"),
        (lambda q: q["enqueued"].remove("b"), "b was never enqueued"),
        (lambda q: q["places"]["completed"].remove("b"), "b is in no place"),
        (lambda q: q["places"]["completed"].append("b"), "b is in 2 places"),
        (lambda q: q["places"]["wait"].append("a"), "a is in 2 places"),
        (lambda q: q["places"]["wait"].append("a"), "a is in wait"),
        (lambda q: q["places"]["active"].append("ghost"), "ghost is in a place and has no fields"),
        (lambda q: q["locks"].append("a"), "a is locked"),
        (
            lambda q: q["lines"].remove(Line(1.0, 7, "end", "a", 1, (5, 1))),
            "a is completed and never ran to its end",
        ),
        (lambda q: q["jobs"]["a"].update(stc="1"), "a was fetched 1 times and stalled 1 times"),
        (
            lambda q: q["lines"].append(Line(2.0, 8, "start", "a")),
            "a ran 2 times and stalled 0 times",
        ),
        (
            lambda q: q["lines"].append(Line(2.0, 8, "start", "c", 1, (5, 1))),
            "c started 2 times as (5, 1)",
        ),
    ],
)
def test_each_violation_is_reported(
    break_it: Callable[[dict[str, Any]], object], violation: str
) -> None:
    queue = healthy()
    break_it(queue)
    assert violation in found(queue)


@pytest.mark.asyncio
@pytest.mark.corral_untidy("it holds what the checker must find")
async def test_a_snapshot_holds_what_is_in_the_store(raw: Any) -> None:
    await raw.hset("bull:chaos:meta", "opts.maxLenEvents", "10000")
    await raw.xadd("bull:chaos:events", {"event": "added"})
    await raw.hset("bull:chaos:metrics:completed", "count", 3)
    for job in ("a", "b", "c"):
        await raw.hset(f"bull:chaos:{job}", "ats", "1")
    await raw.rpush("bull:chaos:wait", "a")
    await raw.zadd("bull:chaos:completed", {"b": 1, "ghost": 2})
    await raw.set("bull:chaos:b:lock", "token")
    await raw.rpush("bull:chaos:b:logs", "a line")

    left = await snapshot(raw, "bull:chaos:")

    assert {name: ids for name, ids in left.places.items() if ids} == {
        "wait": ["a"],
        "completed": ["b", "ghost"],
    }
    assert left.jobs == {job: {"ats": "1"} for job in ("a", "b", "c")}
    assert left.locks == ["b"]
    assert (left.counted, left.events, left.max_events) == (
        {"completed": 3, "failed": 0},
        1,
        10_000,
    )


def ran() -> dict[str, Any]:
    """A run: `a` ran once, `b` again after a kill, `c` was due at 3.0 s, `d` may have been written,
    `e` was refused.
    """
    at = [
        *_call("enq.ok", "a", 1.0),
        *_call("enq.ok", "b", 1.0),
        *_call("enq.ok", "c", 1.0),
        *_call("enq.unknown", "d", 1.0),
        *_call("enq.fail", "e", 1.0),
        *_start("a", 1.1, 7, 1),
        *_start("b", 1.2, 7, 1)[:2],
        Line(1.3, 7, "fault.begin", history.WORKER_KILLED),
        Line(1.3, 7, "fault.end", history.WORKER_KILLED),
        *_start("b", 2.4, 8, 2),
        *_start("c", 3.01, 8, 1),
    ]
    jobs = {
        "a": {"ats": "1", "returnvalue": "1"},
        "b": {"ats": "2", "stc": "1", "returnvalue": "2"},
        "c": {"ats": "1", "returnvalue": "1", "timestamp": "1000", "opts": '{"delay":2000}'},
    }
    return {
        "places": {"wait": [], "active": [], "completed": ["a", "b", "c"], "failed": []},
        "jobs": jobs,
        "locks": [],
        "counted": {"completed": 3, "failed": 0},
        "events": 1100,
        "max_events": 1000,
        "lines": at,
        "bounds": Bounds(extra_starts=1, overlap_seconds=0.5, late_seconds=0.25),
    }


def _call(answer: str, job: str, at: float) -> list[Line]:
    return [Line(at, 5, "enq.invoke", job), Line(at + 0.01, 5, answer, job)]


def _start(job: str, at: float, pid: int, start: int) -> list[Line]:
    fence = (1000, start)
    return [
        Line(at + place / 100, pid, event, job, 1, fence)
        for place, event in enumerate(("start", "effect", "end"))
    ]


def judged(run: dict[str, Any]) -> list[str]:
    names = ("places", "jobs", "locks", "counted", "events", "max_events")
    lines = sorted(run["lines"], key=lambda line: line.at)
    return run_faults(Snapshot(**{name: run[name] for name in names}), lines, run["bounds"])


def test_a_run_whose_faults_are_accounted_for_has_none() -> None:
    run = ran()
    assert judged(run) == []
    assert history.kills(run["lines"]) == {"R-03 effect": 1}
    assert history.recoveries(run["lines"]) == [pytest.approx(1.1)]


def test_a_due_job_that_stalled_is_not_late() -> None:
    run = ran()
    run["jobs"]["c"] |= {"timestamp": "500", "stc": "1", "ats": "2"}
    assert judged(run) == []


def loses_power(run: dict[str, Any], seconds: float) -> None:
    """`z` is acknowledged so long before power fails, and gone; under `everysec`, the last 2 s may
    be.
    """
    run["lines"] += [
        *_call("enq.ok", "z", 10.0 - seconds),
        Line(10.0, 0, "fault.begin", history.POWER_LOST),
    ]
    run["lines"] += [Line(10.1, 0, "fault.end", history.POWER_LOST)]
    run["bounds"] = replace(run["bounds"], lost_seconds=2.0, set_back_seconds=2.1)


def fails_over(run: dict[str, Any], acked: float) -> None:
    """`z` is acknowledged at a moment, and gone: a replica that is cut off from 10 s on takes over
    at 12 s.
    """
    run["lines"] += [
        *_call("enq.ok", "z", acked - 0.01),
        Line(10.0, 0, "fault.begin", history.REPLICA_CUT_OFF),
    ]
    run["lines"] += [Line(12.0, 0, "fault.end", history.REPLICA_CUT_OFF)]
    run["bounds"] = replace(run["bounds"], lost_seconds=0.2, set_back_seconds=0.2)


def starts_anew(run: dict[str, Any], at: float) -> None:
    """`a` is acknowledged at 9 s and runs at a moment, and under the same number on the replica
    that takes over.
    """
    fails_over(run, 11.0)
    run["lines"] = [line for line in run["lines"] if line.id != "a"]
    run["lines"] += [*_call("enq.ok", "a", 9.0), *_start("a", at, 7, 1), *_start("a", 12.5, 8, 1)]


def keeps_a_stale_result(run: dict[str, Any]) -> None:
    """The first start of `b` was frozen, not killed: it goes on, and the store takes its result."""
    run["lines"] = [line for line in run["lines"] if not line.event.startswith("fault.")]
    run["lines"].append(Line(2.5, 7, "end", "b", 1, (1000, 1)))
    run["jobs"]["b"]["returnvalue"] = "1"


def runs_on(run: dict[str, Any]) -> None:
    """The first start of `b` is not stopped when the second one begins, and lasts."""
    keeps_a_stale_result(run)
    run["lines"] = [line for line in run["lines"] if (line.id, line.event) != ("b", "end")]


@pytest.mark.parametrize(
    ("break_it", "violation"),
    [
        # I1: and what a crash may take
        (lambda r: r["lines"].extend(_call("enq.ok", "z", 1.0)), "z is lost"),
        (lambda r: loses_power(r, 2.5), "z is lost"),
        (lambda r: (loses_power(r, 1.5), r.update(bounds=Bounds(1))), "z is lost"),
        (lambda r: fails_over(r, 9.7), "z is lost"),
        (lambda r: fails_over(r, 12.1), "z is lost"),
        (
            lambda r: (
                fails_over(r, 11.0),
                r.update(bounds=replace(r["bounds"], lost_seconds=0.0)),
            ),
            "z is lost",
        ),
        (lambda r: starts_anew(r, 9.5), "a started 2 times as (1000, 1)"),
        (
            lambda r: (starts_anew(r, 11.0), r.update(bounds=Bounds(1, 0.2))),
            "a started 2 times as (1000, 1)",
        ),
        # I3: nothing is invented
        (lambda r: r["lines"].extend(_start("z", 1.5, 7, 1)), "z started and was never enqueued"),
        (lambda r: r["lines"].extend(_start("e", 1.5, 7, 1)), "e was refused and started"),
        (lambda r: r["jobs"].update(e={"ats": "1"}), "e was refused and is there"),
        (lambda r: r["jobs"].update(y={"ats": "1"}), "y was never enqueued"),
        # I7: duplicates are accounted for
        (
            lambda r: r.update(bounds=Bounds(extra_starts=0)),
            "1 extra starts, and the faults account for 0",
        ),
        (lambda r: r["lines"].extend(_start("a", 2.0, 8, 2)), "a ran 2 times and stalled 0 times"),
        # I9: one writer wins, in the store and in the sink
        (keeps_a_stale_result, "b has the result of start 1 and the effect of start 2"),
        # I10: two starts at once
        (runs_on, "two starts of b ran at once for 0.63 s"),
        # I16: due jobs start in time, and not before
        (
            lambda r: r["jobs"]["c"].update(timestamp="500"),
            "of 100 due jobs, 99 started within 0.51 s, not 0.25 s",
        ),
        (lambda r: r["jobs"]["c"].update(timestamp="1500"), "c started 0.49 s too early"),
        # I17: the stream is bounded
        (lambda r: r.update(events=1101), "the event stream has 1101 entries, and is cut at 1000"),
        # I19: what is counted is what happened
        (
            lambda r: r["counted"].update(completed=4),
            "4 jobs are counted as completed, and there are 3",
        ),
        (lambda r: r["counted"].update(failed=1), "1 jobs are counted as failed, and there are 0"),
    ],
)
def test_each_violation_of_a_run_is_reported(
    break_it: Callable[[dict[str, Any]], object], violation: str
) -> None:
    run = ran()
    break_it(run)
    assert violation in judged(run)


def test_what_the_faults_account_for_is_none() -> None:
    """What power took or a replica never had, a start that an outage held up, an effect that the
    sink refuses.
    """
    run = ran()
    loses_power(run, 1.5)
    assert judged(run) == []
    run = ran()
    loses_power(run, -0.05)  # between the journal's line and the store's death
    assert judged(run) == []
    for acked in (9.9, 11.0):
        run = ran()
        fails_over(run, acked)
        assert judged(run) == []
    run = ran()
    starts_anew(run, 11.0)
    assert judged(run) == []
    run = ran()
    run["jobs"]["c"]["timestamp"] = "100"
    run["lines"] += [Line(2.0, 0, "fault.begin", "READONLY"), Line(2.9, 0, "fault.end", "READONLY")]
    assert judged(run) == []
    run = ran()
    run["lines"].append(Line(2.5, 7, "effect", "b", 1, (1000, 1)))
    assert judged(run) == []
    assert checker.sink(run["lines"])[1] == 1


@pytest.mark.parametrize(
    ("ticks", "violations"),
    [
        ([1000, 2000, 3000], []),
        ([1000, 2000, 2000], ["repeat:x:2000 started 2 times"]),
        ([1000, 3000], ["2000 ms lie between two ticks, not 1000"]),
        ([], ["the schedule never ran"]),
    ],
)
def test_a_tick_that_is_missing_or_doubled_is_reported(
    ticks: list[int], violations: list[str]
) -> None:
    lines = [Line(tick / 1000, 7, "start", f"repeat:x:{tick}", 1, (0, 1)) for tick in ticks]
    assert checker.tick_faults(lines, 1000) == violations


@pytest.mark.parametrize(
    ("lines", "hit"),
    [
        ([], "R-01 idle"),
        (_start("a", 1.0, 7, 1), "R-01 idle"),
        (_start("a", 1.0, 7, 1)[:1], "R-02 running"),
        (_start("a", 1.0, 7, 1)[:2], "R-03 effect"),
        ([Line(1.0, 7, "hold", "a", where="fetched")], "R-04 unstarted"),
        ([Line(1.0, 7, "hold", "a", where="failing")], "R-05 failing"),
    ],
)
def test_the_journal_tells_what_a_kill_hit(lines: list[Line], hit: str) -> None:
    assert history.kills([*lines, Line(2.0, 7, "fault.begin", history.WORKER_KILLED)]) == {hit: 1}


def test_the_journal_tells_when_work_and_acknowledgements_go_on_after_an_outage() -> None:
    outage = [Line(2.0, 0, "fault.begin", "READONLY"), Line(3.0, 0, "fault.end", "READONLY")]
    lines = [
        *_call("enq.ok", "a", 1.0),
        *outage,
        *_start("a", 3.2, 7, 1),
        *_call("enq.ok", "b", 3.4),
    ]
    assert history.recoveries(lines) == [pytest.approx(0.2)]
    assert history.acceptances(lines) == [pytest.approx(0.41)]
    assert history.acceptances(lines[:-2]) == []


def test_the_journal_tells_that_a_killed_producer_had_sent() -> None:
    killed = Line(2.0, 5, "fault.begin", history.PRODUCER_KILLED)
    assert history.kills([*_call("enq.ok", "a", 1.0)[:1], killed]) == {"R-06 after send": 1}
    assert history.kills([*_call("enq.ok", "a", 1.0), killed]) == {}
