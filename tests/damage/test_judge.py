"""The judge tells every fault that it is there for: one that finds nothing anywhere would pass
every other test.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from damage.judge import (
    KEY_WORDS,
    Left,
    Snapshot,
    final_faults,
    misplaced,
    read_left,
    take_snapshots,
)
from damage.matrix import CONCURRENCIES, QUEUE_KEYS, all_cases, all_runs, sampled

BASE = "bull:judged:"


def healthy() -> dict[str, Any]:
    """What is left where two innocents completed, one job was hurt and failed, and two are in the
    quarantine.
    """
    reason = json.dumps(
        {"at": 1, "from": "wait", "reason": "its key bull:judged:q is a string", "key": ""}
    )
    return {
        "places": {
            b"a": ("completed",),
            b"b": ("completed",),
            b"h": ("failed",),
            b"q": ("quarantine",),
            b"stalled": ("quarantine",),
        },
        "kinds": {
            b"a": "hash",
            b"b": "hash",
            b"h": "hash",
            b"meta": "hash",
            b"repeat:s": "hash",
            b"dn:d": "hash",
        },
        "reasons": {b"h": "DAMAGED bull:judged:h:logs is a string"},
        "quarantine": {b"q": reason.encode(), b"stalled": b"no JSON \xff"},
        "innocents": [b"a", b"b"],
        "hurt": {b"h": ["h:logs"], b"q": ["judged:q"]},
        "key_words": [b"stalled"],
        "ghosts": [b"ghost"],
    }


def found(queue: dict[str, Any]) -> set[tuple[str, bytes]]:
    left = Left(*(queue[name] for name in ("places", "kinds", "reasons", "quarantine")))
    expected = {name: queue[name] for name in ("innocents", "hurt", "key_words", "ghosts")}
    return {(fault.kind, fault.job) for fault in final_faults(left, **expected)}


def test_a_healthy_queue_has_no_faults() -> None:
    assert found(healthy()) == set()


@pytest.mark.parametrize(
    ("break_it", "expected"),
    [
        (lambda q: q["places"].pop(b"a"), ("lost", b"a")),
        (lambda q: q["places"].update({b"a": ("wait", "completed")}), ("doubled", b"a")),
        (lambda q: q["places"].update({b"a": ("completed", "quarantine")}), ("doubled", b"a")),
        (lambda q: q["places"].update({b"a": ("wait", "wait")}), ("doubled", b"a")),
        (lambda q: q["places"].update({b"a": ("active",)}), ("stuck", b"a")),
        (lambda q: q["places"].update({b"a": ("failed",)}), ("stuck", b"a")),
        (lambda q: q["places"].update({b"a": ("quarantine",)}), ("stuck", b"a")),
        (lambda q: q["kinds"].pop(b"a"), ("lost", b"a")),
        (lambda q: q["kinds"].update({b"a:lock": "string"}), ("locked", b"a")),
        (lambda q: q["places"].pop(b"h"), ("lost", b"h")),
        (lambda q: q["places"].update({b"h": ("active",)}), ("stuck", b"h")),
        (lambda q: q["reasons"].update({b"h": "ResponseError"}), ("reason", b"h")),
        (lambda q: q["reasons"].pop(b"h"), ("reason", b"h")),
        (lambda q: q["quarantine"].update({b"q": b'{"reason": "something"}'}), ("reason", b"q")),
        (lambda q: q["quarantine"].update({b"q": b"5"}), ("reason", b"q")),
        (lambda q: q["places"].pop(b"stalled"), ("lost", b"stalled")),
        (lambda q: q["places"].update({b"stalled": ("completed",)}), ("stuck", b"stalled")),
        (lambda q: q["places"].update({b"stalled": ("wait", "quarantine")}), ("stuck", b"stalled")),
        (lambda q: q["places"].update({b"ghost": ("wait",)}), ("stuck", b"ghost")),
        (lambda q: q["kinds"].update({b"ghost": "hash"}), ("orphan", b"ghost")),
        (lambda q: q["kinds"].update({b"next": "hash"}), ("orphan", b"next")),
        (lambda q: q["kinds"].update({b"repeat:s:5": "hash"}), ("orphan", b"repeat:s:5")),
        (lambda q: q["places"].update({b"gone": ("completed",)}), ("orphan", b"gone")),
    ],
)
def test_each_fault_is_reported(
    break_it: Callable[[dict[str, Any]], object], expected: tuple[str, bytes]
) -> None:
    queue = healthy()
    break_it(queue)
    assert expected in found(queue)


def test_what_was_hurt_may_end_in_three_ways() -> None:
    for where in ("completed", "failed", "quarantine"):
        queue = healthy()
        queue["places"][b"h"] = (where,)
        queue["quarantine"][b"h"] = b"h:logs"
        assert found(queue) == set()


def test_a_job_is_in_one_place_at_every_moment() -> None:
    places = {b"a": ("wait",), b"b": ("wait", "active"), b"q": ("quarantine",)}
    faults = misplaced(Snapshot(places), [b"a", b"b", b"c", b"q"])
    assert [(fault.kind, fault.text) for fault in faults] == [
        ("doubled", "b is in wait and active"),
        ("lost", "c is in no place"),
    ]


@pytest.mark.asyncio
@pytest.mark.corral_untidy("it holds what the judge must find")
async def test_a_snapshot_holds_what_is_in_the_store(binary: Any) -> None:
    await binary.lpush(f"{BASE}wait", "a", b"\xff\n", "a")
    await binary.zadd(f"{BASE}completed", {"b": 1})
    await binary.set(f"{BASE}active", "damaged")
    await binary.rpush(f"aside:{BASE}active", "c")
    await binary.rpush(f"aside:{BASE}wait", "not asked for")
    await binary.hset(f"corral:{BASE}quarantine", "d", "{}")

    own, other = await take_snapshots(binary, [(BASE, "active"), ("bull:empty:", "")])

    assert own.places == {
        b"a": ("wait", "wait"),
        b"\xff\n": ("wait",),
        b"b": ("completed",),
        b"c": ("active",),
        b"d": ("quarantine",),
    }
    assert own.holds("wait")
    assert not own.holds("failed")
    assert other.places == {}


@pytest.mark.asyncio
@pytest.mark.corral_untidy("it holds what the judge must find")
async def test_what_is_left_is_read_whatever_its_type(binary: Any) -> None:
    await binary.zadd(f"{BASE}failed", {"a": 1, "b": 2, "c": 3})
    await binary.hset(f"{BASE}a", "failedReason", "because")
    await binary.set(f"{BASE}b", "no job")
    await binary.hset(f"{BASE}[c]", "name", "x")
    await binary.set(f"corral:{BASE}quarantine", "not even this is a hash")
    await binary.set("bull:judgedX:a", "another queue's")

    left = await read_left(binary, BASE)

    assert left.places == dict.fromkeys((b"a", b"b", b"c"), ("failed",))
    assert left.kinds == {b"failed": "zset", b"a": "hash", b"b": "string", b"[c]": "hash"}
    assert left.reasons == {b"a": "because"}
    assert left.quarantine == {}


def test_the_matrix_has_every_key_with_every_wrong_type() -> None:
    cases = all_cases()
    assert QUEUE_KEYS.keys() - {"delay"} == KEY_WORDS
    damaged = {
        (case.key, str(case.damage.value))
        for case in cases
        if case.damage and case.damage.kind == "type"
    }
    types = {"string", "list", "set", "zset", "hash", "stream"}
    for key, right in QUEUE_KEYS.items():
        assert {kind for name, kind in damaged if name == key} == types - {right}, key


def test_a_sample_has_something_of_each_group_and_is_the_same_every_time() -> None:
    runs = all_runs(all_cases())
    sample = sampled(runs, 60)
    assert len(set(sample)) == 60
    assert {case.group for case, _ in sample} == {case.group for case, _ in runs}
    assert {slots for _, slots in sample} == set(CONCURRENCIES)
    assert sampled(runs, 60) == sample
    assert len(sampled(runs, 10**6)) == len(runs)
