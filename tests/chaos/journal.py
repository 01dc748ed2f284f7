"""What the processors of the test's plugin wrote down: a line for each start, each end, and more,
from all workers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Line:
    """One line.

    Attributes:
        at: Unix seconds.
        pid: The worker's process.
        event: `start`, `end`, or `hang`: from now on the process does nothing but this. Of jobs
            that are `fenced`, also `effect`, `raise` and `cancel`; and `hold`: the process waits
            here until it is killed. Of producers, `enq.invoke` before a call and `enq.ok`,
            `enq.fail` (certainly not written) or `enq.unknown` after it. Of whoever makes faults,
            `fault.begin` and `fault.end`.
        id: The job; of a fault, its name.
        attempt: From 1.
        fence: The `job.fence` of this start; empty where the test makes the line.
        locked: Whether the store held a lock on the job when it started; None where it did not
        look.
        where: Of `hold`, where the process waits.
    """

    at: float
    pid: int
    event: str
    id: str
    attempt: int = 1
    fence: tuple[int, ...] = ()
    locked: bool | None = None
    where: str = ""


class Journal:
    """The file, read as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: list[Line] = []
        self._read = 0

    def write(self, event: str, name: str, pid: int = 0) -> Line:
        """Write down what the test itself does."""
        line = Line(time.time(), pid, event, name)
        with self.path.open("ab", buffering=0) as file:
            file.write(
                json.dumps({"at": line.at, "pid": pid, "event": event, "id": name}).encode() + b"\n"
            )
        return line

    def lines(self) -> list[Line]:
        """All lines so far, in the order they were written."""
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self._read)
                new = file.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._read += len(whole)
            self._lines += [_line(**json.loads(line)) for line in whole.splitlines()]
        return self._lines

    def starts(
        self, *, of: str | None = None, by: int | None = None, since: float = 0.0
    ) -> list[Line]:
        """The starts, of one job or by one process, from a moment on."""
        return [
            line
            for line in self.lines()
            if line.event == "start"
            and of in {None, line.id}
            and by in {None, line.pid}
            and line.at >= since
        ]

    def first(self, event: str, *, of: str) -> Line | None:
        """The first line of a kind about one job, or None."""
        return next((line for line in self.lines() if line.event == event and line.id == of), None)

    def running(self, pid: int) -> set[str]:
        """The jobs that a process has started and not ended."""
        mine = [line for line in self.lines() if line.pid == pid]
        return {line.id for line in mine} - {line.id for line in mine if line.event == "end"}

    def ended(self) -> set[str]:
        """The jobs that have run to their end at least once."""
        return {line.id for line in self.lines() if line.event == "end"}


def _line(*, fence: Sequence[int] = (), **rest: Any) -> Line:
    return Line(fence=tuple(fence), **rest)
