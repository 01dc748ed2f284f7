"""What the demo prints: a line per event and, on a terminal, a table of the queues below."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import click

from corral.inspector import JobInspector

__all__ = ["Screen"]

STATES = ("waiting", "active", "delayed", "completed", "failed")
REFRESH_SECONDS = 0.2
UP_AND_CLEAR = "\x1b[{}F\x1b[J"
"""Moves the cursor up by so many lines, and clears what is below it (ECMA-48)."""


class Screen:
    """Lines of what happened, and the seconds since the start."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._last = ""
        self._table: list[str] = []
        """What stands below the lines now."""

    def print_lines(self, who: str, *lines: str) -> None:
        """Print lines. The first one has the time, and the person, where that is another one."""
        seconds = time.monotonic() - self._started
        printed: list[str] = []
        for number, line in enumerate(lines):
            name = click.style(f"{who if who != self._last else '':>9}", bold=True)
            printed.append(
                f"{'':20}{line}"
                if number
                else f"{name}{click.style(f' {seconds:6.2f} s  ', dim=True)}{line}"
            )
            self._last = who
        self._draw(printed, self._table)

    def heading(self, text: str) -> None:
        """Begin a part of the story."""
        self._draw(["", click.style(text, bold=True)], self._table)
        self._last = ""

    @asynccontextmanager
    async def showing_queues(
        self, inspector: JobInspector, queues: Sequence[str]
    ) -> AsyncIterator[None]:
        """Keep a table of the queues below the lines, on a terminal, until the block ends."""
        if not sys.stdout.isatty():
            yield
            return
        width = max(map(len, queues))

        async def refresh() -> None:
            while True:
                rows = [
                    click.style(
                        "  ".join([f"{'queue':{width}}", *(f"{state:>9}" for state in STATES)]),
                        dim=True,
                    )
                ]
                for queue in queues:
                    counts = {
                        str(state): count
                        for state, count in (await inspector.counts(queue)).items()
                    }
                    cells = (f"{counts.get(state, 0) or '':>9}" for state in STATES)
                    rows.append("  ".join([f"{queue:{width}}", *cells]))
                self._draw([], rows)
                await asyncio.sleep(REFRESH_SECONDS)

        refreshing = asyncio.create_task(refresh(), name="screen")
        try:
            yield
        finally:
            refreshing.cancel()
            await asyncio.wait([refreshing])
            self._draw([], [])

    def _draw(self, lines: Sequence[str], table: Sequence[str]) -> None:
        """Print lines above the table, and the table again as it is now."""
        above = UP_AND_CLEAR.format(len(self._table)) if self._table else ""
        click.echo(above + "".join(f"{line}\n" for line in (*lines, *table)), nl=False)
        self._table = [*table]
