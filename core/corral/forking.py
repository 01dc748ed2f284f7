"""Makes forked children leave their parent's connections, locks and signals alone.

A child begins with a copy of the parent's memory, and shares with it what the kernel keeps:
connections, locks on files, the selector of an event loop, the pipe into which signals are written.
Whatever the child did to them would happen to the parent. So their descriptors are replaced by
/dev/null in the child, where closing one sends nothing, unlocks nothing and removes nothing from a
selector. Objects that use one compare `forks` before they go on. The signals that a command of
Corral handles have their default effects in the child: otherwise `multiprocessing.Pool` would wait
for ever for a child that cannot be terminated.

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

__all__ = ["InheritedResource", "forks", "leave_alone", "on_fork", "silence", "silence_in_children"]


class InheritedResource(Protocol):
    """An object that must be informed if it is a copy in a forked child."""

    def leave_to_parent(self) -> None:
        """Give up shared resources. Called in the child before `os.fork` returns, on one thread."""


class _Forks:
    def __init__(self) -> None:
        self.count = 0
        self.inherited: WeakSet[InheritedResource] = WeakSet()
        self.descriptors: set[int] = set()
        self.left_alone: list[object] = []
        self.thread = threading.local()

    def before(self) -> None:
        # A signal would be lost if it reached the child before its handlers are reset.
        if is_listening():
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
            with suppress(Exception):  # an error in one must not skip the others
                each.leave_to_parent()


_forks = _Forks()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_forks.before, after_in_parent=_forks.after, after_in_child=_forks.in_child
    )


def forks() -> int:
    """Return how many forks lie between this process and the one that loaded Corral.

    An object that belongs to one process keeps this number. If it has changed, the object is a copy
    in a child. Comparing it is cheaper than asking the kernel for the process id, and process ids
    are reused.
    """
    return _forks.count


def on_fork(inherited: InheritedResource) -> None:
    """Have `leave_to_parent` called in every forked child, as long as the object lives."""
    _forks.inherited.add(inherited)


@contextmanager
def silence_in_children(descriptor: int) -> Iterator[None]:
    """Silence the descriptor in each child that is forked inside this context manager."""
    _forks.descriptors.add(descriptor)
    try:
        yield
    finally:
        _forks.descriptors.discard(descriptor)


def silence(descriptor: int) -> None:
    """Replace a descriptor of this process by one of /dev/null. Its owner may still close it."""
    with suppress(OSError):  # it is closed
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.dup2(null, descriptor, inheritable=False)
        finally:
            os.close(null)


def leave_alone(*inherited: object) -> None:
    """Keep objects that a child has inherited alive until it ends.

    If an event loop, its tasks and their coroutines were garbage collected, they would clean up:
    they would cancel and await on a loop that no thread of this process runs.
    """
    _forks.left_alone.extend(inherited)
