"""What the operator's commands do, below their arguments and above their output."""

from __future__ import annotations

import asyncio

from corral.app.installed import read_installed
from corral.store.connection import Link
from corral.store.embedded import chosen_store
from corral.store.queue_store import QueueStore

__all__ = ["count_jobs"]


def count_jobs() -> dict[str, dict[str, int]]:
    """How many jobs are in each state, by queue.

    Raises:
        CorralError: The catalog was refused, or there is no store.
    """
    installed = read_installed()
    with chosen_store(installed.settings) as url:

        async def count() -> dict[str, dict[str, int]]:
            link = Link(url)
            try:
                return {
                    name: await QueueStore(link, installed.settings.prefix, name).counts()
                    for name in installed.catalog.entries
                }
            finally:
                await link.close()

        return asyncio.run(count())
