"""Whether and when a worker process that has ended is started again, and what the parent exits
with.
"""

from __future__ import annotations

import pytest

from corral.app.restart_policy import (
    HEALTHY_SECONDS,
    LONGEST_SECONDS,
    REFUSED_STARTS,
    RestartPolicy,
    describe_exit,
    exit_code,
)

AT_ONCE, LONG = 0.5, HEALTHY_SECONDS + 1


def test_waits_grow_up_to_a_longest_and_each_is_spread_over_half_of_it() -> None:
    late, early = RestartPolicy(), RestartPolicy()
    waits = [
        (early.next_start(1, AT_ONCE, 0.0), late.next_start(1, AT_ONCE, 1.0)) for _ in range(12)
    ]
    assert waits[:4] == [(0.1, 0.2), (0.2, 0.4), (0.4, 0.8), (0.8, 1.6)]
    assert waits[-1] == (LONGEST_SECONDS / 2, LONGEST_SECONDS)


def test_a_healthy_while_makes_the_waits_begin_anew() -> None:
    policy = RestartPolicy()
    grown = [policy.next_start(-9, AT_ONCE, 1.0) for _ in range(5)][-1]
    assert grown == 3.2
    assert policy.next_start(-9, LONG, 1.0) == 0.2
    assert policy.next_start(-9, AT_ONCE, 1.0) == 0.4


@pytest.mark.parametrize("code", [0, 5])
def test_one_that_was_signalled_to_stop_is_replaced_at_once(code: int) -> None:
    policy = RestartPolicy()
    policy.next_start(1, AT_ONCE, 1.0)
    assert policy.next_start(code, AT_ONCE, 1.0) == 0.0


@pytest.mark.parametrize("code", [2, 3])
def test_a_refusal_at_the_first_start_is_final(code: int) -> None:
    assert RestartPolicy().next_start(code, AT_ONCE, 1.0) is None


def test_where_workers_have_started_before_only_refusals_in_a_row_are_final() -> None:
    """An upgrade may be under way: the packages do not fit together for a moment."""
    policy = RestartPolicy()
    assert policy.next_start(1, LONG, 1.0) is not None
    in_a_row = [policy.next_start(3, AT_ONCE, 1.0) for _ in range(REFUSED_STARTS - 1)]
    assert None not in in_a_row
    assert policy.next_start(1, AT_ONCE, 1.0) is not None
    assert [policy.next_start(3, AT_ONCE, 1.0) is None for _ in range(REFUSED_STARTS)] == [
        False,
        False,
        True,
    ]


@pytest.mark.parametrize("code", [1, 4, -9])
def test_any_other_end_is_never_final(code: int) -> None:
    policy = RestartPolicy()
    assert None not in {policy.next_start(code, AT_ONCE, 0.5) for _ in range(50)}


@pytest.mark.parametrize(
    ("codes", "expected"),
    [([], 0), ([0, 0], 0), ([0, 5], 5), ([0, -9], 5), ([0, 1, 0], 1), ([1, 5, 0], 5)],
)
def test_the_parent_exits_with_the_worst(codes: list[int], expected: int) -> None:
    assert exit_code(codes) == expected


def test_an_end_is_described_in_words() -> None:
    assert [describe_exit(code) for code in (0, 3, -11, -250)] == [
        "exit code 0",
        "exit code 3",
        "SIGSEGV",
        "signal 250",
    ]
