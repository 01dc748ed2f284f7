"""Aligned columns on stdout: drawn by rich on a terminal, plain text elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from corral.cli.terminal import printable

__all__ = ["show_table"]

GAP = 2
"""Blanks between columns."""
NARROWEST = 8
"""An elastic column is never cut to less."""


def show_table(headings: Sequence[str], rows: Sequence[Sequence[object]], *, elastic: int = -1) -> None:
    """Print rows under their headings; numbers are aligned to the right.

    Args:
        headings: One per column; on a terminal it may have several lines.
        rows: As many cells each. Control characters in them are shown as escapes.
        elastic: The column that is cut where a terminal is too narrow.
    """
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    numeric = [bool(rows) and all(isinstance(row[place], int) for row in rows) for place in range(len(headings))]
    if sys.stdout.isatty():
        _draw(headings, cells, numeric, elastic % len(headings))
        return
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    for line in [list(headings), *cells]:
        padded = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        )
        click.echo("  ".join(padded).rstrip())


def _draw(headings: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool], elastic: int) -> None:
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    widths = [
        max(cell_len(text) for text in (*heading.splitlines(), *(row[place] for row in cells)))
        for place, heading in enumerate(headings)
    ]
    others = sum(widths) - widths[elastic] + GAP * (len(headings) - 1)
    widths[elastic] = min(widths[elastic], max(console.width - others, NARROWEST))
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for place, heading in enumerate(headings):
        table.add_column(
            Text(heading),
            justify="right" if numeric[place] else "left",
            no_wrap=True,
            min_width=widths[place],
            max_width=widths[place],
        )
    for row in cells:
        table.add_row(*(Text(cell, overflow="ellipsis") for cell in row))
    console.print(table)
