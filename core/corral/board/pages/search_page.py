"""`/search`: a search in all queues; the page of one queue uses the same search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from corral.board.board_context import BoardContext
from corral.board.job_view import JobView, build_job_view, is_masked_field, is_visible_match
from corral.board.messages import BoardPage, BoardRequest, RequestRefused
from corral.inspector import StoredJob
from corral.job_state import JobState

__all__ = ["QueueSearchResult", "SearchQuery", "parse_search_query", "search_queue", "show_search"]

MAX_QUERY: Final = 500
"""Characters of a search."""


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """What a reader searches for.

    Attributes:
        text: What was typed: an id, a text, or `field=value`.
        field: The name and value of a payload's field, where `field=value` was typed.
        after: The position at which the search continues, or None.
    """

    text: str
    field: tuple[str, str] | None = None
    after: str | None = None


@dataclass(frozen=True, slots=True)
class QueueSearchResult:
    """What a search has found in one queue.

    Attributes:
        queue: The queue's name.
        jobs: The jobs that match.
        looked_at: How many jobs the search has read.
        total: How many jobs there are.
        cut: Whether the search stopped at its cost limit before it had read all of them.
        next: The position at which it can continue, or None.
        share: The part of the cost limit that it has used, 0 to 1.
    """

    queue: str
    jobs: Sequence[JobView]
    looked_at: int
    total: int
    cut: bool
    next: str | None
    share: float = 0.0


def parse_search_query(query: Mapping[str, str]) -> SearchQuery | None:
    """The search in an address's query, or None.

    Raises:
        RequestRefused: The search is too long.
    """
    text = query.get("q", "").strip()
    if not text:
        return None
    if len(text) > MAX_QUERY:
        raise RequestRefused(400, f"a search has at most {MAX_QUERY} characters")
    name, equals, value = text.partition("=")
    is_field = bool(equals and name and all(part.isidentifier() for part in name.split(".")))
    return SearchQuery(text, (name, value) if is_field else None, query.get("after") or None)


async def search_queue(
    context: BoardContext, name: str, query: SearchQuery, state: JobState | None, share: float = 1.0
) -> QueueSearchResult:
    """Search one queue.

    What the board masks is not found: otherwise a search would be a way to guess it.

    Args:
        context: The context.
        name: The queue's name.
        query: What to search for.
        state: The state to search in, or None for all states.
        share: The part of a search's cost limit that it may use, 0 to 1.
    """
    queue = context.queue(name)
    if query.field and is_masked_field(queue, query.field[0]):
        # not searched at all: how far the search came would depend on the secret, too
        return QueueSearchResult(name, [], 0, 0, False, None)

    def is_match(job: StoredJob) -> bool:
        return bool(query.field) or is_visible_match(job, queue, query.text)

    found = await context.inspector.search(
        name,
        "" if query.field else query.text,
        field=query.field,
        states=tuple(JobState) if state is None else (state,),
        match=is_match,
        after=query.after,
        share=share,
    )
    jobs = [build_job_view(each, queue, context.now) for each in found.jobs]
    return QueueSearchResult(
        queue=name,
        jobs=jobs,
        looked_at=found.looked_at,
        total=found.total,
        cut=found.cut,
        next=found.next,
        share=found.share,
    )


async def show_search(request: BoardRequest, context: BoardContext) -> BoardPage:
    """Show what a search finds in all queues.

    Costs one `JobInspector.search` for all queues together, and four round trips more per queue.
    The queue with the fewest jobs is searched first; what it does not use of its equal share is
    left for the others.
    """
    query = parse_search_query(request.query)
    names = context.inspector.queues
    results: dict[str, QueueSearchResult] = {}
    if query:
        known = await context.inspector.all_sizes()
        sizes = {name: sum(filter(None, each.counts.values())) for name, each in known.items()}
        names = tuple(
            name
            for name, each in known.items()
            if any(size is not None for size in each.counts.values())
        )
        for name in sorted(names, key=sizes.__getitem__):
            left = 1 - sum(each.share for each in results.values())
            share = left / (len(names) - len(results))
            results[name] = await search_queue(context, name, query, None, share)
    values = {
        "search": query,
        "results": [results[name] for name in names if name in results],
        "now": context.now,
    }
    return BoardPage("search", "Search", values)
