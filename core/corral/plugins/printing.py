"""`stdout_to_stderr`: sends what plugins print while they are loaded to stderr.

A program's stdout may be data.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, TextIO, cast

__all__ = ["stdout_to_stderr"]

_lock: Final = threading.Lock()
"""Held while `sys.stdout` is replaced.

Without it, one of two threads that connect at once could restore the other's replacement.
"""


class _Replacement:
    """Replaces stdout: stderr for threads that load plugins, the original for all others.

    A plugin may keep a reference to it, for example in a handler of `logging`. When no thread loads
    plugins any more, it acts as the original for everybody.

    Args:
        stdout: The original.
    """

    def __init__(self, stdout: TextIO) -> None:
        self.stdout = stdout
        self.threads: list[int] = []

    def __getattr__(self, name: str) -> Any:
        is_loading = threading.get_ident() in self.threads and sys.stderr is not None
        return getattr(sys.stderr if is_loading else self.stdout, name)


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send what this thread prints to stderr while the context is entered."""
    thread = threading.get_ident()
    with _lock:
        before: object = sys.stdout
        replacement = before if isinstance(before, _Replacement) else _Replacement(sys.stdout)
        replacement.threads.append(thread)
        sys.stdout = cast("TextIO", replacement)
    try:
        yield
    finally:
        with _lock:
            replacement.threads.remove(thread)
            # A plugin may have put another object in its place: that one stays.
            if not replacement.threads and cast("object", sys.stdout) is replacement:
                sys.stdout = replacement.stdout
