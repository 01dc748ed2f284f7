"""Run pytest twice: everything but the tests marked `timing`, a few at a time, then those alone.

A bound in seconds needs a machine that is not busy with other tests, and on a shared one it may
still be missed once: what fails of the second run, and only that, is repeated once, and says so.
Arguments go to pytest both times.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

SIDE_BY_SIDE = ("--numprocesses", str(min((os.cpu_count() or 1) + 1, 4)), "--dist", "worksteal")
"""Many tests wait, and each process has its own servers: there is one more than there are cores."""

ALONE = {"-s", "--pdb", "--trace", "-n", "--numprocesses"}
"""Arguments of somebody who wants to see, or to say how many."""

PASSED, FAILED, NOTHING_SELECTED = 0, 1, 5
"""Exit codes of pytest."""


def pytest(*arguments: str, stdout: int | None = None) -> int:
    """Run pytest in a process of its own, on this process's arguments and the given ones."""
    command = [sys.executable, "-m", "pytest", *sys.argv[1:], *arguments]
    return subprocess.run(command, check=False, stdout=stdout).returncode


def timing() -> int:
    """Run the tests marked `timing`, and those that failed a second time.

    Where there are none, pytest is not run on them: its last line would read as if nothing had been
    tested.
    """
    if (
        pytest(
            "-m", "timing", "--collect-only", "--quiet", "--no-summary", stdout=subprocess.DEVNULL
        )
        != PASSED
    ):
        return NOTHING_SELECTED
    with tempfile.TemporaryDirectory(
        prefix="corral-timing-"
    ) as cache:  # not shared with a run beside this one
        alone = ("-m", "timing", "-o", f"cache_dir={cache}")
        ended = pytest(*alone)
        if ended == FAILED:
            print("timing: a bound was missed; what failed is repeated once", flush=True)
            ended = pytest(*alone, "--last-failed")
    return ended


def main() -> int:
    """Run both; nothing at all to run is a failure, as it is for pytest.

    A caller that chooses by marks (`-m`) gets one run.
    """
    if "-m" in sys.argv:
        return pytest(*SIDE_BY_SIDE)
    rest = pytest("-m", "not timing", *(() if ALONE.intersection(sys.argv) else SIDE_BY_SIDE))
    if rest not in {
        PASSED,
        FAILED,
        NOTHING_SELECTED,
    }:  # interrupted, or a file that cannot be imported
        return rest
    if os.environ.get("TEST_SPLIT_REPLIES"):  # no bound in seconds is for replies in single bytes
        return rest
    ended = {rest, timing()}
    return next(
        iter(ended - {PASSED, NOTHING_SELECTED}), PASSED if PASSED in ended else NOTHING_SELECTED
    )


if __name__ == "__main__":
    sys.exit(main())
