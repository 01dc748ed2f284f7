"""`ReadCache`: answers of the store are reused for a moment, however many pages are open."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, TypeVar

__all__ = ["ReadCache"]

T = TypeVar("T")


class ReadCache:
    """Keeps what was read for a moment; callers that ask for the same key share one read.

    Args:
        seconds: How old an answer may be, unless a caller of `get` states another age.
    """

    def __init__(self, seconds: float = 1.0) -> None:
        self._seconds = seconds
        # per key: the monotonic time at which the answer is too old, and the answer
        self._answers: dict[Hashable, tuple[float, asyncio.Future[Any]]] = {}

    async def get(
        self,
        key: Hashable,
        read: Callable[[], Coroutine[Any, Any, T]],
        *,
        seconds: float | None = None,
    ) -> T:
        """Return the kept answer if it is fresh enough, else read it again.

        Args:
            key: What is read.
            read: Reads it.
            seconds: How old this answer may be; None for the cache's own age.

        Raises:
            Exception: Whatever `read` raises: every caller that waits for it gets the error, and
                the next caller reads again.
        """
        now = time.monotonic()
        self._answers = {each: kept for each, kept in self._answers.items() if now <= kept[0]}
        if key not in self._answers:
            expires = now + (self._seconds if seconds is None else seconds)
            self._answers[key] = expires, asyncio.create_task(read(), name="corral-board-read")
        _, answer = self._answers[key]
        try:
            # shielded: a caller that is cancelled does not cancel the read of the others
            value: T = await asyncio.shield(answer)
        except Exception:
            self._answers.pop(key, None)
            raise
        return value

    def clear(self) -> None:
        """Drop every answer: something was changed through this board."""
        self._answers.clear()
