"""What makes a queue's declaration unfit: pure checks, each of which adds its findings to a report."""

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
from corral.options import check_options, shown
from corral.payload import Payload
from corral.plugins.entry_points import Claim, Provider
from corral.plugins.report import Report, disabling
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
"""A queue's settings begin with `CORRAL_<QUEUE>_`; under these names they would be read as settings
of the core.
"""

FINGERPRINT_LENGTH: Final = 16
"""Hex digits, 64 bits: enough to tell the versions of one schema apart, and short enough to be read
in a diff.
"""

PROSE: Final = frozenset({"title", "description", "examples"})
"""Schema keywords that only people read: a better docstring is no other shape."""
DATA: Final = frozenset({"default", "const", "enum"})
"""Schema keywords whose values are JSON of the payload's, not schemas."""
NAMED: Final = frozenset({"properties", "$defs", "patternProperties"})
"""Schema keywords whose values map names to schemas."""


def check_names(claims: Iterable[Claim], report: Report) -> None:
    """Compare the names of entry points as they stand in the metadata: even what cannot be imported
    has one.

    Args:
        claims: The entry points that declare queues.
        report: Gets the names that are taken twice, look alike, are reserved or are malformed.
    """
    by_name: dict[str, list[Provider]] = {}
    alike: dict[str, set[str]] = {}
    for claim in claims:
        by_name.setdefault(claim.name, []).append(claim.provider)
        alike.setdefault(claim.name.lower().replace("_", "-"), set()).add(claim.name)
    for name, providers in sorted(by_name.items()):
        if len(providers) > 1:
            # the one that is named after the queue is the last one that anybody would want to
            # disable
            providers.sort(
                key=lambda provider: (
                    provider.distribution != f"corral-{name}",
                    provider.distribution,
                )
            )
            times = "twice" if len(providers) == 2 else f"{len(providers)} times"
            told = " and ".join(provider.label for provider in providers)
            hint = f"uninstall one, or {disabling(providers[1:])}"
            report.add(
                "duplicate-queue",
                f"queue {name!r} is provided {times}: {told}",
                providers,
                hint=hint,
            )
        if not NAME.fullmatch(name) or len(name) > MAX_NAME_LENGTH:
            hint = f"lower-case words joined by hyphens, at most {MAX_NAME_LENGTH} characters: 'report-exports'"
            report.add(
                "bad-name",
                f"queue {name!r} of {providers[0]} is not named in kebab-case",
                providers,
                hint=hint,
            )
        if name in RESERVED:
            hint = f"its settings, CORRAL_{name.upper()}_…, could not be told from those of Corral; choose another name"
            report.add(
                "reserved-name",
                f"queue {name!r} of {providers[0]} has a reserved name",
                providers,
                hint=hint,
            )
    for names in alike.values():
        if len(names) > 1:
            involved = {name: by_name[name][0] for name in sorted(names)}
            told = " and ".join(
                f"{name!r} ({provider.label})" for name, provider in involved.items()
            )
            hint = f"rename one, or {disabling([*involved.values()][1:])}"
            report.add(
                "look-alike", f"these queues look alike: {told}", involved.values(), hint=hint
            )


def check_queue(queue: Queue[Any], provider: Provider, report: Report) -> str:
    """Judge what a queue declares besides its name.

    Returns:
        The fingerprint of its payload, or "" where there is none.
    """

    def refuse(code: Any, what: str, hint: str | None = None) -> None:
        report.add(code, f"queue {queue.name!r} of {provider} {what}", [provider], hint=hint)

    try:
        check_options(queue.options)
    except JobRefused as error:
        refuse("bad-options", f"has options that every job of it would be refused for: {error}")
    if queue.timeout is not None and not (
        isinstance(queue.timeout, timedelta) and queue.timeout > timedelta(0)
    ):
        told = str(queue.timeout) if isinstance(queue.timeout, timedelta) else shown(queue.timeout)
        refuse(
            "bad-options", f"has the timeout {told}, which no job can keep", "a timedelta above 0"
        )
    if queue.concurrency is not None and not (
        type(queue.concurrency) is int and queue.concurrency >= 1
    ):
        refuse(
            "bad-options",
            f"has the concurrency {shown(queue.concurrency)}, with which no job can run",
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
        told = f"has a payload that would not reach a worker as it is: {wrong.path}: {wrong.what}"
        refuse("bad-payload", told, wrong.hint)
    fault = _schedule_fault(queue)
    if fault:
        refuse("bad-schedule", f"has a schedule that cannot be kept: {fault}")
    return shape


def _schedule_fault(queue: Queue[Any]) -> str | None:
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
        fields = ", ".join(
            repr(".".join(map(str, problem["loc"]))) for problem in error.errors(include_url=False)
        )
        return f"a scheduled job has an empty payload, and this one needs {fields}"
    return None


def check_processor(processor: Processor, subject: str, provider: Provider, report: Report) -> None:
    """Judge whether a worker can call a processor, and open what it is given.

    Args:
        processor: The processor.
        subject: How a sentence about it begins.
        provider: Who has it.
        report: Gets what is wrong.
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
    """A short digest of a payload's JSON schema: the same in every process that has the same shape
    in mind.

    Raises:
        PydanticUserError: The model has no JSON schema.
    """
    schema = json.dumps(
        _shape(payload.model_json_schema(by_alias=True)), sort_keys=True, separators=(",", ":")
    )
    return hashlib.sha256(schema.encode()).hexdigest()[:FINGERPRINT_LENGTH]


def _shape(schema: Any, *, names: bool = False) -> Any:
    """A JSON schema without its prose.

    Args:
        schema: The schema, or a part of one.
        names: Whether the keys of `schema` are names of the payload's own, and no keywords.
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
        shape["required"] = sorted(
            shape["required"]
        )  # in the order of the fields, which means nothing
    return shape
