"""`Logger`: events with fields, written through the standard library's `logging`, which is the host
program's.

The host's handlers and levels decide what becomes of a line; in `corral worker`, `dev` and `board`
they are those of `corral.observe.logs`. Nothing global is configured here, and structlog is not
loaded: a producer that warns does not need it.

A record serves three kinds of readers. Its message is text with all fields, made from a template
that is the same for every record of an event, so that an error tracker groups them. Its attributes
are the fields, for formatters that write JSON. An exception comes as text: as `exc_text`, which the
standard formatters print, and as the attribute `exception`. `exc_info` is never set, because
handlers read local variables from the frames in it, and those are payloads.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, cast

from corral.job import Job, current_job
from corral.raised import described
from corral.redactor import MASK, Redactor, is_secret_name, masked, may_hold_secrets, secret_names

if TYPE_CHECKING:
    from corral.payload import Payload
    from corral.queue import Queue

__all__ = [
    "Logger",
    "Template",
    "concealing",
    "fields_of",
    "origin",
    "redactor_of",
    "shown",
    "word",
]

_TAKEN: Final = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime"})
"""Attributes of records that no field may replace: `logging` itself refuses them."""
_NO_KEY: Final = re.compile(r"[%()]")
"""What would end a key in a template of `logging`."""
DEEPEST: Final = 8
"""Further inside of a value its `repr` is written."""
_IN_BETWEEN: Final = ("corral.loggers", "structlog")
"""Modules that are never where a line was written."""


class Template(str):
    """The template of a record's message, which is the same for every record of an event.

    Attributes:
        fields: What this record's message is made from: `event`, and the fields. Not an attribute
            of the record, where every host's formatter would print it once more.
    """

    fields: dict[str, Any]


class Logger:
    """Writes events to the logger of the same name of the standard library.

    A line below the level costs a look into the cache of `logging`'s own logger, a tenth of what
    structlog's lazy proxy takes: every job has one such line.

    Attributes:
        is_enabled_for: Whether a line of a level, one of `logging`'s numbers, is written.

    Args:
        name: The logger's name.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)
        self.is_enabled_for: Callable[[int], bool] = self._logger.isEnabledFor

    def debug(self, event: str, **fields: Any) -> None:
        """Write a line at DEBUG."""
        if self.is_enabled_for(logging.DEBUG):
            self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Write a line at INFO."""
        if self.is_enabled_for(logging.INFO):
            self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Write a line at WARNING."""
        if self.is_enabled_for(logging.WARNING):
            self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """Write a line at ERROR.

        Args:
            event: What happened, the same words each time.
            fields: What it happened to. `exc_info` is an exception, or True for the one that is
                being handled: its traceback is the field `exception`, as text and without local
                variables.
        """
        if self.is_enabled_for(logging.ERROR):
            self._write(logging.ERROR, event, fields)

    def critical(self, event: str, **fields: Any) -> None:
        """Write a line at CRITICAL."""
        if self.is_enabled_for(logging.CRITICAL):
            self._write(logging.CRITICAL, event, fields)

    def _write(self, level: int, event: str, fields: dict[str, Any]) -> None:
        conceal = concealing(current_job.get())
        known = {**origin(), **fields}
        error = _error(known.pop("exc_info", None))
        if error is not None:
            reason, trace = described(error)
            known = {"error": reason, **known, "exception": trace.rstrip()}
        event = conceal(str(event))
        known = {
            key: MASK if is_secret_name(key) else _plain(value, conceal)
            for key, value in known.items()
        }
        words = {
            _NO_KEY.sub("_", key): word(value) for key, value in known.items() if key != "exception"
        }
        parts = [
            event.replace("%", "%%") if words else event,
            *(f"{key}=%({key})s" for key in words),
        ]
        template = Template(" ".join(parts))
        template.fields = {"event": event, **known}
        frame = _caller(sys._getframe(1))  # noqa: SLF001  # as `logging` finds it
        record = self._logger.makeRecord(
            self._logger.name,
            level,
            frame.f_code.co_filename,
            frame.f_lineno,
            template,
            (words,) if words else (),
            None,
            frame.f_code.co_name,
            {key: value for key, value in template.fields.items() if key not in _TAKEN},
        )
        record.exc_text = known.get("exception")
        self._logger.handle(record)


def origin() -> dict[str, Any]:
    """What a line says of where it is written: in the task or thread of which job, and in which
    trace.
    """
    job = current_job.get()
    found = {} if job is None else fields_of(job)
    trace = sys.modules.get("opentelemetry.trace")
    span = None if trace is None else trace.get_current_span().get_span_context()
    return (
        found | _trace_fields(span.trace_id, span.span_id)
        if span is not None and span.is_valid
        else found
    )


def fields_of(job: Job[Any]) -> dict[str, Any]:
    """What a line says of a job: which one it is, and the trace that its run is part of."""
    found = {"queue": job.queue.name, "job_id": job.id, "attempt": job.attempt}
    return found if job.run.trace is None else found | _trace_fields(*job.run.trace)


def _trace_fields(trace_id: int, span_id: int) -> dict[str, str]:
    return {"trace_id": f"{trace_id:032x}", "span_id": f"{span_id:016x}"}


def concealing(job: Job[Any] | None) -> Callable[[str], str]:
    """What makes a text showable: without passwords of URLs, and without what is secret in the
    job's payload.
    """
    if job is None or not may_hold_secrets(job.queue.payload):
        return masked
    if job.run.redactor is None:
        job.run.redactor = redactor_of(job.queue, job.payload)
    return job.run.redactor.text if job.run.redactor.is_needed else masked


def redactor_of(queue: Queue[Any], payload: Payload) -> Redactor:
    """What masks the secrets of a payload in texts about it."""
    try:
        data = json.loads(queue.dumped(payload))
    except Exception:  # noqa: BLE001  # a log line never fails the job that writes it
        data = None
    return Redactor(secret_names(queue.payload), data)


def _plain(value: object, conceal: Callable[[str], str], depth: int = 0) -> object:
    """A value that every formatter can write, without what is secret in it."""
    if value is None or isinstance(value, bool):
        return value
    if type(value) in {int, float}:
        text = shown(value)
        return value if conceal(text) == text else MASK
    if isinstance(value, str):
        return conceal(str.__str__(value))
    if depth < DEEPEST and type(value) is dict:
        return {
            conceal(word(key)): MASK
            if is_secret_name(word(key))
            else _plain(each, conceal, depth + 1)
            for key, each in value.items()
        }
    if depth < DEEPEST and type(value) in {list, tuple}:
        return [_plain(each, conceal, depth + 1) for each in cast("list[object]", value)]
    return conceal(shown(value))


def _error(given: object) -> BaseException | None:
    if given is True:
        return sys.exception()
    if isinstance(given, tuple):
        given = given[1]
    return cast("BaseException", given) if issubclass(type(given), BaseException) else None


def _caller(frame: FrameType) -> FrameType:
    """The frame in which a line is written."""
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith(_IN_BETWEEN):
        frame = frame.f_back
    return frame


def word(value: object) -> str:
    """A value in a line of text: quoted where it would not be read as one word."""
    if isinstance(value, str):
        return value if value and value.isprintable() and " " not in value else repr(value)
    text = shown(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def shown(value: object) -> str:
    """A value's `repr`, whatever its class makes of that."""
    try:
        return repr(value)
    except Exception:  # noqa: BLE001  # a log line never fails the job that writes it
        return f"<{type(value).__name__} that cannot be shown>"
