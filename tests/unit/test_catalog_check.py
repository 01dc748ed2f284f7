"""Judging what a queue declares: names, options, payloads, schedules; and the fingerprint of a payload's shape."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from pydantic import Field

from corral import Cron, Every, JobOptions, Payload, Queue
from corral.catalog.check import RESERVED, check_names, check_queue, fingerprint
from corral.plugins import Claim, Provider, Report

ACME = Provider("acme", "1.0", "wheel")


class Nothing(Payload):
    pass


class ReportExport(Payload):
    report_id: str


def judged(**options: Any) -> list[tuple[str, str]]:
    report = Report()
    check_queue(Queue("a", options.pop("payload", Nothing), **options), ACME, report)
    return [(problem.code, problem.message) for problem in report.problems]


def named(*names: str) -> list[str]:
    report = Report()
    check_names([Claim(name, "acme", "corral.queues", ACME) for name in names], report)
    return [problem.code for problem in report.problems]


@pytest.mark.parametrize("name", ["a", "2fa", "usage-period-rollover", "a" * 64, "x-1-y"])
def test_kebab_case(name: str) -> None:
    assert named(name) == []


@pytest.mark.parametrize("name", ["", "-a", "a-", "a--b", "A", "a_b", "a.b", "a b", "a:b", "é", "a" * 65, "a\n", "{a}"])
def test_not_kebab_case(name: str) -> None:
    assert named(name) == ["bad-name"]


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_names_whose_settings_would_be_those_of_the_core(name: str) -> None:
    assert len(RESERVED) == 10
    assert named(name) == ["reserved-name"]
    assert named(f"{name}-s") == []


def test_three_claims_are_told_with_the_one_to_keep_first() -> None:
    report = Report()
    providers = [Provider(name, "1.0", "wheel") for name in ("acme", "corral-a", "zeta")]
    check_names([Claim("a", "m", "corral.queues", provider) for provider in providers], report)
    (problem,) = report.problems
    assert problem.message == (
        "queue 'a' is provided 3 times: corral-a 1.0 (wheel) and acme 1.0 (wheel) and zeta 1.0 (wheel)"
    )
    assert problem.hint == "uninstall one, or disable it: CORRAL_DISABLED_PLUGINS=acme,zeta"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"timeout": timedelta(seconds=1), "concurrency": 1},
        {"schedule": Every(timedelta(milliseconds=1))},
        {"schedule": Cron("5 * * * *")},
        {"schedule": Cron("30 5 * * * *", tz="Europe/Berlin")},
        {"schedule": Cron("0 0 29 2 *")},
    ],
)
def test_sound_declarations(options: Any) -> None:
    assert judged(**options) == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"timeout": timedelta(0)}, "has the timeout 0:00:00, which no job can keep"),
        ({"concurrency": 0}, "has the concurrency 0, with which no job can run"),
        ({"options": JobOptions(attempts=-1)}, "has options that every job of it would be refused for: attempts -1"),
    ],
)
def test_options_with_which_no_job_runs(options: Any, told: str) -> None:
    ((code, message),) = judged(**options)
    assert code == "bad-options"
    assert message.startswith(f"queue 'a' of acme 1.0 {told}")


@pytest.mark.parametrize(
    ("schedule", "told"),
    [
        (Every(timedelta(0)), "every 0:00:00"),
        (Every(timedelta(microseconds=500)), "every 0:00:00.000500"),
        (Cron("61 * * * *"), "'61 * * * *': Bad minute"),
        (Cron("@often"), "'@often': "),
        (Cron("0 0 15W * *"), "'0 0 15W * *': "),
        (Cron("* * * *"), "'* * * *': "),
        (Cron("0 0 30 2 *"), "'0 0 30 2 *'"),
        (Cron("5 * * * *", tz="Mars/Olympus"), "no time zone is named 'Mars/Olympus'"),
        (Cron("5 * * * *", tz="Europe"), "no time zone is named 'Europe'"),
        (Cron("5 * * * *", tz="../../etc/passwd"), "no time zone is named"),
        (Cron("5 * * * *", tz=""), "no time zone is named ''"),
    ],
)
def test_schedules_that_no_calendar_has(schedule: Any, told: str) -> None:
    ((code, message),) = judged(schedule=schedule)
    assert code == "bad-schedule"
    assert message.startswith(f"queue 'a' of acme 1.0 has a schedule that cannot be kept: {told}")


def test_a_scheduled_queue_whose_payload_cannot_be_empty() -> None:
    ((code, message),) = judged(schedule=Cron("5 * * * *"), payload=ReportExport)
    assert code == "bad-schedule"
    assert message.endswith("a scheduled job has an empty payload, and this one needs 'reportId'")


@pytest.mark.parametrize("payload", [dict, "Report", Nothing()])
def test_a_payload_that_is_none(payload: Any) -> None:
    ((code, message),) = judged(payload=payload)
    assert code == "bad-payload"
    assert "no subclass of corral.Payload" in message


def declared(**namespace: Any) -> type[Payload]:
    annotations = {name: value[0] if isinstance(value, tuple) else value for name, value in namespace.items()}
    values = {name: value[1] for name, value in namespace.items() if isinstance(value, tuple)}
    return type("Declared", (Payload,), {"__annotations__": annotations, "__doc__": "One.", **values})


def test_the_fingerprint_is_of_the_shape_and_not_of_the_words_about_it() -> None:
    plain = fingerprint(declared(report_id=str, format=str, title=(str, "x")))
    assert len(plain) == 16
    assert plain == fingerprint(declared(title=(str, "x"), format=str, report_id=str)), "the order of fields"
    told_field = Field(description="Which.", title="Report", examples=["7"])
    told = declared(report_id=(str, told_field), format=str, title=(str, "x"))
    assert plain == fingerprint(told)


@pytest.mark.parametrize(
    "other",
    [
        declared(report_id=int, title=(str, "x")),
        declared(reports=str, title=(str, "x")),
        declared(report_id=str, description=(str, "x")),
        declared(report_id=str, title=str),
        declared(report_id=str, title=(str, "y")),
        declared(report_id=(str, Field(max_length=7)), title=(str, "x")),
    ],
    ids=["type", "name", "a field named like a keyword", "required", "default", "constraint"],
)
def test_another_shape_has_another_fingerprint(other: type[Payload]) -> None:
    assert fingerprint(declared(report_id=str, title=(str, "x"))) != fingerprint(other)


def test_default_values_are_data_whatever_their_keys() -> None:
    one = declared(extra=(dict[str, str], {"title": "a"}))
    other = declared(extra=(dict[str, str], {"title": "b"}))
    assert fingerprint(one) != fingerprint(other)


def test_every_process_finds_the_same_fingerprint() -> None:
    program = (
        "from typing import Literal\nfrom corral import Payload\nfrom corral.catalog.check import fingerprint\n"
        "class P(Payload):\n    tags: set[Literal['a', 'b', 'c']]\n    more: dict[str, int | None]\n"
        "print(fingerprint(P))"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(told) == 1
