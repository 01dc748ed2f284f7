"""The routes: one table.

What is not in it does not exist; every line says what somebody must be allowed to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from corral.board.identity import Action
from corral.board.pages import (
    adding,
    audit,
    bulk,
    catalog,
    job,
    live,
    metrics,
    operating,
    overview,
    quarantine,
    queue,
    schedules,
    searching,
    workers,
)

if TYPE_CHECKING:
    from corral.board.context import Handler

__all__ = ["ROUTES", "Route", "found"]


LONGEST: Final = 4096
"""Characters of a path; ids end at 128 here, and elsewhere nobody writes longer ones."""


@dataclass(frozen=True, slots=True)
class Route:
    """One line of the table.

    Attributes:
        method: `GET` or `POST`.
        pattern: A path; `{queue}` and `{job_id}` stand for one segment each.
        handler: Answers.
        needs: What somebody must be allowed to do.
    """

    method: str
    pattern: str
    handler: Handler
    needs: Action

    def match(self, path: str) -> Mapping[str, str] | None:
        """What the path has for the pattern's names, decoded, or None where it is another path.

        Nothing is normalised: a path with an empty segment, a dot, an escape or another case is
        another path.
        """
        if len(path) > LONGEST:
            return None
        wanted, given = self.pattern.split("/"), path.split("/")
        if len(wanted) != len(given):
            return None
        parts: dict[str, str] = {}
        for want, have in zip(wanted, given, strict=True):
            if want.startswith("{") and have:
                try:
                    parts[want[1:-1]] = unquote(have, errors="strict")
                except UnicodeDecodeError:
                    return None
            elif want != have:
                return None
        return parts


_QUEUE = "/queues/{queue}"
_JOB = f"{_QUEUE}/jobs/{{job_id}}"

ROUTES: Final = (
    Route("GET", "/", overview.show, Action.LOOK),
    Route("GET", "/search", searching.show, Action.SEARCH),
    Route("GET", "/schedules", schedules.show, Action.LOOK),
    Route("POST", "/schedules/prune", schedules.prune, Action.PRUNE),
    Route("GET", "/workers", workers.show, Action.LOOK),
    Route("GET", "/catalog", catalog.show, Action.LOOK),
    Route("GET", "/audit", audit.show, Action.AUDIT),
    Route("GET", "/metrics", metrics.show, Action.SCRAPE),
    Route("GET", "/live", live.show, Action.LOOK),
    Route("GET", _QUEUE, queue.show, Action.LOOK),
    Route("POST", f"{_QUEUE}/pause", operating.pause, Action.PAUSE),
    Route("POST", f"{_QUEUE}/resume", operating.resume, Action.RESUME),
    Route("POST", f"{_QUEUE}/limits", operating.limits, Action.LIMIT),
    Route("POST", f"{_QUEUE}/drain", operating.drain, Action.DRAIN),
    Route("POST", f"{_QUEUE}/clean", operating.clean, Action.CLEAN),
    Route("POST", f"{_QUEUE}/retry", bulk.retry, Action.RETRY),
    Route("POST", f"{_QUEUE}/promote", bulk.promote, Action.PROMOTE),
    Route("POST", f"{_QUEUE}/remove", bulk.remove, Action.REMOVE),
    Route("GET", f"{_QUEUE}/quarantine", quarantine.show, Action.LOOK),
    Route("POST", f"{_QUEUE}/quarantine/return", quarantine.return_chosen, Action.RETURN),
    Route("POST", f"{_QUEUE}/quarantine/discard", quarantine.discard_chosen, Action.DISCARD),
    Route("GET", f"{_QUEUE}/add", adding.show, Action.ADD),
    Route("POST", f"{_QUEUE}/add", adding.add, Action.ADD),
    Route("GET", _JOB, job.show, Action.LOOK),
    Route("GET", f"{_JOB}/logs", job.logs, Action.LOOK),
    Route("POST", f"{_JOB}/retry", job.retry, Action.RETRY),
    Route("POST", f"{_JOB}/promote", job.promote, Action.PROMOTE),
    Route("POST", f"{_JOB}/remove", job.remove, Action.REMOVE),
    Route("GET", f"{_JOB}/edit", adding.show_edit, Action.EDIT),
    Route("POST", f"{_JOB}/edit", adding.edit, Action.EDIT),
)
"""Below where the board is mounted. Beside these there are only `/login` and `/logout`, where the
board logs people in itself, and the files that pages load.
"""


def found(method: str, path: str) -> tuple[Route, Mapping[str, str]] | None:
    """The route of a request, with what its path says; None where there is none.

    Args:
        method: `GET` or `POST`.
        path: Below where the board is mounted, escapes as they were sent.
    """
    for route in ROUTES:
        if route.method == method and (parts := route.match(path)) is not None:
            return route, parts
    return None
