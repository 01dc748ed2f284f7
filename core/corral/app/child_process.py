"""A worker process as seen from inside: its heartbeats, and how its parent stops it."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from corral.fleet.processes import OwnRecord, ProcessRecord
from corral.shutdown import ask_to_stop, ask_to_stop_sooner
from corral.tasks import end_tasks, start_task

if TYPE_CHECKING:  # a producer keeps a record, too, and must not load a worker for it
    from corral.worker.worker import Worker

__all__ = ["HURRY", "STOP", "keep_record", "start_heartbeats", "stop_with_parent"]

STOP: Final = b"s"
"""What a parent writes to a child's standard input to do what a first SIGTERM does: finish the
running jobs.
"""
HURRY: Final = b"h"
"""What a parent writes for what a second SIGTERM does: hand the running jobs back."""


@asynccontextmanager
async def keep_record(own: OwnRecord) -> AsyncIterator[OwnRecord]:
    """Keep this process's record in the store; remove it, and close its connection, at the end."""
    keeping = start_task(own.keep(), "corral-record")
    try:
        yield own
    finally:
        await end_tasks([keeping])
        await own.link.close()


def start_heartbeats(worker: Worker, own: OwnRecord) -> None:
    """Let the record of this process say from now on how its worker is."""

    def heartbeat() -> ProcessRecord:
        return ProcessRecord(
            worker.silent_seconds,
            draining=worker.is_stopping,
            troubles=tuple(worker.all_troubles.values()),
        )

    own.start_heartbeats(heartbeat)


def stop_with_parent() -> None:
    """Stop this process when its parent asks for it on standard input, or has died.

    A pipe and not a signal: it shows both on every system, and cannot be taken for a second signal
    if a service manager signals the parent and its children at once. Processes that jobs start read
    an empty standard input.
    """
    pipe = os.dup(0)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)

    def read() -> None:
        while (request := os.read(pipe, 1)) == STOP:
            ask_to_stop()
        if request == HURRY:
            ask_to_stop_sooner()
        ask_to_stop()

    threading.Thread(target=read, name="corral-parent", daemon=True).start()
