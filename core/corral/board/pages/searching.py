"""`/search`: one text, in all queues; and what a search is, for the page of one queue, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from corral.board.context import BoardContext
from corral.board.job_view import JobView, is_found_in_the_open, is_secret, shown
from corral.board.messages import Page, Refused, Request
from corral.inspector import STATES, State, StoredJob

__all__ = ["FoundJobs", "Sought", "seek", "show", "sought"]

LONGEST: Final = 500
"""Characters of a text that is searched for."""


@dataclass(frozen=True, slots=True)
class Sought:
    """What is searched for.

    Attributes:
        text: As it was typed: an id, a text, or `field=value`.
        field: The payload's field and its value, where it was `field=value`.
        after: Where the search goes on, or None.
    """

    text: str
    field: tuple[str, str] | None = None
    after: str | None = None


@dataclass(frozen=True, slots=True)
class FoundJobs:
    """What was found in one queue; see `corral.inspector.Found`."""

    queue: str
    jobs: Sequence[JobView]
    looked_at: int
    total: int
    cut: bool
    next: str | None
    share: float = 0.0


def sought(query: Mapping[str, str]) -> Sought | None:
    """What a query searches for, or None.

    Raises:
        Refused: It is too long.
    """
    text = query.get("q", "").strip()
    if not text:
        return None
    if len(text) > LONGEST:
        raise Refused(400, f"a search has at most {LONGEST} characters")
    name, equals, value = text.partition("=")
    is_field = bool(equals and name and all(part.isidentifier() for part in name.split(".")))
    return Sought(text, (name, value) if is_field else None, query.get("after") or None)


async def seek(
    context: BoardContext, name: str, wanted: Sought, state: State | None, share: float = 1.0
) -> FoundJobs:
    """Search one queue: its jobs of one state, or of all, at a share of what a search may cost.

    What is masked on the board is not found by it: else a search would be a way to guess it.
    """
    queue = context.queue(name)
    if wanted.field and is_secret(queue, wanted.field[0]):
        return FoundJobs(name, [], 0, 0, False, None)  # how far a search came would tell, too

    def is_open(job: StoredJob) -> bool:
        return bool(wanted.field) or is_found_in_the_open(job, queue, wanted.text)

    found = await context.inspector.search(
        name,
        "" if wanted.field else wanted.text,
        field=wanted.field,
        states=STATES if state is None else (state,),
        match=is_open,
        after=wanted.after,
        share=share,
    )
    jobs = [shown(each, queue, context.now) for each in found.jobs]
    return FoundJobs(name, jobs, found.looked_at, found.total, found.cut, found.next, found.share)


async def show(request: Request, context: BoardContext) -> Page:
    """A search in all queues.

    Costs what one `JobInspector.search` does, and four round trips more per queue: the queue with
    the fewest jobs is searched first, and what it does not need of its equal part is for those
    after it.
    """
    wanted = sought(request.query)
    names = context.inspector.queues
    found: dict[str, FoundJobs] = {}
    if wanted:
        known = await context.inspector.all_sizes()
        sizes = {name: sum(filter(None, each.counts.values())) for name, each in known.items()}
        names = tuple(
            name
            for name, each in known.items()
            if any(size is not None for size in each.counts.values())
        )
        for name in sorted(names, key=sizes.__getitem__):
            left = 1 - sum(each.share for each in found.values())
            found[name] = await seek(context, name, wanted, None, left / (len(names) - len(found)))
    return Page(
        "search",
        "Search",
        {
            "sought": wanted,
            "found": [found[name] for name in names if name in found],
            "now": context.now,
        },
    )
