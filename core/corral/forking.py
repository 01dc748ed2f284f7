"""What a forked child leaves to its parent: the one place where Corral learns of a fork.

A child begins with a copy of the parent's memory, and shares what the kernel keeps for both:
connections, locks on files, the selector of an event loop, the pipe into which signals are written.
What it did to those would happen to the parent. So it does nothing with them: their descriptors
become /dev/null in the child, where closing one sends nothing, unlocks nothing and takes nothing
out of a selector; and what held one asks `forks` before it goes on. The signals that a command of
ours handles act by default there: `multiprocessing.Pool` would wait for ever for a child that
cannot be terminated.

`subprocess`, and multiprocessing by "spawn" or "forkserver", start a new program, which inherits
none of this.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol
from weakref import WeakSet

from corral.shutdown import SIGNALS, is_listening, stop_listening

__all__ = ["Inherited", "forks", "leave_alone", "left_to_parent", "on_fork", "silence"]


class Inherited(Protocol):
    """What must know that it is a copy in a forked child."""

    def leave_to_parent(self) -> None:
        """Called in the child, before `os.fork` returns there. No other thread runs yet."""


class _Forks:
    def __init__(self) -> None:
        self.count = 0
        self.inherited: WeakSet[Inherited] = WeakSet()
        self.descriptors: set[int] = set()
        self.left_alone: list[object] = []
        self.thread = threading.local()

    def before(self) -> None:
        if (
            is_listening()
        ):  # a signal that reached the child before its handlers are back to default would be lost
            self.thread.mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    def after(self) -> None:
        mask, self.thread.mask = getattr(self.thread, "mask", None), None
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def in_child(self) -> None:
        self.count += 1
        stop_listening()
        self.after()
        for descriptor in self.descriptors:
            silence(descriptor)
        self.descriptors.clear()
        for each in list(self.inherited):
            with suppress(Exception):  # one must not keep the others from it
                each.leave_to_parent()


_forks = _Forks()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_forks.before, after_in_parent=_forks.after, after_in_child=_forks.in_child
    )


def forks() -> int:
    """How many forks lie between this process and the one that loaded Corral.

    What belongs to one process keeps the number, and knows by another one that it is a copy: that
    is cheaper than to ask the kernel for the process id, and a process id comes again.
    """
    return _forks.count


def on_fork(inherited: Inherited) -> None:
    """Have `leave_to_parent` called in every child that is forked, as long as the object lives."""
    _forks.inherited.add(inherited)


@contextmanager
def left_to_parent(descriptor: int) -> Iterator[None]:
    """Have a descriptor silenced in a child that is forked while this is entered."""
    _forks.descriptors.add(descriptor)
    try:
        yield
    finally:
        _forks.descriptors.discard(descriptor)


def silence(descriptor: int) -> None:
    """Turn a descriptor of this process into one of /dev/null. Whoever owns it may still close it."""
    with suppress(OSError):  # it is closed
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.dup2(null, descriptor, inheritable=False)
        finally:
            os.close(null)


def leave_alone(*inherited: object) -> None:
    """Keep what a child has inherited until its very end, so that none of it is ever collected.

    An event loop, its tasks and their coroutines would tidy up as they are collected: they would
    cancel and await, on a loop that no thread of this process runs.
    """
    _forks.left_alone.extend(inherited)
