"""Aligned columns on stdout: drawn by rich on a terminal, plain text elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from corral.cli.terminal import printable

__all__ = ["show_table"]


def show_table(headings: Sequence[str], rows: Sequence[Sequence[object]], *, elastic: int | None = -1) -> None:
    """Print rows under their headings; numbers are aligned to the right.

    Args:
        headings: One per column.
        rows: As many cells each. Control characters in them are shown as escapes.
        elastic: The column that is cut where a terminal is too narrow; None: headings are folded, and no cell is cut.
    """
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    numeric = [bool(rows) and all(isinstance(row[place], int) for row in rows) for place in range(len(headings))]
    if sys.stdout.isatty():
        _draw(headings, cells, numeric, None if elastic is None else elastic % len(headings))
        return
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    for line in [list(headings), *cells]:
        padded = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        )
        click.echo("  ".join(padded).rstrip())


def _draw(
    headings: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool], elastic: int | None
) -> None:
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for place, heading in enumerate(headings):
        widest = max((cell_len(row[place]) for row in cells), default=0)
        table.add_column(
            Text(heading, overflow="fold"),
            justify="right" if numeric[place] else "left",
            no_wrap=elastic is not None,
            overflow="ellipsis",
            min_width=8 if place == elastic else widest if elastic is None else max(widest, len(heading)),
        )
    for row in cells:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)
