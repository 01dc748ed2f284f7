"""Aligned columns on stdout."""

from __future__ import annotations

from collections.abc import Sequence

import click

__all__ = ["show_table"]


def show_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their headings; numbers are aligned to the right.

    Args:
        headings: One per column.
        rows: As many cells each.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    numeric = [bool(rows) and all(isinstance(row[place], int) for row in rows) for place in range(len(headings))]
    for line in [list(headings), *cells]:
        padded = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        )
        click.echo("  ".join(padded).rstrip())
