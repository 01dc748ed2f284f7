"""What a person at a terminal sees and is asked, and what happens where there is none."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import click

from corral.errors import ConfigurationError

__all__ = ["confirm", "printable", "progress", "show_damage"]


def printable(text: str, *, lines: bool = False) -> str:
    """A text that cannot drive a terminal: control and direction characters are shown as escapes.

    Args:
        text: Whatever a job contains.
        lines: Whether line breaks and tabs stay.
    """
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(
        character
        if character in kept or unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}
        else character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )


def show_damage(damaged: Iterable[str]) -> None:
    """Say which keys of the store are of the wrong type, where the rest was shown.

    Args:
        damaged: What is wrong, each as `<key> is a <type>, not a <type>`.
    """
    for wrong in dict.fromkeys(damaged):
        click.echo(f"error: the key {printable(wrong)}", err=True)
    click.echo("  hint: look at it with redis-cli, and repair it or rename it away", err=True)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is done that cannot be undone.

    Args:
        question: What is about to be done, without a question mark.
        yes: Whether it was confirmed in the command already.

    Raises:
        ConfigurationError: There is nobody to ask.
        click.exceptions.Exit: The answer was no.
    """
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfigurationError(f"nobody is at a terminal to confirm: {question}", hint="add --yes")
    if not click.confirm(f"{question}?", err=True):
        click.echo("nothing was changed", err=True)
        raise click.exceptions.Exit(1)


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], object] | None]:
    """Show a bar on stderr while something takes its time; on a terminal only.

    Args:
        label: What is being done.

    Yields:
        `told(done, total)`, to be called after each step; None where nobody looks.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
