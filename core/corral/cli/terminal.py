"""Output and questions for a person at a terminal, and what happens without one."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import click

from corral.errors import ConfigurationError

__all__ = ["cell_width", "confirm", "cut_to_cells", "printable", "show_damage", "show_progress"]

WIPE: Final = "\x1b[1A\x1b[2K"
"""The control sequence that goes up one line and clears it."""


def printable(text: str, *, lines: bool = False) -> str:
    """A text that is safe to print: control and direction characters are replaced by escapes.

    Args:
        text: Any text, such as the contents of a job.
        lines: Whether line breaks and tabs are kept.
    """
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(
        character
        if character in kept
        or unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}
        else character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )


def cell_width(text: str) -> int:
    """How many cells of a terminal a printable text takes.

    A wide character takes two, a combining character none.
    """
    if text.isascii():
        return len(text)
    return sum(map(_cell_width, text))


def cut_to_cells(text: str, cells: int) -> str:
    """Cut a printable text to at most this many cells; a text that was cut ends with `…`."""
    if cell_width(text) <= cells:
        return text
    taken, left = "", cells - 1
    for character in text:
        left -= _cell_width(character)
        if left < 0:
            break
        taken += character
    return f"{taken}…"


def _cell_width(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def show_damage(damaged: Iterable[str]) -> None:
    """Print to stderr which keys of the store have the wrong type.

    Args:
        damaged: One text for each key: `<key> is a <type>, not a <type>`.
    """
    for wrong in dict.fromkeys(damaged):
        click.echo(f"error: the key {printable(wrong)}", err=True)
    click.echo("  hint: look at it with redis-cli, and repair it or rename it away", err=True)


def confirm(question: str, *, yes: bool) -> None:
    """Ask for a confirmation before something is done that cannot be undone.

    Args:
        question: What is about to be done, without a question mark.
        yes: Whether it was confirmed by `--yes` already.

    Raises:
        ConfigurationError: There is no terminal to ask on.
        click.exceptions.Exit: The answer was no.
    """
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfigurationError(
            f"there is no terminal to confirm this on: {question}", hint="add --yes"
        )
    if not click.confirm(f"{question}?", err=True):
        click.echo("nothing was changed", err=True)
        raise click.exceptions.Exit(1)


@contextmanager
def show_progress(label: str) -> Iterator[Callable[[int, int], object] | None]:
    """Show a progress bar on stderr if that is a terminal, and clear it in the end.

    Args:
        label: What is being done.

    Yields:
        `update(done, total)`, to be called after each step; None without a terminal.
    """
    if not sys.stderr.isatty():
        yield None
        return
    try:
        with click.progressbar(
            length=1,
            label=label,
            file=sys.stderr,
            show_pos=True,
            bar_template="%(label)s %(bar)s %(info)s",
            fill_char="━",
            empty_char=" ",
        ) as bar:

            def update(done: int, total: int) -> None:
                bar.length = total
                bar.update(done - bar.pos)

            yield update
    finally:
        click.echo(WIPE, err=True, nl=False, color=True)
