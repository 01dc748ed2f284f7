"""`Recent`: what was read a moment ago is not read again, however many pages are open."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import TypeVar

__all__ = ["Recent"]

T = TypeVar("T")


class Recent:
    """Keeps answers for a moment; those who ask for the same at once wait for one answer.

    Args:
        seconds: How old an answer may be.
    """

    def __init__(self, seconds: float = 1.0) -> None:
        self._seconds = seconds
        self._known: dict[Hashable, tuple[float, asyncio.Future[object]]] = {}

    async def get(self, key: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """An answer that is fresh enough, or a new one."""
        now = time.monotonic()
        at, found = self._known.get(key, (0.0, None))
        if found is None or now - at > self._seconds:
            self._known = {each: kept for each, kept in self._known.items() if now - kept[0] <= self._seconds}
            found = asyncio.ensure_future(read())
            self._known[key] = now, found
        # one who goes away takes the answer from nobody else; a failure is told to all who waited, and then forgotten
        try:
            return await asyncio.shield(found)  # type: ignore[return-value]  # the key says what was read
        except BaseException:
            if found.done() and self._known.get(key, (0.0, None))[1] is found:
                self._known.pop(key, None)
            raise

    def forget(self) -> None:
        """Something was changed here: read everything anew."""
        self._known.clear()
