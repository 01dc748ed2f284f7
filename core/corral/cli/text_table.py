"""Tables with aligned columns on stdout; on a terminal they are cut to its width."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

import click

from corral.cli.results import is_on_terminal, print_result
from corral.cli.terminal import cell_width, cut_to_cells, printable

__all__ = ["show_page_size", "show_table"]

GAP = 2
"""Spaces between columns."""
NARROWEST = 8
"""The least width of an elastic column, in cells of the terminal."""


def show_table(
    headings: Sequence[str], rows: Sequence[Sequence[object]], *, elastic: int = -1
) -> None:
    """Print rows under their headings; numbers are aligned to the right.

    Args:
        headings: One heading per column; it may have several lines.
        rows: One cell per column each. Control characters in them are shown as escapes.
        elastic: The index of the column that is cut if a terminal is too narrow.
    """
    lines = [[printable(str(cell)) for cell in row] for row in rows]
    numeric = [
        bool(rows) and all(isinstance(row[place], int) for row in rows)
        for place in range(len(headings))
    ]
    heads = [heading.splitlines() for heading in headings]
    height = max(map(len, heads))
    above = [*zip(*([""] * (height - len(head)) + head for head in heads), strict=True)]
    widths = [max(map(cell_width, column)) for column in zip(*above, *lines, strict=True)]
    is_terminal = is_on_terminal()
    if is_terminal:
        others = sum(widths) - widths[elastic] + GAP * (len(widths) - 1)
        width = shutil.get_terminal_size().columns
        widths[elastic] = min(widths[elastic], max(width - others, NARROWEST))
    for number, line in enumerate([*above, *lines]):
        text = (" " * GAP).join(map(_padded, line, widths, numeric)).rstrip()
        print_result(click.style(text, bold=True) if is_terminal and number < height else text)


def show_page_size(what: str, start: int, shown: int, limit: int, total: int) -> None:
    """Print to stderr which part of a listing a page shows, and how to see the next one.

    Args:
        what: What is listed: `failed jobs in queue 'emails'`.
        start: How many rows were skipped.
        shown: How many rows the page has.
        limit: How many rows it could have.
        total: How many rows there are in all.
    """
    part = f"{start + 1} to {start + shown} of {total:,}" if shown else f"none of {total:,}"
    more = f"; more: --start {start + limit}" if start + limit < total else ""
    click.echo(f"{part if total else 'no'} {what}{more}", err=True)


def _padded(cell: str, width: int, right: bool) -> str:
    cut = cut_to_cells(cell, width)
    blanks = " " * (width - cell_width(cut))
    return blanks + cut if right else cut + blanks
