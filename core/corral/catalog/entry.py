"""`CatalogEntry`: one queue of the catalog, with its provider and its processor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from corral.catalog.lock import LockedQueue
from corral.plugins import Provider
from corral.processor import Processor
from corral.queue import Queue

__all__ = ["CatalogEntry"]


@dataclass(frozen=True, slots=True, eq=False)
class CatalogEntry:
    """One queue of the catalog.

    Attributes:
        queue: The queue.
        provider: The distribution that declares it.
        fingerprint: A digest of its payload's JSON schema; see `catalog.check.fingerprint`.
        processor: Its processor; None in a process that does not serve the queue.
    """

    queue: Queue[Any]
    provider: Provider
    fingerprint: str
    processor: Processor | None = None

    @property
    def locked(self) -> LockedQueue:
        """The queue's entry in a lock file."""
        return LockedQueue(self.provider.distribution, self.provider.version, self.fingerprint)
