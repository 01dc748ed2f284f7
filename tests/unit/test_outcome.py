"""Outcomes: whether a further attempt follows, and the exception of a failed attempt."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, get_args

import pytest

from corral import Payload, Queue, errors
from corral import outcome as outcomes
from corral.outcome import (
    Completed,
    Failed,
    HandedBack,
    LeaseLost,
    Outcome,
    QueueLimited,
    Retried,
    Snoozed,
    TimedOut,
)
from corral.testing import job as make_job

HOOKS = Path(__file__).parents[2] / "docs" / "hooks.md"

FINAL = [
    (Completed(), True),
    (Failed("x"), True),
    (Retried("x", 0), False),
    (TimedOut("x", None), True),
    (TimedOut("x", 0), False),
    (TimedOut("x", 70), False),
    (Snoozed(1), False),
    (QueueLimited(1), False),
    (HandedBack(), False),
    (LeaseLost(), False),
]
FAILED = [Failed("x", "trace"), Retried("x", 70, "trace"), TimedOut("x", 70, "trace")]


def test_every_outcome_knows_whether_it_is_final() -> None:
    assert {type(outcome) for outcome, _ in FINAL} == set(get_args(Outcome))
    for outcome, final in FINAL:
        assert outcome.final is final, outcome
        assert type(outcome).final.__doc__


@pytest.mark.parametrize("outcome", FAILED, ids=lambda each: type(each).__name__)
def test_the_error_is_left_out_of_comparisons_and_of_the_repr(outcome: Any) -> None:
    error = ValueError("secret")
    carrying = replace(outcome, error=error)
    assert outcome.error is None
    assert carrying.error is error
    assert carrying == outcome
    assert hash(carrying) == hash(outcome)
    assert repr(carrying) == repr(outcome)
    assert "error" not in type(outcome).__match_args__


def test_only_failed_attempts_have_an_error() -> None:
    having = {
        kind for kind in get_args(Outcome) if "error" in {field.name for field in fields(kind)}
    }
    assert having == {Failed, Retried, TimedOut}


class TestTheErrorTrackerOfTheDocumentation:
    """The subscriber that `docs/hooks.md` shows for Sentry, without Sentry's library."""

    class Nothing(Payload):
        pass

    @pytest.fixture
    def captured(self, monkeypatch: pytest.MonkeyPatch) -> list[object]:
        captured: list[object] = []

        @contextmanager
        def new_scope() -> Iterator[Any]:
            yield SimpleNamespace(
                set_context=lambda name, value: captured.append((name, value["id"])),
                capture_exception=captured.append,
                capture_message=lambda text, level: captured.append((level, text)),
            )

        library = ModuleType("sentry_sdk")
        vars(library)["new_scope"] = new_scope
        monkeypatch.setitem(sys.modules, "sentry_sdk", library)
        return captured

    def test_it_gets_last_attempts_with_their_exceptions(self, captured: list[object]) -> None:
        blocks = re.findall(
            r"^```python\n(.*?)^```", HOOKS.read_text("utf-8"), re.MULTILINE | re.DOTALL
        )
        (example,) = [block for block in blocks if "outcome.error" in block]
        assert "outcome.final" in example
        names: dict[str, Any] = {}
        exec(compile(example, HOOKS, "exec"), names)
        job, error = make_job(Queue("nothing", self.Nothing), {}, id="7"), ValueError("x")
        for outcome, _ in FINAL:
            failed = {"error": error} if "error" in type(outcome).__dataclass_fields__ else {}
            names["corral_job_ended"](job, replace(outcome, **failed))
        assert captured == [("job", "7"), error] * 2
        captured.clear()
        names["corral_job_ended"](job, Failed("too large"))
        assert captured == [("job", "7"), ("error", "too large")]


def test_no_outcome_has_the_name_of_an_exception() -> None:
    assert not set(outcomes.__all__) & set(errors.__all__)
