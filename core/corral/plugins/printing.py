"""`stdout_turned`: what plugins print while they are loaded goes to stderr.

A program's stdout may be data.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, TextIO, cast

__all__ = ["stdout_turned"]

_lock: Final = threading.Lock()
"""Held while `sys.stdout` is replaced: of two threads that connect at once, none may put back the
other's stand-in.
"""


class _Turned:
    """Stands for stdout: stderr for threads that load plugins, and what it was for all others,
    which print data.

    A plugin may keep it, in a handler of `logging` for one: once nobody loads plugins it is what it
    was for everybody.

    Args:
        stdout: What it was.
    """

    def __init__(self, stdout: TextIO) -> None:
        self.stdout = stdout
        self.threads: list[int] = []

    def __getattr__(self, name: str) -> Any:
        is_loading = threading.get_ident() in self.threads and sys.stderr is not None
        return getattr(sys.stderr if is_loading else self.stdout, name)


@contextmanager
def stdout_turned() -> Iterator[None]:
    """Turn what this thread prints to stderr while entered."""
    thread = threading.get_ident()
    with _lock:
        before: object = sys.stdout
        turned = before if isinstance(before, _Turned) else _Turned(sys.stdout)
        turned.threads.append(thread)
        sys.stdout = cast("TextIO", turned)
    try:
        yield
    finally:
        with _lock:
            turned.threads.remove(thread)
            if (
                not turned.threads and cast("object", sys.stdout) is turned
            ):  # no plugin has put another one there
                sys.stdout = turned.stdout
