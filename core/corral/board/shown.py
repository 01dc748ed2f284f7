"""`ShownJob`: a job as the board shows it, in HTML and in JSON. What is secret goes no further than this module.

Secret is a field that the payload's model marks so (`SecretStr`, or `json_schema_extra={"writeOnly": True}`), and, of
whichever job, a field whose name says so. Its value is masked there, and wherever else the job repeats it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from corral.inspector import Occurrence, State, StoredJob
from corral.queue import Queue
from corral.settings import masked

__all__ = ["MASK", "ShownJob", "is_found_in_the_open", "is_secret", "occurrences_shown", "shown", "texts_shown"]

MASK: Final = "••••••"
NAMES: Final = re.compile(
    r"pass(word|wd|phrase)|secret|token|authori[sz]ation|api_?key|private_?key|credential|cookie|signature|otp$",
    re.IGNORECASE,
)
"""Names of fields that hold secrets, whoever wrote the job."""
SHORTEST: Final = 4
"""A secret of fewer characters is masked in its field only: elsewhere it would be found in every other word."""
MAX_TEXT: Final = 200_000
"""Characters of one text that a page shows."""


@dataclass(frozen=True, slots=True)
class ShownJob:
    """A job as the board shows it; see `StoredJob` for what the fields mean.

    Attributes:
        reason: Why the last attempt failed, whole.
        headline: The first line of that.
        traces: One text per failed attempt, the oldest first.
        run_ms: How long its last run took, or has taken when it was read; None before the first.
    """

    id: str
    queue: str
    state: State | None
    name: str
    data: Any
    opts: Any
    progress: Any
    returnvalue: Any
    reason: str
    headline: str
    traces: tuple[str, ...]
    enqueued_at: datetime | None
    due_at: datetime | None
    processed_on: datetime | None
    finished_on: datetime | None
    delay: timedelta
    priority: int
    attempts_made: int
    attempts_started: int
    max_attempts: int
    stalled: int
    processed_by: str | None
    parent_key: str | None
    deduplication_id: str | None
    schedule_id: str | None
    log_lines: int | None
    locked_for: timedelta | None
    run_ms: float | None

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.state in {"completed", "failed"}

    @property
    def is_iteration(self) -> bool:
        """Whether it is a run of a schedule."""
        return self.schedule_id is not None


@lru_cache(maxsize=256)
def secret_fields(queue: Queue[Any] | None) -> frozenset[str]:
    """The names, as JSON spells them, of the fields that a queue's payload model marks secret, nested ones included."""
    if queue is None:
        return frozenset()
    schema = queue.payload.model_json_schema(by_alias=True)
    models = [schema, *schema.get("$defs", {}).values()]
    return frozenset(name for model in models for name, field in model.get("properties", {}).items() if _marked(field))


def _marked(field: Mapping[str, Any]) -> bool:
    choices = [field, *field.get("anyOf", ()), *field.get("oneOf", ()), field.get("items") or {}]
    return any(each.get("writeOnly") or each.get("format") == "password" for each in choices)


class _Veil:
    """Masks what is secret in one job.

    Args:
        marked: The names of fields that the payload's model marks.
        data: The payload: its secrets are looked for everywhere.
    """

    def __init__(self, marked: frozenset[str], data: Any) -> None:
        self._marked = marked
        secrets = {text for text in self._secrets(data, hidden=False) if len(text) >= SHORTEST}
        spelt = secrets | {json.dumps(text)[1:-1] for text in secrets}
        longest_first = sorted(spelt, key=len, reverse=True)
        self._found = re.compile("|".join(map(re.escape, longest_first))) if spelt else None

    def text(self, text: str) -> str:
        """A text without the payload's secrets, and without the passwords of URLs."""
        clear = masked(text[:MAX_TEXT])
        return self._found.sub(MASK, clear) if self._found else clear

    def value(self, value: Any) -> Any:
        """A JSON value, as `text`."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(name)): self._field(str(name), each) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(each) for each in value]
        return value

    def _field(self, name: str, value: Any) -> Any:
        return MASK if self._is_secret(name) and value not in (None, "") else self.value(value)

    def _is_secret(self, name: str) -> bool:
        return name in self._marked or bool(NAMES.search(name))

    def _secrets(self, value: Any, *, hidden: bool) -> Iterator[str]:
        if isinstance(value, dict):
            for name, each in value.items():
                yield from self._secrets(each, hidden=hidden or self._is_secret(str(name)))
        elif isinstance(value, list | tuple):
            for each in value:
                yield from self._secrets(each, hidden=hidden)
        elif hidden and value is not None and not isinstance(value, bool):
            yield str(value)


def shown(job: StoredJob, queue: Queue[Any] | None, now: datetime) -> ShownJob:
    """A job as the board shows it.

    Args:
        job: What is stored.
        queue: Its queue, where the catalog declares it.
        now: What the time is, by the store's clock.
    """
    veil = _Veil(secret_fields(queue), job.data)
    reason = veil.text(job.failed_reason or job.deferred_failure or "")
    ended = job.finished_on if job.state in {"completed", "failed"} else now if job.state == "active" else None
    ran = (ended - job.processed_on).total_seconds() * 1000 if ended and job.processed_on else None
    return ShownJob(
        id=job.id,
        queue=job.queue,
        state=job.state,
        name=veil.text(job.name),
        data=veil.value(job.data),
        opts=veil.value(job.opts),
        progress=veil.value(job.progress),
        returnvalue=veil.value(job.returnvalue),
        reason=reason,
        headline=reason.partition("\n")[0][:300],
        traces=tuple(map(veil.text, job.stacktrace)),
        enqueued_at=job.enqueued_at,
        due_at=job.due_at,
        processed_on=job.processed_on,
        finished_on=job.finished_on,
        delay=job.delay,
        priority=job.priority,
        attempts_made=job.attempts_made,
        attempts_started=job.attempts_started,
        max_attempts=job.max_attempts,
        stalled=job.stalled,
        processed_by=job.processed_by,
        parent_key=job.parent_key,
        deduplication_id=job.deduplication_id,
        schedule_id=job.schedule_id,
        log_lines=job.log_lines,
        locked_for=job.locked_for,
        run_ms=None if ran is None else max(0.0, ran),
    )


def texts_shown(job: StoredJob, queue: Queue[Any] | None, texts: Iterable[str]) -> list[str]:
    """What a job said, without its secrets."""
    return [*map(_Veil(secret_fields(queue), job.data).text, texts)]


def occurrences_shown(job: StoredJob, queue: Queue[Any] | None, found: Iterable[Occurrence]) -> list[Occurrence]:
    """What happened to a job, without its secrets."""
    veil = _Veil(secret_fields(queue), job.data)
    return [
        replace(each, detail=veil.text(each.detail), trace=None if each.trace is None else veil.text(each.trace))
        for each in found
    ]


def is_secret(queue: Queue[Any] | None, name: str) -> bool:
    """Whether a payload's field is masked; of a dotted name any part."""
    return any(part in secret_fields(queue) or NAMES.search(part) for part in name.split("."))


def is_found_in_the_open(job: StoredJob, queue: Queue[Any] | None, text: str) -> bool:
    """Whether what was searched for stands in what the board shows: a search must not be a way to guess a secret."""
    veil = _Veil(secret_fields(queue), job.data)
    places = [job.id, veil.text(job.failed_reason or ""), json.dumps(veil.value(job.data), ensure_ascii=False)]
    return any(text in place for place in places) or json.dumps(text)[1:-1] in places[2]
