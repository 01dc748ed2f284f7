"""Forked children of this test process leave its resources alone.

The children end at once, by `os._exit`.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import structlog

from corral.forking import forks, on_fork, silence, silence_in_children
from corral.observe.logs import configure_logs
from corral.settings import Settings


def in_child(check: Callable[[], bool]) -> bool:
    """Return whether a check is true in a forked child, which is ended if it takes five seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # from 3.12 on, of a process that has threads
        pid = os.fork()
    if pid == 0:
        signal.alarm(5)
        try:
            os._exit(0 if check() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_child_and_its_own_child_know_that_they_are_children() -> None:
    before = forks()
    assert in_child(lambda: forks() == before + 1 and in_child(lambda: forks() == before + 2))
    assert forks() == before


def test_a_descriptor_is_silenced_only_in_the_child_and_only_inside_the_context() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:

        def is_silent() -> bool:
            return os.path.samestat(os.fstat(ours.fileno()), Path(os.devnull).stat())

        with silence_in_children(ours.fileno()):
            assert in_child(is_silent)
            ours.send(b"x")
            assert theirs.recv(8) == b"x", "the parent's is open, and the child has sent nothing"
        assert not in_child(is_silent)


def test_silencing_a_closed_descriptor_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    os.close(write)
    silence(read)


def test_an_error_in_one_resource_does_not_skip_the_others() -> None:
    calls: list[str] = []

    class Failing:
        def leave_to_parent(self) -> None:
            calls.append("informed")
            raise RuntimeError

    both = [Failing(), Failing()]
    for each in both:
        on_fork(each)
    assert in_child(lambda: calls == ["informed", "informed"])
    assert calls == []


def test_a_child_logs_though_a_thread_of_its_parent_is_in_the_middle_of_a_line() -> None:
    writing, go_on = threading.Event(), threading.Event()

    class Slow(StringIO):
        def write(self, line: str) -> int:
            if threading.current_thread().name == "slow":
                writing.set()
                go_on.wait(30)
            return len(line)

    configure_logs(Settings(), Slow())
    log = structlog.get_logger("corral.test")
    slow = threading.Thread(target=log.warning, args=("from a thread",), name="slow")
    slow.start()
    try:
        assert writing.wait(10)

        def logs() -> bool:
            log.warning("from the child")
            return True

        assert in_child(logs)
    finally:
        go_on.set()
        slow.join(10)
