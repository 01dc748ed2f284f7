"""`QueueSearch`: finds the queues below a prefix with `SCAN`, in small steps, and remembers them.

A `SCAN` walks through every key of the store, a thousand at a time. A process that lives long must
not do that for each page or scrape: it makes a few steps each time, and goes on from there with the
next one. Nothing here talks to the store: the caller sends the commands.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from corral.store.keys import queue_of_found_key, queues_pattern

__all__ = ["MAX_FOUND", "REMEMBER_SECONDS", "STEPS", "QueueSearch"]

COUNT: Final = 1000
"""Keys that one `SCAN` walks through: some 0.4 ms of the store."""
STEPS: Final = 10
"""The most `SCAN`s for one page or scrape: 10,000 keys, some 4 ms of the store."""
REMEMBER_SECONDS: Final = 300.0
"""How long the result of a finished search is used before the next one begins."""
MAX_FOUND: Final = 100
"""The most queues that a search collects."""
MAX_NAME_LENGTH: Final = 512
"""In characters. A longer name is not collected: other clients choose the names, and every scrape
would repeat it.
"""


class QueueSearch:
    """A search that may be interrupted after each step.

    Args:
        prefix: The first part of the keys.
        leave_out: The names of queues that are not looked for.
        most: The most names to collect.

    Attributes:
        is_partial: Whether there may be more queues than `names` has.
        is_refused: Whether the store's user may not call `SCAN`.
    """

    def __init__(self, prefix: str, leave_out: Collection[str], *, most: int = MAX_FOUND) -> None:
        self.is_partial = True
        self.is_refused = False
        self._prefix = prefix
        self._leave_out = frozenset(leave_out)
        self._most = most
        self._cursor: bytes = b"0"
        self._found = set[str]()
        self._names: tuple[str, ...] | None = None
        self._next_start = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        """What the last finished search has found, sorted; before one has finished, what is known.

        A name that is not UTF-8 is none that a client could have chosen, and is left out.
        """
        return tuple(sorted(self._found)) if self._names is None else self._names

    def next_command(self, now: float) -> tuple[Any, ...] | None:
        """The next step: a `SCAN`. None as long as the last result is used.

        Args:
            now: Seconds of a monotonic clock.
        """
        if now < self._next_start:
            return None
        return ("SCAN", self._cursor, "MATCH", queues_pattern(self._prefix), "COUNT", COUNT)

    def take(self, command: Sequence[Any], reply: Sequence[Any], now: float) -> bool:
        """Take the reply to a command of `next_command`.

        If another caller has taken the same step meanwhile, the reply is ignored.

        Args:
            command: The command.
            reply: Its reply.
            now: Seconds of a monotonic clock.

        Returns:
            Whether the search has finished.
        """
        self.is_refused = False
        if command[1] != self._cursor:
            return now < self._next_start
        self._cursor, keys = reply
        self._found.update(name for key in keys if (name := self._name_in(key)) is not None)
        has_more = len(self._found) > self._most
        if int(self._cursor) and not has_more:
            return False
        self._names = tuple(sorted(self._found)[: self._most])
        self.is_partial = has_more
        self._begin_again(now)
        return True

    def refuse(self, now: float) -> None:
        """Note that the store refused the command; it is tried again after `REMEMBER_SECONDS`."""
        self.is_refused = True
        self._names, self.is_partial = (), True
        self._begin_again(now)

    def _begin_again(self, now: float) -> None:
        self._cursor, self._found = b"0", set()
        self._next_start = now + REMEMBER_SECONDS

    def _name_in(self, key: bytes) -> str | None:
        try:
            name = queue_of_found_key(key.decode(), self._prefix)
        except UnicodeDecodeError:
            return None
        if not name or len(name) > MAX_NAME_LENGTH or name in self._leave_out:
            return None
        # `<queue>:x:meta` is a job with the id `x:meta`: no plugin's queue has a colon in its name
        return None if name.partition(":")[0] in self._leave_out else name
