"""Checks of names, queues and processors. Each adds the problems it finds to a report."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final

from pydantic import ValidationError
from pydantic.errors import PydanticUserError

from corral.errors import JobRefused
from corral.field_errors import field_errors
from corral.options import check_options, short_repr
from corral.payload import Payload
from corral.plugins.entry_points import PluginEntryPoint, Provider
from corral.plugins.report import Code, Report, disable_hint
from corral.processor import Processor, call_fault, resource_fault
from corral.queue import Queue
from corral.schedule import first_run_ms

__all__ = ["check_names", "check_processor", "check_queue", "fingerprint"]

NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
MAX_NAME_LENGTH: Final = 64

RESERVED: Final = frozenset(
    {
        "worker",
        "board",
        "lock",
        "log",
        "env",
        "data",
        "database",
        "disabled",
        "app",
        "prefix",
        "max",
    }
)
"""Names that no queue may have.

A queue's settings begin with `CORRAL_<QUEUE>_`: with one of these names they would be read as
settings of the core.
"""

FINGERPRINT_LENGTH: Final = 16
"""In hex digits: 64 bits tell the versions of one schema apart, and can be read in a diff."""

PROSE: Final = frozenset({"title", "description", "examples"})
"""Schema keywords that only people read: a changed docstring does not change the schema."""
DATA: Final = frozenset({"default", "const", "enum"})
"""Schema keywords whose values are data of the payload, not schemas."""
NAMED: Final = frozenset({"properties", "$defs", "patternProperties"})
"""Schema keywords whose values map names to schemas."""


def check_names(entry_points: Iterable[PluginEntryPoint], report: Report) -> None:
    """Compare the names of queues as the metadata has them.

    So a queue whose plugin cannot be imported is checked as well.

    Args:
        entry_points: The entry points that declare queues.
        report: Gets the names that are used twice, look alike, are reserved or are malformed.
    """
    by_name: dict[str, list[Provider]] = {}
    alike: dict[str, set[str]] = {}
    for each in entry_points:
        by_name.setdefault(each.name, []).append(each.provider)
        alike.setdefault(each.name.lower().replace("_", "-"), set()).add(each.name)
    for name, providers in sorted(by_name.items()):
        _check_name(name, providers, report)
    for names in alike.values():
        if len(names) > 1:
            involved = {name: by_name[name][0] for name in sorted(names)}
            texts = (f"{name!r} ({provider.label})" for name, provider in involved.items())
            message = f"these queues look alike: {' and '.join(texts)}"
            hint = f"rename one, or {disable_hint([*involved.values()][1:])}"
            report.add("look-alike", message, involved.values(), hint=hint)


def _check_name(name: str, providers: list[Provider], report: Report) -> None:
    """Check one queue's name.

    Args:
        name: The name.
        providers: All distributions that declare a queue of that name; sorted in place.
        report: Gets the problems.
    """
    if len(providers) > 1:
        # The distribution that is named after the queue comes first: the hint disables the others.
        providers.sort(key=lambda each: (each.distribution != f"corral-{name}", each.distribution))
        times = "twice" if len(providers) == 2 else f"{len(providers)} times"
        labels = " and ".join(provider.label for provider in providers)
        report.add(
            "duplicate-queue",
            f"queue {name!r} is provided {times}: {labels}",
            providers,
            hint=f"uninstall one, or {disable_hint(providers[1:])}",
        )
    if not NAME.fullmatch(name) or len(name) > MAX_NAME_LENGTH:
        report.add(
            "bad-name",
            f"queue {name!r} of {providers[0]} is not named in kebab-case",
            providers,
            hint=f"lower-case words joined by hyphens, at most {MAX_NAME_LENGTH} characters:"
            " 'report-exports'",
        )
    if name in RESERVED:
        report.add(
            "reserved-name",
            f"queue {name!r} of {providers[0]} has a reserved name",
            providers,
            hint=f"its settings, CORRAL_{name.upper()}_…, would look like those of Corral;"
            " choose another name",
        )


def check_queue(queue: Queue[Any], provider: Provider, report: Report) -> str:
    """Check what a queue declares besides its name: options, timeout, payload and schedule.

    Args:
        queue: The queue.
        provider: The distribution that declares it.
        report: Gets the problems.

    Returns:
        The fingerprint of its payload, or "" if the payload has no JSON schema.
    """

    def refuse(code: Code, problem: str, hint: str | None = None) -> None:
        report.add(code, f"queue {queue.name!r} of {provider} {problem}", [provider], hint=hint)

    try:
        check_options(queue.options)
    except JobRefused as error:
        refuse("bad-options", f"has options that every job of it would be refused for: {error}")
    if queue.timeout is not None and not (
        isinstance(queue.timeout, timedelta) and queue.timeout > timedelta(0)
    ):
        timeout = queue.timeout
        text = str(timeout) if isinstance(timeout, timedelta) else short_repr(timeout)
        refuse(
            "bad-options", f"has the timeout {text}, which no job can keep", "a timedelta above 0"
        )
    if queue.concurrency is not None and not (
        type(queue.concurrency) is int and queue.concurrency >= 1
    ):
        refuse(
            "bad-options",
            f"has the concurrency {short_repr(queue.concurrency)}, with which no job can run",
        )

    if not (isinstance(queue.payload, type) and issubclass(queue.payload, Payload)):
        refuse(
            "bad-payload",
            f"has the payload {queue.payload!r}, which is no subclass of corral.Payload",
        )
        return ""
    try:
        shape = fingerprint(queue.payload)
    except PydanticUserError as error:  # a type that is not defined, or that JSON does not have
        refuse("bad-payload", f"has a payload without a JSON schema: {str(error).splitlines()[0]}")
        return ""
    for wrong in queue.schema_faults:
        problem = f"{wrong.path}: {wrong.what}"
        refuse(
            "bad-payload",
            f"has a payload that would not reach a worker as it is: {problem}",
            wrong.hint,
        )
    fault = _schedule_fault(queue)
    if fault:
        refuse("bad-schedule", f"has a schedule that cannot be kept: {fault}")
    return shape


def _schedule_fault(queue: Queue[Any]) -> str | None:
    """Why a queue's schedule cannot enqueue its jobs; None if it can, or if there is none."""
    schedule = queue.schedule
    if schedule is None:
        return None
    try:
        first_run_ms(schedule, int(time.time() * 1000))
    except ValueError as error:
        return str(error)
    try:
        queue.payload.model_validate({})
    except ValidationError as error:
        fields = ", ".join(repr(each.path) for each in field_errors(error))
        return f"a scheduled job has an empty payload, and this one needs {fields}"
    return None


