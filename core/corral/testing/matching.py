"""Finds the jobs that an assertion means, and words its failure. Knows no store."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from pydantic_core import from_json

from corral.job import P
from corral.payload import Payload
from corral.queue import Queue

__all__ = ["EnqueuedJob", "Matching", "first_match", "no_match"]

Matching = Mapping[str, Any] | Callable[[P], object]
"""Some of a payload's fields with their values, or a function of the payload."""

SHOWN_JOBS = 20
SHOWN_CHARS = 300
"""More jobs, or longer payloads, would hide the sentence above them."""


class EnqueuedJob(Protocol):
    """The part of a job that an assertion looks at."""

    @property
    def id(self) -> str:
        """The job's id."""

    @property
    def queue(self) -> str:
        """The queue's name."""

    @property
    def payload(self) -> Payload | None:
        """The payload, or None if it does not fit the queue's model."""

    @property
    def raw(self) -> bytes:
        """The payload as JSON text."""


J = TypeVar("J", bound=EnqueuedJob)


def first_match(queue: Queue[P], matching: Matching[P] | None, jobs: Sequence[J]) -> J:
    """The first of the queue's jobs that matches.

    Raises:
        AssertionError: None does.
        ValueError: `matching` names a field that the payload does not have.
    """
    found = _matches(queue, matching, jobs)
    if not found:
        wanted = f"no job of queue {queue.name!r}" + (
            "" if matching is None else f" matches {_shown(matching)}"
        )
        raise AssertionError(f"{wanted}\n{_listed(jobs)}")
    return found[0]


def no_match(queue: Queue[P], matching: Matching[P] | None, jobs: Sequence[EnqueuedJob]) -> None:
    """Fail if one of the queue's jobs matches; see `first_match`."""
    if found := _matches(queue, matching, jobs):
        found_ones = f"{len(found)} of queue {queue.name!r}" + (
            "" if matching is None else f" match {_shown(matching)}"
        )
        raise AssertionError(f"jobs were enqueued: {found_ones}\n{_listed(found)}")


def _matches(queue: Queue[P], matching: Matching[P] | None, jobs: Sequence[J]) -> list[J]:
    own = [job for job in jobs if job.queue == queue.name]
    if matching is None:
        return own
    if not isinstance(matching, Mapping):
        return [
            job for job in own if isinstance(job.payload, queue.payload) and matching(job.payload)
        ]
    _check_fields(queue, matching)
    return [job for job in own if _agrees(job, matching)]


def _check_fields(queue: Queue[Any], matching: Mapping[str, Any]) -> None:
    """Refuse unknown fields: they match nothing, so `refute_enqueued` would never fail."""
    fields = queue.payload.model_fields
    names = {*fields, *(field.alias for field in fields.values() if field.alias)}
    for name in matching:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = (
                f", did you mean {near[0]!r}?"
                if near
                else f": it has {', '.join(sorted(fields)) or 'none'}"
            )
            raise ValueError(f"the payload of queue {queue.name!r} has no field {name!r}{hint}")


def _agrees(job: EnqueuedJob, matching: Mapping[str, Any]) -> bool:
    if job.payload is None:
        return False
    as_python = {name: getattr(job.payload, name) for name in type(job.payload).model_fields}
    as_json = from_json(job.raw)
    return all(
        any(name in known and _is_match(known[name], wanted) for known in (as_python, as_json))
        for name, wanted in matching.items()
    )


def _is_match(value: Any, wanted: Any) -> bool:
    """Whether two values are equal; a wanted mapping may name some of the value's keys only."""
    if isinstance(wanted, Mapping) and isinstance(value, Mapping):
        return all(
            name in value and _is_match(value[name], inner) for name, inner in wanted.items()
        )
    return bool(value == wanted)


def _shown(matching: Matching[Any]) -> str:
    if isinstance(matching, Mapping):
        return repr(dict(matching))
    return getattr(matching, "__qualname__", repr(matching))


def _listed(jobs: Sequence[EnqueuedJob]) -> str:
    if not jobs:
        return "nothing was enqueued"
    lines = ["enqueued were:"]
    for job in jobs[:SHOWN_JOBS]:
        text = job.raw.decode(errors="replace")
        short = text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"
        state = getattr(job, "state", "")
        lines.append(f"  {job.queue}  {job.id}  {state + '  ' if state else ''}{short}")
    if len(jobs) > SHOWN_JOBS:
        lines.append(f"  and {len(jobs) - SHOWN_JOBS} more")
    return "\n".join(lines)
