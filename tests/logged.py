"""`capture_logs`: what Corral logs while a test looks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from corral.loggers import Template


class _Listener(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.heard: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        fields = (
            record.msg.fields
            if isinstance(record.msg, Template)
            else {"event": record.getMessage()}
        )
        self.heard.append({**fields, "log_level": record.levelname.lower()})


@contextmanager
def capture_logs(level: int = logging.DEBUG) -> Iterator[list[dict[str, Any]]]:
    """The lines of the loggers `corral.*` from `level` on: each with `event`, `log_level` and its
    fields.
    """
    logger, listener = logging.getLogger("corral"), _Listener()
    before = logger.level
    logger.addHandler(listener)
    logger.setLevel(level)
    try:
        yield listener.heard
    finally:
        logger.removeHandler(listener)
        logger.setLevel(before)
