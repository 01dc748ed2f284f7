"""Deletes archives: of deleted users, and those whose links have ended.

The latter when a worker starts, and every hour as long as it runs. Several workers may do it at
once. It knows neither jobs nor hooks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

from corral_data_exports.settings import ExportSettings
from corral_data_exports.storage import REUSED_FOR, Storage, directory_of

__all__ = ["purge_regularly", "purge_user"]

INTERVAL: Final = timedelta(hours=1)
"""How often the storage is listed: one request for a thousand archives."""

log = logging.getLogger("corral_data_exports")


async def purge_user(user_id: str) -> Mapping[str, int]:
    """Delete all archives of a user from the storage that this process's environment names.

    Returns:
        How many were deleted, under the name `archives`.

    Raises:
        ConfigurationError: The settings cannot be used.
        Exception: The storage failed; whatever obstore raises. Call it again.
    """
    settings = ExportSettings()
    directory = directory_of(settings.location)
    if directory is not None and not directory.exists():  # nothing was ever exported from here
        return {"archives": 0}
    return {"archives": await Storage.prepare(settings).purge_user(user_id)}


@asynccontextmanager
async def purge_regularly(
    storage: Storage, link_lifetime: timedelta, *, interval: timedelta = INTERVAL
) -> AsyncIterator[None]:
    """Delete expired archives now, and again after each interval, until the block ends.

    A purge that fails is logged, and tried again after the interval.

    Args:
        storage: Where the archives are.
        link_lifetime: How long a link is good for.
        interval: The time between two purges.
    """
    older_than = link_lifetime + REUSED_FOR
    purging = asyncio.create_task(
        _purge_for_ever(storage, older_than, interval), name="data-exports purge"
    )
    try:
        yield
    finally:
        purging.cancel()
        await asyncio.wait([purging])


async def _purge_for_ever(storage: Storage, older_than: timedelta, interval: timedelta) -> None:
    while True:
        try:
            if deleted := await storage.purge(older_than):
                log.info("archives whose links have ended are deleted: %d", deleted)
        except Exception as error:  # noqa: BLE001  # a storage raises what it likes
            log.warning(
                "archives whose links have ended were not deleted, and are tried again in %s: %s",
                interval,
                f"{type(error).__name__}: {error}".partition("\n")[0],
            )
        await asyncio.sleep(interval.total_seconds())
