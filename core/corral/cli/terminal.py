"""What a person at a terminal sees and is asked, and what happens where there is none."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import click

from corral.errors import ConfigurationError

__all__ = ["cells_of", "confirm", "cut_to_cells", "printable", "progress", "show_damage"]

WIPE: Final = "\x1b[1A\x1b[2K"
"""Goes up one line of a terminal, and clears it."""


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
        if character in kept
        or unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Zl", "Zp"}
        else character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )


def cells_of(text: str) -> int:
    """How many cells of a terminal a printable text takes: two for a wide character, none for what
    combines.
    """
    if text.isascii():
        return len(text)
    return sum(map(_cells_of, text))


def cut_to_cells(text: str, cells: int) -> str:
    """A printable text that takes at most so many cells; one that was cut ends with `…`."""
    if cells_of(text) <= cells:
        return text
    taken, left = "", cells - 1
    for character in text:
        left -= _cells_of(character)
        if left < 0:
            break
        taken += character
    return f"{taken}…"


def _cells_of(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


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
        raise ConfigurationError(
            f"nobody is at a terminal to confirm: {question}", hint="add --yes"
        )
    if not click.confirm(f"{question}?", err=True):
        click.echo("nothing was changed", err=True)
        raise click.exceptions.Exit(1)


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], object] | None]:
    """Show a bar on stderr while something takes its time, and wipe it then; on a terminal only.

    Args:
        label: What is being done.

    Yields:
        `told(done, total)`, to be called after each step; None where nobody looks.
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

            def tell(done: int, total: int) -> None:
                bar.length = total
                bar.update(done - bar.pos)

            yield tell
    finally:
        click.echo(WIPE, err=True, nl=False, color=True)
