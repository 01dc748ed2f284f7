"""`/catalog`: what is installed.

It shows who provides each queue, what its jobs look like, and what could not be loaded.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from corral.board.board_context import BoardContext
from corral.board.job_view import masked_schema
from corral.board.messages import BoardPage, BoardRequest
from corral.board.page_renderer import duration_in_words
from corral.board.pages.schedules_page import next_ticks, schedule_in_words
from corral.catalog import CatalogEntry
from corral.catalog.record import differences, parsed, recorded
from corral.catalog.unserved import warn_of_unserved
from corral.fleet.processes import ProcessRecords
from corral.options import DEFAULT_COMPLETED, DEFAULT_FAILED, Exponential, Fixed, Retention

__all__ = ["show_catalog"]


@dataclass(frozen=True, slots=True)
class CatalogCard:
    """A queue of the catalog as the board shows it.

    Attributes:
        name: The queue's name.
        provider: The distribution with its version and origin.
        fingerprint: The digest of its payload's schema.
        model: The name of the payload's model.
        schema: The JSON schema of the payload, as text.
        options: The defaults of its jobs, by name, in words.
        schedule: When it runs by itself, in words; empty where it has no schedule.
        ticks: The next five runs, as far as they are known before a worker has started.
    """

    name: str
    provider: str
    fingerprint: str
    model: str
    schema: str
    options: dict[str, str]
    schedule: str
    ticks: tuple[datetime, ...]


async def show_catalog(_request: BoardRequest, context: BoardContext) -> BoardPage:
    """Show the catalog.

    Costs one read of the records of other processes under this prefix, one read of the store's
    connections if no worker of ours serves a queue, and what `OrphanSearch.read` costs.
    """
    records = await ProcessRecords(context.link, context.prefix).read()
    others = {process: parsed(record.catalog) for process, record in records.items()}
    own = recorded(context.catalog, 0)
    orphans = await context.read_orphans()
    disabled = {each.name for each in context.installed.plugins.disabled}
    values = {
        "entries": [_build_card(entry, context) for entry in context.catalog],
        "is_locked": context.catalog.is_locked,
        "problems": context.problems,
        "disabled": sorted(disabled - _broken_entry_points(context)),
        "orphans": [*orphans.sizes],
        "orphan_problem": orphans.problem,
        "warnings": [
            *context.installed.plugins.warnings,
            *differences(own, others),
            *await warn_of_unserved(own, others.values(), context.link, context.prefix),
        ],
        "now": context.now,
    }
    return BoardPage("catalog", "Catalog", values)


def _broken_entry_points(context: BoardContext) -> set[str]:
    """The entry points that are left out because their distribution is broken."""
    faulty = {provider for problem in context.problems for provider in problem.providers}
    return {
        entry_point.name
        for entry_point in context.installed.plugins.disabled
        if str(entry_point.provider) in faulty
    }


def _build_card(entry: CatalogEntry, context: BoardContext) -> CatalogCard:
    queue, options = entry.queue, entry.queue.options
    ticks, _ = next_ticks(queue.schedule, context.now)
    concurrency = queue.concurrency or context.installed.settings.worker.concurrency
    return CatalogCard(
        name=queue.name,
        provider=entry.provider.label,
        fingerprint=entry.fingerprint,
        model=queue.payload.__name__,
        schema=json.dumps(masked_schema(queue), indent=2, ensure_ascii=False),
        options={
            "attempts": f"{options.attempts}, {_backoff_in_words(options.backoff)}",
            "timeout": duration_in_words(queue.timeout) if queue.timeout else "none",
            "at once": f"{concurrency} in each worker",
            "completed": _retention_in_words(options.keep_completed, DEFAULT_COMPLETED),
            "failed": _retention_in_words(options.keep_failed, DEFAULT_FAILED),
        },
        schedule=schedule_in_words(queue.schedule),
        ticks=ticks,
    )


def _backoff_in_words(backoff: Fixed | Exponential) -> str:
    jitter = f", up to {backoff.jitter:.0%} less" if backoff.jitter else ""
    doubling = ""
    if isinstance(backoff, Exponential):
        longest = f" up to {duration_in_words(backoff.max)}" if backoff.max is not None else ""
        doubling = f", doubling{longest}"
    return f"{duration_in_words(backoff.delay)} apart{doubling}{jitter}"


def _retention_in_words(declared: Retention | None, default: Retention) -> str:
    retention = declared or default
    parts = [duration_in_words(retention.age)] if retention.age is not None else []
    parts += [f"the last {retention.count}"] if retention.count is not None else []
    kept = f"kept for {' and '.join(parts)}" if parts else "kept forever"
    return kept if declared else f"{kept}; jobs added by other clients forever"
