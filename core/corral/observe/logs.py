"""Logs: one line per event on stderr, coloured text on a terminal and JSON elsewhere, whoever logs.

structlog is used as it is; other libraries' standard logging goes through the same renderer. What a line says about
the job it belongs to is looked up when the line is written: a job that logs nothing pays nothing. This module knows no
worker and no store.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from corral.forking import on_fork
from corral.job import Job, current_job
from corral.settings import Settings
from corral.veil import MASK, Veil, is_secret_name, masked, may_hold_secrets, secret_names

__all__ = ["configure_logs", "processors"]

KEYS: Final = ("timestamp", "level", "event", "logger", "queue", "job_id", "attempt", "duration_ms", "worker")
"""These come first, in this order, in every line that has them."""
TRACEBACKS: Final = ("stack", "exception")
"""These come last, and keep their line breaks on a terminal."""
COLOURS: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}
"""Select Graphic Rendition codes (ECMA-48): dim, green, yellow, red, bold red."""


def configure_logs(settings: Settings, stream: TextIO | None = None) -> None:
    """Send the logs of this process to one place, in one form.

    Only programs call this, once, as early as they can: a library never does. Values bound with
    `structlog.contextvars` (the worker's name, say) are part of every line.

    Args:
        settings: `log_level` and `log_format`.
        stream: Where lines go; what `sys.stderr` is at each line, if None.
    """
    level = logging.getLevelNamesMapping()[settings.log_level]
    terminal = (stream or sys.stderr).isatty()
    console = terminal if settings.log_format == "auto" else settings.log_format == "console"
    output = _Output(stream)
    # The list is changed in place: loggers that were used before hold on to it.
    chain = structlog.get_config()["processors"] if structlog.is_configured() else []
    chain[:] = processors(console=console, colours=terminal and not os.environ.get("NO_COLOR"))
    structlog.configure(
        processors=chain,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda name="": _Logger(name, output),
        cache_logger_on_first_use=True,  # a line below the level costs 0.8 instead of 1.9 µs, and every job has one
    )
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, _Handler)]
    root.addHandler(_Handler(chain, output))
    # At DEBUG, HTTP and SMTP libraries log bodies and headers: payloads and secrets.
    root.setLevel(max(level, logging.INFO))
    logging.getLogger("corral").setLevel(level)
    logging.captureWarnings(capture=True)


def processors(*, console: bool, colours: bool = False) -> list[Processor]:
    """What makes a line of an event.

    Args:
        console: Text for people instead of JSON.
        colours: With the escape sequences of a terminal.
    """
    stamp = structlog.processors.TimeStamper("%Y-%m-%d %H:%M:%S", utc=False) if console else _ISO
    render: Processor = _Console(colours) if console else _json
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _add_origin,
        stamp,
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,  # Python's own traceback: without local variables, which are payloads
        _ordered,
        render,
    ]


_ISO: Final = structlog.processors.TimeStamper("iso", utc=True)


def _add_origin(logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Add the logger's name, and the job in whose task or thread the line is written."""
    if name := getattr(logger, "name", None):
        event.setdefault("logger", name)
    job = current_job.get()
    if job is not None:
        event.setdefault("queue", job.queue.name)
        event.setdefault("job_id", job.id)
        event.setdefault("attempt", job.attempt)
    return event


def _ordered(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for key in event:
        if is_secret_name(key):
            event[key] = MASK
    ordered = {key: event.pop(key) for key in KEYS if key in event}
    last = {key: event.pop(key) for key in TRACEBACKS if key in event}
    return {**ordered, **event, **last}


def _json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    try:
        line = json.dumps(event, default=_shown, skipkeys=True)
    except (ValueError, RecursionError):  # it contains itself
        line = json.dumps({key: value if isinstance(value, str) else _shown(value) for key, value in event.items()})
    return _veiled(line)


class _Console:
    """Renders one line for people: time, level, event, then `key=value`."""

    def __init__(self, colours: bool) -> None:
        self._colours = colours

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> str:
        blocks = [_printable(str(event.pop(key)), keep="\n\t") for key in TRACEBACKS if key in event]
        time, level, said = event.pop("timestamp"), event.pop("level"), _printable(str(event.pop("event")))
        head = f"{self._painted(time, '2')} {self._painted(f'{level:<8}', COLOURS.get(level, '0'))} "
        pairs = " ".join(f"{self._painted(key, '36')}={_word(value)}" for key, value in event.items())
        return _veiled("\n".join([f"{head}{self._painted(said, '1')} {pairs}".rstrip(), *blocks]))

    def _painted(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colours else text


def _veiled(line: str) -> str:
    """A line without passwords of URLs, and in a job's task or thread without what is secret in its payload."""
    job = current_job.get()
    if job is None or not may_hold_secrets(job.queue.payload):
        return masked(line)
    if job.run.veil is None:
        job.run.veil = _veil_of(job)
    return job.run.veil.text(line) if job.run.veil.is_needed else masked(line)


def _veil_of(job: Job) -> Veil:
    try:
        data = json.loads(job.queue.dumped(job.payload))
    except Exception:  # noqa: BLE001  # a log line never fails the job that writes it
        data = None
    return Veil(secret_names(job.queue.payload), data)


def _word(value: object) -> str:
    if isinstance(value, str):
        return value if value and value.isprintable() and " " not in value else repr(value)
    return _printable(_shown(value))


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001  # a log line never fails the job that writes it
        return f"<{type(value).__name__} that cannot be shown>"


def _printable(text: str, keep: str = "") -> str:
    """The text with control characters escaped: what a job says must not move the cursor or forge a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


class _Output:
    """Writes whole lines, from any thread, and never raises: nobody fails because nobody reads the log."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._turn = threading.RLock()  # a signal handler may log in the middle of a line
        on_fork(self)

    def leave_to_parent(self) -> None:
        """In a forked child: a thread that only the parent has may be in the middle of a line."""
        self._turn = threading.RLock()

    def write(self, line: str) -> None:
        stream = self._stream or sys.stderr
        with self._turn:
            try:
                stream.write(f"{line}\n")
                stream.flush()
            except (OSError, ValueError):  # the other end of the pipe is gone, or the stream is closed
                pass


class _Logger:
    """What structlog hands a rendered line to, whatever its level."""

    def __init__(self, name: str, output: _Output) -> None:
        self.name = name
        self.msg = self.debug = self.info = self.warning = self.error = self.critical = output.write


class _Handler(logging.Handler):
    """Renders the standard library's records like our own."""

    def __init__(self, chain: Sequence[Processor], output: _Output) -> None:
        super().__init__()
        self._chain = chain
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        event: Any = {"event": _message(record), "logger": record.name}
        if record.exc_info:
            event["exc_info"] = record.exc_info
        for processor in self._chain:
            event = processor(None, record.levelname.lower(), event)
        self._output.write(event)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage().rstrip()
    except Exception:  # noqa: BLE001  # the library's slip, and what it wanted to say is still worth a line
        return f"{record.msg} (its arguments do not fit)"
