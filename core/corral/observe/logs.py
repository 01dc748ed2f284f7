"""Logs of `corral worker`, `dev` and `board`: one line per event on stderr, text on a terminal and
JSON elsewhere.

All of it goes through the standard library's root logger and one handler: Corral's own lines, those
of libraries, and those of whoever uses structlog in a processor. So whatever else listens to
`logging`, an error tracker for one, hears them all. Lines are rendered by structlog. This module
knows no worker and no store.
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
from corral.loggers import Logger, Template, concealing, origin, shown, word
from corral.raised import described
from corral.redactor import MASK, is_secret_name
from corral.settings import Settings


def _load_structlog_plainly() -> None:
    """Load structlog as if rich were not installed: 0.3 s, for tracebacks with local variables that
    nobody may see.
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
"""These come first, in this order, in every line that has them."""
TRACEBACKS: Final = ("stack", "exception")
"""These come last, and keep their line breaks on a terminal."""
COLOURS: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}
"""Select Graphic Rendition codes (ECMA-48): dim, green, yellow, red, bold red."""


def configure_logs(settings: Settings, stream: TextIO | None = None) -> logging.Handler:
    """Send the logs of this process to one place, in one form.

    Only programs call this, once, as early as they can: a library never does. Values bound with
    `structlog.contextvars` (the worker's name, say) are part of every line.

    Args:
        settings: `log_level`, `log_format` and `log_processors`.
        stream: Where lines go; what `sys.stderr` is at each line, if None.

    Returns:
        The handler that writes them.

    Raises:
        ConfigurationError: `log_processors` names nothing that can be used.
    """
    level = logging.getLevelNamesMapping()[settings.log_level]
    terminal = (stream or sys.stderr).isatty()
    console = terminal if settings.log_format == "auto" else settings.log_format == "console"
    handler = _Handler(stream)
    handler.setFormatter(
        formatter(
            console=console,
            colours=terminal and not os.environ.get("NO_COLOR"),
            added=_added(settings.log_processors) if settings.log_processors else (),
        )
    )
    # The list is changed in place: loggers that were used before hold on to it.
    chain = structlog.get_config()["processors"] if structlog.is_configured() else []
    chain[:] = [structlog.contextvars.merge_contextvars, structlog.processors.StackInfoRenderer()]
    structlog.configure(
        processors=chain,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_Target,
        cache_logger_on_first_use=True,  # a line below the level costs 0.8 instead of 1.9 µs
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
    """Put the worker's name into every line of this task, and of the tasks and threads that it
    starts.
    """
    structlog.contextvars.bind_contextvars(worker=name)


def formatter(
    *, console: bool, colours: bool = False, added: Sequence[Processor] = ()
) -> structlog.stdlib.ProcessorFormatter:
    """What makes a line of a record.

    Args:
        console: Text for people instead of JSON.
        colours: With the escape sequences of a terminal.
        added: A team's own processors: called with every line before it is masked and rendered.
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
                lambda exc_info: described(exc_info[1])[1].rstrip()
            ),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *map(_guarded, added),
            _ordered,
            *(
                [_printable_texts, _console(colours)]
                if console
                else [structlog.processors.JSONRenderer(_dumped)]
            ),
            _conceal,  # type: ignore[list-item]  # it takes what the renderer has made
        ],
        use_get_message=False,
        pass_foreign_args=True,
    )


def _added(path: str) -> Sequence[Processor]:
    """The processors that a setting names.

    Raises:
        ConfigurationError: There is no list of them.
    """
    try:
        added = [*EntryPoint("log-processors", path, "CORRAL_LOG_PROCESSORS").load()]
    except Exception as error:
        raise ConfigurationError(
            f"CORRAL_LOG_PROCESSORS names {path!r}, which cannot be used: {type(error).__name__}: {error}",
            hint="write module:name of a list of structlog processors; is its folder on PYTHONPATH?",
        ) from error
    if odd := [each for each in added if not callable(each)]:
        raise ConfigurationError(
            f"CORRAL_LOG_PROCESSORS names {path!r}, and {shown(odd[0])} in it cannot be called"
        )
    return added


def _guarded(processor: Processor) -> Processor:
    """A team's processor. One that raises costs its own part of the line, and nobody's job."""

    def process(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        before = dict(event)
        try:
            after = processor(logger, method, event)
            if isinstance(after, dict) and after.get("event") is not None:
                return after
            fault = f"it returned {type(after).__name__}, not the event's dict"
        except Exception as error:  # noqa: BLE001  # no job fails because of it
            fault = described(error)[0]
        return {
            **before,
            "log_processor_failed": f"{getattr(processor, '__name__', shown(processor))}: {fault}",
        }

    return process


class _Target(Logger):
    """What structlog hands the lines of processors and plugins to; its own filter has let them
    through.
    """

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self.is_enabled_for = lambda _level: True


def _read_record(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Take over what one of our loggers has made, or the text of another one's message."""
    arguments, message = event.pop("positional_args", ()), event["_record"].msg
    if isinstance(message, Template):
        event.update(message.fields)
    elif arguments:
        try:
            event["event"] = event["event"] % arguments
        except Exception:  # noqa: BLE001  # the library's slip, and what it wanted to say is still worth a line
            event["event"] = f"{event['event']} (its arguments do not fit)"
    event["event"] = event["event"].rstrip()
    return event


def _add_origin(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Add the job in whose task or thread the line is written, and the trace."""
    if not isinstance(event["_record"].msg, Template):
        for key, value in origin().items():
            event.setdefault(key, value)
    return event


def _stamp_json(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    stamp = datetime.fromtimestamp(event["_record"].created, UTC)
    event["timestamp"] = f"{stamp:%Y-%m-%dT%H:%M:%S.%f}Z"
    return event


def _stamp_console(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event["timestamp"] = (
        f"{datetime.fromtimestamp(event['_record'].created).astimezone():%Y-%m-%d %H:%M:%S}"
    )
    return event


def _ordered(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for key in event:
        if is_secret_name(str(key)):
            event[key] = MASK
    ordered = {key: event.pop(key) for key in KEYS if key in event}
    last = {key: event.pop(key) for key in TRACEBACKS if key in event}
    return {**ordered, **event, **last}


def _dumped(event: EventDict, **_: Any) -> str:
    try:
        return json.dumps(event, default=shown, skipkeys=True)
    except (ValueError, RecursionError):  # it contains itself
        return json.dumps(
            {key: value if isinstance(value, str) else shown(value) for key, value in event.items()}
        )


def _console(colours: bool) -> ConsoleRenderer:
    """Renders one line for people: time, level, event, then `key=value`, then tracebacks."""

    def style(code: str) -> str:
        return f"\x1b[{code}m" if colours else ""

    def painted(
        code: str, convert: Callable[[object], str] = str, key: str | None = None
    ) -> KeyValueColumnFormatter:
        return KeyValueColumnFormatter(key, style(code), style("0"), convert)

    def level(key: str, value: object) -> str:  # noqa: ARG001  # as the renderer calls it
        return f"{style(COLOURS.get(str(value), '0'))}{value!s:<8}{style('0')}"

    return ConsoleRenderer(
        columns=[
            Column("timestamp", painted("2")),
            Column("level", level),
            Column("event", painted("1")),
            Column("", painted("0", word, style("36"))),
        ],
        exception_formatter=plain_traceback,
        sort_keys=False,
    )


def _printable_texts(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """What the renderer would print as it is; it quotes the values of other keys."""
    event["event"] = _printable(str(event["event"]))
    for key in TRACEBACKS:
        if key in event:
            event[key] = _printable(str(event[key]), keep="\n\t")
    return event


def _printable(text: str, keep: str = "") -> str:
    """The text with control characters escaped: what a job says must not move the cursor or forge a
    line.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text
    )


def _conceal(_logger: WrappedLogger, _method: str, line: str) -> str:
    """A line without what is secret, wherever it came from."""
    return concealing(current_job.get())(line)


class _Handler(logging.Handler):
    """Writes whole lines, from any thread, and never raises: nobody fails because nobody reads the
    log.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, unless a team's processor drops it."""
        try:
            line = self.format(record)
        except structlog.DropEvent:
            return
        except Exception as error:  # noqa: BLE001  # its text may be what is wrong with it
            line = f"a line of {record.name} at {record.levelname} cannot be rendered: {described(error)[0]}"
        try:
            stream = self._stream or sys.stderr
            stream.write(f"{line}\n")
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # the other end of the pipe is gone, or the stream is closed, or there is none
