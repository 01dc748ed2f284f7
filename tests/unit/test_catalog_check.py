"""Judging what a queue declares: names, options, payloads, schedules; and the fingerprint of a
payload's shape.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from pydantic import Field

from corral import Cron, Deps, Every, Fixed, Job, JobOptions, Payload, Queue
from corral.catalog.check import RESERVED, check_names, check_processor, check_queue, fingerprint
from corral.plugins import PluginEntryPoint, Provider, Report
from corral.processor import Processor

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
    check_names([PluginEntryPoint(name, "acme", "corral.queues", ACME) for name in names], report)
    return [problem.code for problem in report.problems]


@pytest.mark.parametrize("name", ["a", "2fa", "usage-period-rollover", "a" * 64, "x-1-y"])
def test_kebab_case(name: str) -> None:
    assert named(name) == []


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "a--b", "A", "a_b", "a.b", "a b", "a:b", "é", "a" * 65, "a\n", "{a}"]
)
def test_not_kebab_case(name: str) -> None:
    assert named(name) == ["bad-name"]


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_names_whose_settings_would_be_those_of_the_core(name: str) -> None:
    assert len(RESERVED) == 11
    assert named(name) == ["reserved-name"]
    assert named(f"{name}-s") == []


def test_three_claims_are_reported_with_the_one_to_keep_first() -> None:
    report = Report()
    providers = [Provider(name, "1.0", "wheel") for name in ("acme", "corral-a", "zeta")]
    check_names(
        [PluginEntryPoint("a", "m", "corral.queues", provider) for provider in providers], report
    )
    (problem,) = report.problems
    assert problem.message == (
        "queue 'a' is provided 3 times: corral-a 1.0 (wheel) and acme 1.0 (wheel) and zeta 1.0"
        " (wheel)"
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
    ("options", "problem"),
    [
        ({"timeout": timedelta(0)}, "has the timeout 0:00:00, which no job can keep"),
        ({"concurrency": 0}, "has the concurrency 0, with which no job can run"),
        (
            {"options": JobOptions(attempts=-1)},
            "has options that every job of it would be refused for: attempts -1",
        ),
        (
            {"options": {"attempts": 3}},
            "has options that every job of it would be refused for: options {'attempts': 3}",
        ),
        (
            {"options": JobOptions(backoff=Fixed(5))},
            "has options that every job of it would be refused for: the back",
        ),
        ({"timeout": 30}, "has the timeout 30, which no job can keep"),
        ({"concurrency": "4"}, "has the concurrency '4', with which no job can run"),
    ],
)
def test_options_with_which_no_job_runs(options: Any, problem: str) -> None:
    ((code, message),) = judged(**options)
    assert code == "bad-options"
    assert message.startswith(f"queue 'a' of acme 1.0 {problem}")


@pytest.mark.parametrize(
    ("schedule", "problem"),
    [
        (Every(timedelta(0)), "every 0:00:00"),
        (Every(5), "every 5"),
        (Cron(5), "the expression 5 is no str"),
        (Cron("5 * * * *", tz=None), "the time zone None is no str"),
        ("5 * * * *", "'5 * * * *' is neither a Cron nor an Every"),
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
def test_schedules_that_no_calendar_has(schedule: Any, problem: str) -> None:
    ((code, message),) = judged(schedule=schedule)
    assert code == "bad-schedule"
    assert message.startswith(
        f"queue 'a' of acme 1.0 has a schedule that cannot be kept: {problem}"
    )


def test_a_scheduled_queue_whose_payload_cannot_be_empty() -> None:
    ((code, message),) = judged(schedule=Cron("5 * * * *"), payload=ReportExport)
    assert code == "bad-schedule"
    assert message.endswith("a scheduled job has an empty payload, and this one needs 'reportId'")


@pytest.mark.parametrize("payload", [dict, "Report", Nothing()])
def test_a_payload_that_is_none(payload: Any) -> None:
    ((code, message),) = judged(payload=payload)
    assert code == "bad-payload"
    assert "no subclass of corral.Payload" in message


queue = Queue("a", Nothing)


class Service:
    async def process(self, job: Job) -> None:
        pass

    async def __call__(self, job: Job, resource: object) -> None:
        pass

    async def several(self, job: Job) -> Any:
        yield 1


class Resource:
    def __init__(self, deps: Deps) -> None:
        pass

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_: object) -> None:
        pass


@asynccontextmanager
async def open_resource(deps: Deps, at: int = 0) -> AsyncIterator[object]:
    yield at


@contextmanager
def open_at_once(deps: Deps) -> Iterator[object]:
    yield 1


def process(job: Job, more: int = 0) -> None:
    pass


def yielding(job: Job) -> Iterator[int]:
    yield 1


async def opened(deps: Deps) -> object:
    return Resource(deps)


def processor_faults(function: Any, using: Any = None) -> list[str]:
    report = Report()
    check_processor(Processor(queue, function, using), "the processor", ACME, report)
    assert all(problem.code == "bad-processor" and problem.hint for problem in report.problems)
    return [problem.message for problem in report.problems]


@pytest.mark.parametrize(
    ("function", "using"),
    [
        (process, None),
        (lambda *arguments: None, None),
        (Service().process, None),
        (Service(), open_resource),
        (partial(process, more=1), None),
        (partial(Service.process, Service()), None),
        (print, None),
        (process, open_resource),
        (process, partial(open_resource, at=1)),
        (process, Resource),
        (process, lambda deps: open_resource(deps, 1)),
    ],
)
def test_processors_that_a_worker_can_call(function: Any, using: Any) -> None:
    assert processor_faults(function, using) == []


@pytest.mark.parametrize(
    ("function", "using", "problem"),
    [
        (lambda: None, None, "cannot be called with (job)"),
        (lambda job, resource: None, None, "cannot be called with (job)"),
        (lambda job: None, open_resource, "cannot be called with (job, resource)"),
        (lambda job, *, resource: None, None, "cannot be called with (job)"),
        (Service(), None, "cannot be called with (job)"),
        (Service.process, None, "cannot be called with (job)"),
        (yielding, None, "is a generator function: calling it runs nothing"),
        (partial(yielding), None, "is a generator function: calling it runs nothing"),
        (Service().several, None, "is a generator function: calling it runs nothing"),
        ("process", None, "is of the type str, which cannot be called"),
        (
            process,
            yielding,
            "has `using=yielding`, which is a generator function and makes no context manager",
        ),
        (
            process,
            open_at_once,
            "has `using=open_at_once`, which makes a context manager that is not async",
        ),
        (
            process,
            opened,
            "has `using=opened`, which is a coroutine function and makes no context manager",
        ),
        (
            process,
            Service,
            "has `using=Service`, which is a class without __aenter__ and __aexit__",
        ),
        (process, lambda: Resource, "has `using=<lambda>`, which cannot be called with (deps)"),
        (process, 5, "has `using=` of the type int, which cannot be called"),
    ],
)
def test_processors_that_no_worker_can_call(function: Any, using: Any, problem: str) -> None:
    assert processor_faults(function, using) == [f"the processor {problem}"]


def declared(**namespace: Any) -> type[Payload]:
    annotations = {
        name: value[0] if isinstance(value, tuple) else value for name, value in namespace.items()
    }
    values = {name: value[1] for name, value in namespace.items() if isinstance(value, tuple)}
    return type(
        "Declared", (Payload,), {"__annotations__": annotations, "__doc__": "One.", **values}
    )


def test_the_fingerprint_is_of_the_shape_and_not_of_the_words_about_it() -> None:
    plain = fingerprint(declared(report_id=str, format=str, title=(str, "x")))
    assert len(plain) == 16
    assert plain == fingerprint(declared(title=(str, "x"), format=str, report_id=str)), (
        "the order of fields"
    )
    described_field = Field(description="Which.", title="Report", examples=["7"])
    described = declared(report_id=(str, described_field), format=str, title=(str, "x"))
    assert plain == fingerprint(described)


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
        "from typing import Literal\nfrom corral import Payload\n"
        "from corral.catalog.check import fingerprint\n"
        "class P(Payload):\n    tags: set[Literal['a', 'b', 'c']]\n"
        "    more: dict[str, int | None]\n"
        "print(fingerprint(P))"
    )
    fingerprints = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(fingerprints) == 1
