"""Logs of `corral worker`, `dev` and `board`: a line per event on stderr, as text or as JSON.

All lines go through the standard library's root logger and one handler: Corral's own, those of
libraries, and those of processors that use structlog. So other listeners of `logging`, such as an
error tracker, get them all. structlog renders the lines. This module knows no worker and no store.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from importlib_metadata import EntryPoint

from corral.errors import ConfigurationError
from corral.job import current_job
from corral.loggers import Logger, Template, as_word, masker_of, origin_fields, safe_repr
from corral.raised import describe
from corral.redactor import MASK, is_secret_name
from corral.settings import Settings


def _load_structlog_plainly() -> None:
    """Load structlog as if rich were not installed.

    structlog would load rich, which takes 0.3 s, for tracebacks with local variables: payloads.
    """
    if "structlog" not in sys.modules and "rich" not in sys.modules:
        sys.modules["rich"] = None  # type: ignore[assignment]  # how Python itself marks what cannot be imported
        try:
            import structlog  # noqa: F401, PLC0415  # for its effect
        finally:
            del sys.modules["rich"]


_load_structlog_plainly()

import structlog  # noqa: E402  # see above
from structlog.dev import Column, ConsoleRenderer, KeyValueColumnFormatter, plain_traceback  # noqa: E402  # as above
from structlog.typing import EventDict, Processor, WrappedLogger  # noqa: E402  # as above

__all__ = ["configure_logs", "formatter", "name_worker"]

KEYS: Final = (
    "timestamp",
    "level",
    "event",
    "logger",
    "queue",
    "job_id",
    "attempt",
    "duration_ms",
    "worker",
)
"""Fields that come first in a line, in this order."""
TRACEBACKS: Final = ("stack", "exception")
"""Fields that come last, and keep their line breaks on a terminal."""
COLOURS: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}
"""Select Graphic Rendition codes (ECMA-48): dim, green, yellow, red, bold red."""


def configure_logs(settings: Settings, stream: TextIO | None = None) -> logging.Handler:
    """Send the logs of this process to one stream, in one form.

    Only programs call this, once, as early as they can; libraries never do. Values that are bound
    with `structlog.contextvars`, such as the worker's name, are part of every line.

    Args:
        settings: `log_level`, `log_format` and `log_processors`.
        stream: Where lines go. None: to `sys.stderr`, as it is when a line is written.

    Returns:
        The handler that writes them.

    Raises:
        ConfigurationError: `log_processors` does not name a list of structlog processors.
    """
    level = logging.getLevelNamesMapping()[settings.log_level]
    terminal = (stream or sys.stderr).isatty()
    console = terminal if settings.log_format == "auto" else settings.log_format == "console"
    handler = _Handler(stream)
    handler.setFormatter(
        formatter(
            console=console,
            colours=terminal and not os.environ.get("NO_COLOR"),
            added=_load_processors(settings.log_processors) if settings.log_processors else (),
        )
    )
    # The list is changed in place, because loggers that were used before refer to it.
    chain = structlog.get_config()["processors"] if structlog.is_configured() else []
    chain[:] = [structlog.contextvars.merge_contextvars, structlog.processors.StackInfoRenderer()]
    structlog.configure(
        processors=chain,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_StructlogLogger,
        cache_logger_on_first_use=True,  # a line below the level takes 0.8 instead of 1.9 µs
    )
    root = logging.getLogger()
    root.handlers = [each for each in root.handlers if not isinstance(each, _Handler)]
    root.addHandler(handler)
    # At DEBUG, HTTP and SMTP libraries log bodies and headers: payloads and secrets.
    root.setLevel(max(level, logging.INFO))
    logging.getLogger("corral").setLevel(level)
    logging.captureWarnings(capture=True)
    return handler


def name_worker(name: str) -> None:
    """Put a worker's name into the lines of this task, and of tasks and threads that it starts."""
    structlog.contextvars.bind_contextvars(worker=name)


def formatter(
    *, console: bool, colours: bool = False, added: Sequence[Processor] = ()
) -> structlog.stdlib.ProcessorFormatter:
    """Make the formatter, which turns a record into a line.

    Args:
        console: Whether lines are text for people instead of JSON.
        colours: Whether text has the escape sequences of a terminal.
        added: A team's own processors. They are called with every line before it is masked and
            rendered.
    """
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            _read_record,
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.stdlib.add_logger_name,
            _add_origin,
            _stamp_console if console else _stamp_json,
            structlog.processors.ExceptionRenderer(
                lambda exc_info: describe(exc_info[1])[1].rstrip()
            ),
            _conceal_texts,
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *map(_guarded, added),
            _order_fields,
            *(
                [_escape_texts, _console(colours)]
                if console
                else [structlog.processors.JSONRenderer(_to_json)]
            ),
            _conceal,  # type: ignore[list-item]  # it takes what the renderer has made
        ],
        use_get_message=False,
        pass_foreign_args=True,
    )


def _load_processors(path: str) -> Sequence[Processor]:
    """Load the processors that `CORRAL_LOG_PROCESSORS` names.

    Raises:
        ConfigurationError: The name does not lead to a list of callables.
    """
    try:
        added = [*EntryPoint("log-processors", path, "CORRAL_LOG_PROCESSORS").load()]
    except Exception as error:
        raise ConfigurationError(
            f"CORRAL_LOG_PROCESSORS names {path!r}, which cannot be used:"
            f" {type(error).__name__}: {error}",
            hint="write module:name of a list of structlog processors;"
            " is its folder on PYTHONPATH?",
        ) from error
    if odd := [each for each in added if not callable(each)]:
        raise ConfigurationError(
            f"CORRAL_LOG_PROCESSORS names {path!r}, and {safe_repr(odd[0])} in it cannot be called"
        )
    return added


