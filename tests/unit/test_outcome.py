"""What every outcome says: whether a further attempt follows, and what failed."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, get_args

import pytest

from corral.outcome import (
    Completed,
    Failed,
    HandedBack,
    LeaseLost,
    Outcome,
    RateLimited,
    Retried,
    Snoozed,
    TimedOut,
)

FINAL = [
    (Completed(), True),
    (Failed("x"), True),
    (Retried("x", 0), False),
    (TimedOut("x", None), True),
    (TimedOut("x", 0), False),
    (TimedOut("x", 70), False),
    (Snoozed(1), False),
    (RateLimited(1), False),
    (HandedBack(), False),
    (LeaseLost(), False),
]
FAILED = [Failed("x", "trace"), Retried("x", 70, "trace"), TimedOut("x", 70, "trace")]


def test_every_outcome_says_whether_it_is_final() -> None:
    assert {type(outcome) for outcome, _ in FINAL} == set(get_args(Outcome))
    for outcome, final in FINAL:
        assert outcome.final is final, outcome
        assert type(outcome).final.__doc__


@pytest.mark.parametrize("outcome", FAILED, ids=lambda each: type(each).__name__)
def test_the_error_is_no_part_of_what_a_failed_outcome_is(outcome: Any) -> None:
    error = ValueError("secret")
    carrying = replace(outcome, error=error)
    assert outcome.error is None
    assert carrying.error is error
    assert carrying == outcome
    assert hash(carrying) == hash(outcome)
    assert repr(carrying) == repr(outcome)
    assert "error" not in type(outcome).__match_args__


def test_only_failed_attempts_carry_an_error() -> None:
    having = {kind for kind in get_args(Outcome) if "error" in {field.name for field in fields(kind)}}
    assert having == {Failed, Retried, TimedOut}
