"""What the demo prints: a line for each thing that happens, and on a terminal, below them, the queues as they are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from corral.inspector import JobInspector

__all__ = ["Screen"]

STATES = ("waiting", "active", "delayed", "completed", "failed")
REFRESH_SECONDS = 0.2


class Screen:
    """Lines of what happened, and the seconds since the start."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._started = time.monotonic()
        self._last = ""

    def tell(self, who: str, *lines: str) -> None:
        """Print lines; the first one has the time, and who it is about if that is not who the last one was about."""
        seconds = time.monotonic() - self._started
        for number, line in enumerate(lines):
            name = who if who != self._last else ""
            left = Text(f"{name:>9}", "bold").append(f" {seconds:6.2f} s  ", "dim")
            self._console.print(left.append(line, "default") if not number else Text(f"{'':20}{line}"))
            self._last = who

    def heading(self, text: str) -> None:
        """Begin a part of the story."""
        self._console.print()
        self._console.print(Text(text, "bold"))
        self._last = ""

    @asynccontextmanager
    async def showing_queues(self, inspector: JobInspector, queues: Sequence[str]) -> AsyncIterator[None]:
        """On a terminal, keep a table of the queues below the lines until the block ends; elsewhere, nothing."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, auto_refresh=False, transient=True) as live:

            async def refresh() -> None:
                while True:
                    table = Table(box=None, padding=(0, 2), header_style="dim")
                    table.add_column("queue")
                    for state in STATES:
                        table.add_column(state, justify="right")
                    for queue in queues:
                        counts = {str(state): count for state, count in (await inspector.counts(queue)).items()}
                        table.add_row(queue, *(str(counts.get(state, 0) or "") for state in STATES))
                    live.update(table, refresh=True)
                    await asyncio.sleep(REFRESH_SECONDS)

            refreshing = asyncio.create_task(refresh(), name="screen")
            try:
                yield
            finally:
                refreshing.cancel()
                await asyncio.wait([refreshing])
