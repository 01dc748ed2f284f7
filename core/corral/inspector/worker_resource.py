"""`of_worker`: the worker's inspector, as a resource that processors enter."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from corral.deps import Deps

if TYPE_CHECKING:  # a plugin's declaration may import this, and a producer loads that
    from corral.inspector.inspector import JobInspector

__all__ = ["of_worker"]


@asynccontextmanager
async def of_worker(deps: Deps) -> AsyncIterator[JobInspector]:  # noqa: ARG001  # resources take it
    """The worker's inspector: `await deps.enter(corral.inspector.of_worker)`.

    It finds, removes and scrubs jobs of every queue. `corral worker` and `corral.testing` provide
    it, and close it; this function itself runs only where nobody has.

    Raises:
        RuntimeError: The worker was made without an inspector.
    """
    raise RuntimeError("this worker was made without an inspector")
    yield  # pragma: no cover  # makes it the generator that `asynccontextmanager` wraps
