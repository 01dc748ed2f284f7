"""`Logger`: events with fields, written through the standard library's `logging`.

The host program's handlers and levels decide what happens to a line; in `corral worker`, `dev` and
`board` they are those of `corral.observe.logs`. Nothing global is configured here, and structlog is
not loaded: a producer that logs a warning does not need it.

A record serves three kinds of readers. Its message is text with all fields, made from a template
that is the same for every record of an event, so that an error tracker groups them. Its attributes
are the fields, for formatters that write JSON. An exception is written as text: as `exc_text`,
which the standard formatters print, and as the attribute `exception`. `exc_info` is never set:
handlers read local variables from the frames in it, and those hold payloads.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, cast

from corral.job import Job, current_job, run_state
from corral.raised import describe
from corral.redactor import MASK, Redactor, is_secret_name, masked, may_hold_secrets, secret_names

if TYPE_CHECKING:
    from corral.payload import Payload
    from corral.queue import Queue

__all__ = [
    "Logger",
    "Template",
    "as_word",
    "job_fields",
    "masker_of",
    "origin_fields",
    "redactor_of",
    "safe_repr",
]

_TAKEN: Final = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime"})
"""Attributes of records that no field may replace: `logging` refuses it."""
_NO_KEY: Final = re.compile(r"[%()]")
"""Characters that end a key in a template of `logging`."""
DEEPEST: Final = 8
"""Levels of nesting below which a value is written as its `repr`."""
_IN_BETWEEN: Final = ("corral.loggers", "structlog")
"""Modules between the code that logs and `logging`: never the place of a log line."""


class Template(str):
    """The template of a record's message. It is the same for every record of an event.

    Attributes:
        fields: What this record's message is made from: `event`, and the fields. They are kept here
            and not as an attribute of the record, which every host's formatter would print again.
    """

    fields: dict[str, Any]


class Logger:
    """Writes events to the logger of the same name of the standard library.

    A line below the level costs one look-up in the cache of `logging`'s logger, a tenth of what
    structlog's lazy proxy takes. Every job has one such line.

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
            event: What happened, in the same words each time.
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
        mask = masker_of(current_job.get())
        known = {**origin_fields(), **fields}
        error = _error(known.pop("exc_info", None))
        if error is not None:
            reason, trace = describe(error)
            known = {"error": reason, **known, "exception": trace.rstrip()}
        event = mask(str(event))
        known = {
            key: MASK if is_secret_name(key) else _plain(value, mask)
            for key, value in known.items()
        }
        words = {
            _NO_KEY.sub("_", key): as_word(value)
            for key, value in known.items()
            if key != "exception"
        }
        parts = [
            event.replace("%", "%%") if words else event,
            *(f"{key}=%({key})s" for key in words),
        ]
        template = Template(" ".join(parts))
        template.fields = {"event": event, **known}
        frame = _caller(sys._getframe(1))  # noqa: SLF001  # `logging` does the same
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


def origin_fields() -> dict[str, Any]:
    """The fields that say where a line is written: the running job, if any, and the trace."""
    job = current_job.get()
    found = {} if job is None else job_fields(job)
    trace = sys.modules.get("opentelemetry.trace")
    span = None if trace is None else trace.get_current_span().get_span_context()
    return (
        found | _trace_fields(span.trace_id, span.span_id)
        if span is not None and span.is_valid
        else found
    )


def job_fields(job: Job[Any]) -> dict[str, Any]:
    """The fields that identify a job, and the trace that its run is part of."""
    found = {"queue": job.queue.name, "job_id": job.id, "attempt": job.attempt}
    state = run_state(job)
    return found if state.trace is None else found | _trace_fields(*state.trace)


def _trace_fields(trace_id: int, span_id: int) -> dict[str, str]:
    return {"trace_id": f"{trace_id:032x}", "span_id": f"{span_id:016x}"}


def masker_of(job: Job[Any] | None) -> Callable[[str], str]:
    """The function that masks secrets in texts about a job.

    It masks passwords in URLs, and the secret values of the job's payload.
    """
    if job is None or not may_hold_secrets(job.queue.payload):
        return masked
    state = run_state(job)
    if state.redactor is None:
        state.redactor = redactor_of(job.queue, job.payload)
    return state.redactor.text if state.redactor.is_needed else masked


def redactor_of(queue: Queue[Any], payload: Payload) -> Redactor:
    """A redactor that masks the secrets of a payload in texts about it."""
    try:
        data = json.loads(queue.dumped(payload))
    except Exception:  # noqa: BLE001  # a log line never fails the job that writes it
        data = None
    return Redactor(secret_names(queue.payload), data)


def _plain(value: object, mask: Callable[[str], str], depth: int = 0) -> object:
    """A value that every formatter can write, with secrets masked."""
    if value is None or isinstance(value, bool):
        return value
    if type(value) in {int, float}:
        text = safe_repr(value)
        return value if mask(text) == text else MASK
    if isinstance(value, str):
        return mask(str.__str__(value))
    if depth < DEEPEST and type(value) is dict:
        return {
            mask(as_word(key)): MASK
            if is_secret_name(as_word(key))
            else _plain(each, mask, depth + 1)
            for key, each in value.items()
        }
    if depth < DEEPEST and type(value) in {list, tuple}:
        return [_plain(each, mask, depth + 1) for each in cast("list[object]", value)]
    return mask(safe_repr(value))


def _error(given: object) -> BaseException | None:
    if given is True:
        return sys.exception()
    if isinstance(given, tuple):
        given = given[1]
    return cast("BaseException", given) if issubclass(type(given), BaseException) else None


def _caller(frame: FrameType) -> FrameType:
    """The frame of the code that logs."""
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith(_IN_BETWEEN):
        frame = frame.f_back
    return frame


def as_word(value: object) -> str:
    """A value as it stands in a line of text: quoted if it would not be read as one word."""
    if isinstance(value, str):
        return value if value and value.isprintable() and " " not in value else repr(value)
    text = safe_repr(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def safe_repr(value: object) -> str:
    """A value's `repr`; a substitute if its class raises from that."""
    try:
        return repr(value)
    except Exception:  # noqa: BLE001  # a log line never fails the job that writes it
        return f"<{type(value).__name__} that cannot be shown>"
