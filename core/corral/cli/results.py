"""Commands and their results: stdout is for those alone, whoever prints while a command runs.

A plugin that prints when it is imported, a hook, a C library, a child process: none may spoil the
JSON or the id that a script reads. So while a command runs, stdout is turned to stderr, and
`print_result` writes to what stdout was.
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
"""What stdout was before the command began."""


class _Command(click.Command):
    def invoke(self, ctx: click.Context) -> Any:
        with _own_stdout():
            return super().invoke(ctx)


class Group(click.Group):
    """A group whose commands have stdout for their results."""

    command_class = _Command


command: Callable[..., Callable[[Callable[..., Any]], click.Command]] = partial(
    click.command, cls=_Command
)
"""As `click.command`, of a command that has stdout for its results."""

group: Callable[..., Callable[[Callable[..., Any]], Group]] = partial(click.group, cls=Group)
"""As `click.group`, of a group of such commands."""


def print_result(text: str) -> None:
    """Print a line of a command's result."""
    click.echo(text, file=_results.get())


def is_on_terminal() -> bool:
    """Whether results go to a terminal."""
    return (_results.get() or sys.stdout).isatty()


@contextmanager
def _own_stdout() -> Iterator[None]:
    before = sys.stdout
    if before is None or sys.stderr is None:  # the caller has closed one of them
        yield
        return
    results = _claimed(before)
    token = _results.set(results)
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        sys.stdout = before
        _results.reset(token)
        if results is not before:
            with suppress(OSError):  # nobody reads it any more, which `print_result` has raised
                results.close()


def _claimed(stdout: TextIO) -> TextIO:
    """What writes to stdout from now on, when nothing else does.

    Where it is the process's own, its descriptor leads to stderr for the rest of the process: for
    what is not written in Python, for children, and for what is printed at the exit.
    """
    try:
        if stdout.fileno() != 1:
            return stdout
        stdout.flush()
        own = os.dup(1)
        os.dup2(sys.stderr.fileno(), 1)
    except (OSError, ValueError):  # there is no descriptor behind it, as in a test
        return stdout
    return open(own, "w", encoding=stdout.encoding, errors=stdout.errors, buffering=1)  # noqa: PTH123  # it has no path
