"""Processes kept on one core each, for rows in which one request waits for the one before.

Where client and store are is then worth a factor of two: the scheduler puts them on one core or on
two, and the figures of a series fall into two groups. Pinned to different cores they repeat.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path


def two_cores() -> tuple[int, int] | None:
    """A core for the client and one for the store; None where this process may use only one."""
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[1]) if len(usable) > 1 else None


@contextmanager
def pinned(cores: Mapping[int, int]) -> Iterator[None]:
    """Keep each process, with all threads that it has by now, on its core until the block ends.

    Args:
        cores: The core of each process id.
    """
    before = {pid: os.sched_getaffinity(pid) for pid in cores}
    try:
        for pid, core in cores.items():
            _move(pid, {core})
        yield
    finally:
        for pid, usable in before.items():
            _move(pid, usable)


def _move(pid: int, cores: set[int]) -> None:
    """A thread that starts later has the cores of the one that starts it."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):  # it has just ended
            os.sched_setaffinity(int(thread.name), cores)