def _guarded(processor: Processor) -> Processor:
    """A team's processor that cannot break a line or a job: its error becomes a field."""

    def process(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        before = dict(event)
        try:
            after = processor(logger, method, event)
            if isinstance(after, dict) and after.get("event") is not None:
                return after
            problem = f"it returned {type(after).__name__}, not the event's dict"
        except Exception as error:  # noqa: BLE001  # no job fails because of it
            problem = describe(error)[0]
        name = getattr(processor, "__name__", safe_repr(processor))
        return {
            **before,
            "log_processor_failed": f"{name}: {problem}",
        }

    return process


class _StructlogLogger(Logger):
    """The logger that writes structlog's lines, which structlog has filtered by level already."""

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self.is_enabled_for = lambda _level: True


def _read_record(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Take the fields of a line of our own loggers, or the formatted message of another logger."""
    arguments, message = event.pop("positional_args", ()), event["_record"].msg
    if isinstance(message, Template):
        event.update(message.fields)
    elif arguments:
        try:
            event["event"] = event["event"] % arguments
        except Exception:  # noqa: BLE001  # a library's mistake; the message without its arguments is still useful
            event["event"] = f"{event['event']} (its arguments do not fit)"
    event["event"] = event["event"].rstrip()
    return event


def _add_origin(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Add the job in whose task or thread the line is written, and its trace."""
    if not isinstance(event["_record"].msg, Template):
        for key, value in origin_fields().items():
            event.setdefault(key, value)
    return event


def _conceal_texts(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Mask the secrets in another logger's line before it is rendered.

    Rendering would escape what is escaped already, and the redactor knows one level of JSON. Lines
    of our own loggers were masked when they were made.
    """
    if isinstance(event["_record"].msg, Template):
        return event
    mask = masker_of(current_job.get())
    return {key: mask(value) if isinstance(value, str) else value for key, value in event.items()}


def _stamp_json(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    stamp = datetime.fromtimestamp(event["_record"].created, UTC)
    event["timestamp"] = f"{stamp:%Y-%m-%dT%H:%M:%S.%f}Z"
    return event


def _stamp_console(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event["timestamp"] = (
        f"{datetime.fromtimestamp(event['_record'].created).astimezone():%Y-%m-%d %H:%M:%S}"
    )
    return event


def _order_fields(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for key in event:
        if is_secret_name(str(key)):
            event[key] = MASK
    ordered = {key: event.pop(key) for key in KEYS if key in event}
    last = {key: event.pop(key) for key in TRACEBACKS if key in event}
    return {**ordered, **event, **last}


def _to_json(event: EventDict, **_: Any) -> str:
    try:
        return json.dumps(event, default=safe_repr, skipkeys=True)
    except (ValueError, RecursionError):  # a value that contains itself
        return json.dumps(
            {
                key: value if isinstance(value, str) else safe_repr(value)
                for key, value in event.items()
            }
        )


def _console(colours: bool) -> ConsoleRenderer:
    """Make the renderer of lines for people: time, level, event, `key=value`, tracebacks."""

    def style(code: str) -> str:
        return f"\x1b[{code}m" if colours else ""

    def painted(
        code: str, convert: Callable[[object], str] = str, key: str | None = None
    ) -> KeyValueColumnFormatter:
        return KeyValueColumnFormatter(key, style(code), style("0"), convert)

    def level(key: str, value: object) -> str:  # noqa: ARG001  # the renderer passes both
        return f"{style(COLOURS.get(str(value), '0'))}{value!s:<8}{style('0')}"

    return ConsoleRenderer(
        columns=[
            Column("timestamp", painted("2")),
            Column("level", level),
            Column("event", painted("1")),
            Column("", painted("0", as_word, style("36"))),
        ],
        exception_formatter=plain_traceback,
        sort_keys=False,
    )


def _escape_texts(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape what the renderer would print as it is; it quotes the values of other fields."""
    event["event"] = _printable(str(event["event"]))
    for key in TRACEBACKS:
        if key in event:
            event[key] = _printable(str(event[key]), keep="\n\t")
    return event


def _printable(text: str, keep: str = "") -> str:
    """The text with its control characters escaped.

    A text of a job must not move a terminal's cursor, or look like another line.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


def _conceal(_logger: WrappedLogger, _method: str, line: str) -> str:
    """Mask the secrets in a rendered line."""
    return masker_of(current_job.get())(line)


class _Handler(logging.Handler):
    """Writes whole lines, from any thread, and never raises: an unread log breaks nothing."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, unless a team's processor drops it."""
        try:
            line = self.format(record)
        except structlog.DropEvent:
            return
        except Exception as error:  # noqa: BLE001  # a line that cannot be rendered is reported as one
            line = (
                f"a line of {record.name} at {record.levelname} cannot be rendered:"
                f" {describe(error)[0]}"
            )
        try:
            stream = self._stream or sys.stderr
            stream.write(f"{line}\n")
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # the pipe's reader has ended, or the stream is closed, or there is none