def check_processor(processor: Processor, subject: str, provider: Provider, report: Report) -> None:
    """Check that a worker can call a processor and open its resource.

    Args:
        processor: The processor.
        subject: The processor, as the subject of a sentence.
        provider: The distribution that returned it.
        report: Gets the problems.
    """
    queue = processor.queue
    if queue.timeout is not None and not processor.is_async:
        hint = "make it async def, or take the timeout away and bound the call that takes long"
        message = f"{subject} is a def with a timeout, and a thread cannot be stopped"
        report.add("timeout-on-def", message, [provider], hint=hint)
    fault = call_fault(processor) or resource_fault(processor.using)
    if fault:
        report.add("bad-processor", f"{subject} {fault[0]}", [provider], hint=fault[1])


def fingerprint(payload: type[Payload]) -> str:
    """A short digest of a payload's JSON schema: equal in processes with equal schemas.

    Raises:
        PydanticUserError: The model has no JSON schema.
    """
    schema = json.dumps(
        _shape(payload.model_json_schema(by_alias=True)), sort_keys=True, separators=(",", ":")
    )
    return hashlib.sha256(schema.encode()).hexdigest()[:FINGERPRINT_LENGTH]


def _shape(schema: Any, *, names: bool = False) -> Any:
    """A JSON schema without the parts that only people read.

    Args:
        schema: The schema, or a part of one.
        names: Whether the keys of `schema` are names that the payload defines, not keywords.
    """
    if isinstance(schema, list):
        return [_shape(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if names:
        return {name: _shape(part) for name, part in schema.items()}
    shape = {
        keyword: part if keyword in DATA else _shape(part, names=keyword in NAMED)
        for keyword, part in schema.items()
        if keyword not in PROSE
    }
    if "required" in shape:
        # pydantic lists them in the order of the fields, which has no meaning
        shape["required"] = sorted(shape["required"])
    return shape
