"""`/catalog`: what is installed: who provides each queue, and what its jobs look like; and what
does not fit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from corral.board.context import BoardContext
from corral.board.job_view import schema_shown
from corral.board.messages import Page, Request
from corral.board.pages.schedules import described, ticks_in_words
from corral.board.rendering import span
from corral.catalog import Entry
from corral.catalog.record import differences, parsed, recorded
from corral.catalog.unserved import unserved
from corral.fleet.processes import ProcessRecords
from corral.options import DEFAULT_COMPLETED, DEFAULT_FAILED, Exponential, Fixed, Retention

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
        schedule: When it runs by itself, in words; empty where it does not.
        ticks: Its next five runs, as far as they are known before a worker has started.
    """

    name: str
    provider: str
    fingerprint: str
    model: str
    schema: str
    options: dict[str, str]
    schedule: str
    ticks: tuple[datetime, ...]


async def show(_request: Request, context: BoardContext) -> Page:
    """The catalog.

    Costs one read of what the processes under this prefix say of theirs, one of the store's
    connections where no worker of ours serves a queue, and a scan for queues that nobody declares,
    bounded by `corral.inspector`.
    """
    records = await ProcessRecords(context.link, context.prefix, "").others()
    others = {process: parsed(raw) for process, raw in records.items()}
    own = recorded(context.catalog, 0)
    orphans = [
        name
        for name in await context.inspector.undeclared(MOST_ORPHANS)
        if name not in context.catalog.disabled
    ]
    values = {
        "entries": [_shown(entry, context) for entry in context.catalog],
        "is_locked": context.catalog.is_locked,
        "problems": context.problems,
        "disabled": sorted(
            {each.name for each in context.installed.plugins.disabled} - _broken(context)
        ),
        "orphans": orphans,
        "warnings": [
            *context.installed.plugins.warnings,
            *differences(own, others),
            *await unserved(own, others.values(), context.link, context.prefix),
        ],
        "now": context.now,
    }
    return Page("catalog", "Catalog", values)


def _broken(context: BoardContext) -> set[str]:
    """The entry points that are left out because something is wrong with their distribution."""
    faulty = {provider for problem in context.problems for provider in problem.providers}
    return {
        claim.name for claim in context.installed.plugins.disabled if str(claim.provider) in faulty
    }


def _shown(entry: Entry, context: BoardContext) -> ShownEntry:
    queue, options = entry.queue, entry.queue.options
    ticks, _ = ticks_in_words(queue.schedule, context.now)
    concurrency = queue.concurrency or context.installed.settings.worker.concurrency
    return ShownEntry(
        name=queue.name,
        provider=entry.provider.label,
        fingerprint=entry.fingerprint,
        model=queue.payload.__name__,
        schema=json.dumps(schema_shown(queue), indent=2, ensure_ascii=False),
        options={
            "attempts": f"{options.attempts}, {_backoff(options.backoff)}",
            "timeout": span(queue.timeout) if queue.timeout else "none",
            "at once": f"{concurrency} in each worker",
            "completed": _kept(options.keep_completed, DEFAULT_COMPLETED),
            "failed": _kept(options.keep_failed, DEFAULT_FAILED),
        },
        schedule=described(queue.schedule),
        ticks=ticks,
    )


def _backoff(backoff: Fixed | Exponential) -> str:
    jitter = f", up to {backoff.jitter:.0%} less" if backoff.jitter else ""
    return f"{span(backoff.delay)} apart{', doubling' if isinstance(backoff, Exponential) else ''}{jitter}"


def _kept(declared: Retention | None, default: Retention) -> str:
    retention = declared or default
    parts = [span(retention.age)] if retention.age is not None else []
    parts += [f"the last {retention.count}"] if retention.count is not None else []
    kept = f"kept for {' and '.join(parts)}" if parts else "kept for good"
    return kept if declared else f"{kept}; those of other clients for good"
