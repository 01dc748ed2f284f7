"""`WorkerProcesses`: starts `corral worker` processes for a test, and ends them with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["WorkerProcess", "WorkerProcesses"]

STOP_SECONDS = 20.0
"""How long a worker may take to stop. By default `corral worker` gives its jobs 10 s."""


class WorkerProcess:
    """One `corral worker`.

    Attributes:
        process: The process.
        log_file: What it writes to stdout and stderr.
    """

    def __init__(self, process: subprocess.Popen[bytes], log_file: Path) -> None:
        self.process = process
        self.log_file = log_file

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self.log_file.read_text("utf-8", errors="replace")

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Its exit code; negative is the signal that ended it; None while it runs."""
        return self.process.poll()

    def kill(self) -> None:
        """End it at once, as a crash would: its jobs stay where they are."""
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def stop(self, seconds: float = STOP_SECONDS) -> int:
        """Send SIGTERM, and wait for the end.

        Args:
            seconds: How long that may take.

        Returns:
            Its exit code: 0 where all of its jobs ended in time.

        Raises:
            TimeoutError: It has not ended; the error has the end of its log.
        """
        if self.is_running:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            end_of_log = self.log[-4000:]
            raise TimeoutError(
                f"the worker has not stopped in {seconds:g} s; the end of its log:\n{end_of_log}"
            ) from None


class WorkerProcesses:
    """Starts workers: the fixture `corral_worker`.

    Args:
        folder: Their working directory.
        environ: Variables that each of them has beside this process's.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.folder = folder
        self.environ = dict(environ)
        self._started: list[WorkerProcess] = []

    def __call__(self, *arguments: str, environ: Mapping[str, str] | None = None) -> WorkerProcess:
        """Start `corral worker`.

        Args:
            arguments: Names of queues, and options: `"emails=4", "--processes", "2"`.
            environ: Variables of this worker alone.

        Returns:
            The worker. It has not begun to work yet: wait for what it does.
        """
        log_file = self.folder / f"worker-{len(self._started) + 1}.log"
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "corral", "worker", *arguments],
                cwd=self.folder,
                env={**os.environ, **self.environ, **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._started.append(WorkerProcess(process, log_file))
        return self._started[-1]

    def end(self) -> None:
        """Kill those that run still."""
        for worker in self._started:
            worker.kill()
