"""`/catalog`: what is installed: who provides each queue, and what its jobs look like; and what does not fit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from corral.board.desk import Desk
from corral.board.exchange import Page, Request
from corral.board.pages.schedules import described, ticks_in_words
from corral.catalog import Entry
from corral.catalog.record import differences, parsed, recorded
from corral.store.processes import read_hash

__all__ = ["show"]

MOST_ORPHANS: Final = 200


@dataclass(frozen=True, slots=True)
class ShownEntry:
    """A queue of the catalog as the board shows it.

    Attributes:
        name: The queue's name.
        provider: The distribution with its version and origin.
        fingerprint: The digest of its payload's schema.
        model: The name of the payload's model.
        schema: Its JSON schema, as text.
        options: What holds for its jobs, name by name.
        schedule: When it runs by itself, in words.
        entry: What the catalog says.
    """

    name: str
    provider: str
    fingerprint: str
    model: str
    schema: str
    options: dict[str, str]
    schedule: str


async def show(_request: Request, desk: Desk) -> Page:
    """The catalog.

    Costs one read of what the processes under this prefix say of theirs, and a scan for queues that nobody declares,
    bounded by `corral.inspector`.
    """
    records = await read_hash(desk.link, f"corral:{desk.prefix}:catalog")
    others = {process.decode(errors="replace"): parsed(raw) for process, raw in records.items()}
    own = recorded(desk.catalog, 0)
    orphans = [name for name in await desk.inspector.undeclared(MOST_ORPHANS) if name not in desk.catalog.disabled]
    values = {
        "entries": [_shown(entry, desk) for entry in desk.catalog],
        "is_locked": desk.catalog.is_locked,
        "disabled": sorted(desk.catalog.disabled),
        "orphans": orphans,
        "warnings": [*desk.installed.plugins.warnings, *differences(own, others)],
        "now": desk.now,
    }
    return Page("catalog", "Catalog", values)


def _shown(entry: Entry, desk: Desk) -> ShownEntry:
    queue, options = entry.queue, entry.queue.options
    ticks, _ = ticks_in_words(queue.schedule, desk.now)
    coming = f"; next {', '.join(f'{tick:%H:%M}' for tick in ticks)} UTC" if ticks else ""
    return ShownEntry(
        name=queue.name,
        provider=str(entry.provider),
        fingerprint=entry.fingerprint,
        model=queue.payload.__name__,
        schema=json.dumps(queue.payload.model_json_schema(by_alias=True), indent=2, ensure_ascii=False),
        options={
            "attempts": str(options.attempts),
            "backoff": str(options.backoff),
            "timeout": str(queue.timeout or "none"),
            "concurrency": str(queue.concurrency or desk.installed.settings.worker.concurrency),
            "kept when completed": str(options.keep_completed),
            "kept when failed": str(options.keep_failed),
        },
        schedule=described(queue.schedule) + coming if queue.schedule else "",
    )
