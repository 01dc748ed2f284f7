"""`Recent`: what was read a moment ago is not read again, however many pages are open."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, TypeVar

__all__ = ["Recent"]

T = TypeVar("T")


class Recent:
    """Keeps answers for a moment; those who ask for the same at once wait for one answer.

    Args:
        seconds: How old an answer may be, where nothing else is said.
    """

    def __init__(self, seconds: float = 1.0) -> None:
        self._seconds = seconds
        self._known: dict[
            Hashable, tuple[float, asyncio.Future[Any]]
        ] = {}  # each with when it is too old

    async def get(
        self,
        key: Hashable,
        read: Callable[[], Coroutine[Any, Any, T]],
        *,
        seconds: float | None = None,
    ) -> T:
        """An answer that is fresh enough, or a new one.

        Args:
            key: What is asked for.
            read: Asks for it.
            seconds: How old this answer may be.
        """
        now = time.monotonic()
        self._known = {each: kept for each, kept in self._known.items() if now <= kept[0]}
        if key not in self._known:
            old = now + (self._seconds if seconds is None else seconds)
            self._known[key] = old, asyncio.create_task(read(), name="corral-board-read")
        _, answer = self._known[key]
        try:  # whoever goes away takes the answer from nobody else
            found: T = await asyncio.shield(answer)
        except Exception:  # all who waited are told, and the next one asks again
            self._known.pop(key, None)
            raise
        return found

    def forget(self) -> None:
        """Something was changed here: read everything anew."""
        self._known.clear()
