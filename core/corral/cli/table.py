"""Aligned columns on stdout: cut to the width of a terminal, whole elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

import click

from corral.cli.results import is_on_terminal, print_result
from corral.cli.terminal import cells_of, cut_to_cells, printable

__all__ = ["show_table"]

GAP = 2
"""Blanks between columns."""
NARROWEST = 8
"""An elastic column is never cut to less."""


def show_table(
    headings: Sequence[str], rows: Sequence[Sequence[object]], *, elastic: int = -1
) -> None:
    """Print rows under their headings; numbers are aligned to the right.

    Args:
        headings: One per column; on a terminal it may have several lines.
        rows: As many cells each. Control characters in them are shown as escapes.
        elastic: The column that is cut where a terminal is too narrow.
    """
    lines = [[printable(str(cell)) for cell in row] for row in rows]
    numeric = [
        bool(rows) and all(isinstance(row[place], int) for row in rows)
        for place in range(len(headings))
    ]
    heads = [heading.splitlines() for heading in headings]
    height = max(map(len, heads))
    above = [*zip(*([""] * (height - len(head)) + head for head in heads), strict=True)]
    widths = [max(map(cells_of, column)) for column in zip(*above, *lines, strict=True)]
    is_drawn = is_on_terminal()
    if is_drawn:
        others = sum(widths) - widths[elastic] + GAP * (len(widths) - 1)
        width = shutil.get_terminal_size().columns
        widths[elastic] = min(widths[elastic], max(width - others, NARROWEST))
    for number, line in enumerate([*above, *lines]):
        text = (" " * GAP).join(map(_padded, line, widths, numeric)).rstrip()
        print_result(click.style(text, bold=True) if is_drawn and number < height else text)


def _padded(cell: str, width: int, right: bool) -> str:
    cut = cut_to_cells(cell, width)
    blanks = " " * (width - cells_of(cut))
    return blanks + cut if right else cut + blanks
