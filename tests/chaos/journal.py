"""What the processors of the test's plugin wrote down: one line per start and per end, from all workers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Line:
    """One line.

    Attributes:
        at: Unix seconds.
        pid: The worker's process.
        event: `start` or `end`.
        id: The job.
        attempt: From 1.
    """

    at: float
    pid: int
    event: str
    id: str
    attempt: int = 1


class Journal:
    """The file, read as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: list[Line] = []
        self._read = 0

    def lines(self) -> list[Line]:
        """All lines so far, in the order they were written."""
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self._read)
                new = file.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._read += len(whole)
            self._lines += [Line(**json.loads(line)) for line in whole.splitlines()]
        return self._lines

    def starts(self, *, of: str | None = None, by: int | None = None, since: float = 0.0) -> list[Line]:
        """The starts, of one job or by one process, from a moment on."""
        return [
            line
            for line in self.lines()
            if line.event == "start" and of in {None, line.id} and by in {None, line.pid} and line.at >= since
        ]

    def running(self, pid: int) -> set[str]:
        """The jobs that a process has started and not ended."""
        mine = [line for line in self.lines() if line.pid == pid]
        return {line.id for line in mine} - {line.id for line in mine if line.event == "end"}

    def ended(self) -> set[str]:
        """The jobs that have run to their end at least once."""
        return {line.id for line in self.lines() if line.event == "end"}
