"""Commands and their results: while a command runs, only its result is written to stdout.

A plugin, a hook, a C library or a child process may print at any time, and must not spoil the JSON
or the id that a script reads. Therefore everything that is printed while a command runs goes to
stderr, and `print_result` writes to the original stdout.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from typing import Any, TextIO

import click

__all__ = ["Group", "command", "group", "is_on_terminal", "print_result"]

_results: ContextVar[TextIO | None] = ContextVar("corral_results", default=None)
"""The original stdout of the running command."""


class _Command(click.Command):
    def invoke(self, ctx: click.Context) -> Any:
        with _reserve_stdout():
            return super().invoke(ctx)


class Group(click.Group):
    """A group of commands; during each of them, only its result is written to stdout."""

    command_class = _Command


command: Callable[..., Callable[[Callable[..., Any]], click.Command]] = partial(
    click.command, cls=_Command
)
"""Like `click.command`; while the command runs, only its result is written to stdout."""

group: Callable[..., Callable[[Callable[..., Any]], Group]] = partial(click.group, cls=Group)
"""Like `click.group`, for a `Group`."""


def print_result(text: str) -> None:
    """Print a line of a command's result to the original stdout."""
    click.echo(text, file=_results.get())


def is_on_terminal() -> bool:
    """Whether the original stdout is a terminal."""
    return (_results.get() or sys.stdout).isatty()


@contextmanager
def _reserve_stdout() -> Iterator[None]:
    before = sys.stdout
    if before is None or sys.stderr is None:  # the caller has closed one of them
        yield
        return
    results = _take_descriptor(before)
    token = _results.set(results)
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        sys.stdout = before
        _results.reset(token)
        if results is not before:
            with suppress(OSError):  # `print_result` has raised it already
                results.close()


def _take_descriptor(stdout: TextIO) -> TextIO:
    """Take stdout away from everything else, and return a stream that still writes to it.

    If it is the process's file descriptor 1, that descriptor leads to stderr for the rest of the
    process. So C code, child processes and code that runs at the exit cannot write to stdout.
    """
    try:
        if stdout.fileno() != 1:
            return stdout
        stdout.flush()
        own = os.dup(1)
        os.dup2(sys.stderr.fileno(), 1)
    except (OSError, ValueError):  # it has no file descriptor, for example in a test
        return stdout
    return open(own, "w", encoding=stdout.encoding, errors=stdout.errors, buffering=1)  # noqa: PTH123  # it has no path
