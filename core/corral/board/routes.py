"""The table of routes.

A path that is not in it does not exist. Every line names the action that a reader must be allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from corral.board.identity import Action
from corral.board.pages import (
    audit_page,
    bulk_actions,
    catalog_page,
    job_form_page,
    job_page,
    live_stream,
    metrics_page,
    overview_page,
    quarantine_page,
    queue_actions,
    queue_page,
    schedules_page,
    search_page,
    workers_page,
)

if TYPE_CHECKING:
    from corral.board.board_context import Handler

__all__ = ["ROUTES", "Route", "find_route"]


MAX_PATH: Final = 4096
"""Characters of a path that are looked at; Corral's job ids have at most 128."""


@dataclass(frozen=True, slots=True)
class Route:
    """One line of the table.

    Attributes:
        method: `GET` or `POST`.
        pattern: A path; `{queue}` and `{job_id}` stand for one segment each.
        handler: Answers the request.
        needs: The action that the reader must be allowed.
    """

    method: str
    pattern: str
    handler: Handler
    needs: Action

    def match(self, path: str) -> Mapping[str, str] | None:
        """The decoded values of the pattern's names, or None where the path does not match.

        Nothing is normalised: a path with an empty segment, a dot, an escape or another case does
        not match.
        """
        if len(path) > MAX_PATH:
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
_QUARANTINE = f"{_QUEUE}/quarantine"
_JOB = f"{_QUEUE}/jobs/{{job_id}}"

ROUTES: Final = (
    Route("GET", "/", overview_page.show_overview, Action.LOOK),
    Route("GET", "/search", search_page.show_search, Action.SEARCH),
    Route("GET", "/schedules", schedules_page.show_schedules, Action.LOOK),
    Route("POST", "/schedules/prune", schedules_page.prune_schedules_from_page, Action.PRUNE),
    Route("GET", "/workers", workers_page.show_workers, Action.LOOK),
    Route("GET", "/catalog", catalog_page.show_catalog, Action.LOOK),
    Route("GET", "/audit", audit_page.show_audit_log, Action.AUDIT),
    Route("GET", "/metrics", metrics_page.show_metrics, Action.SCRAPE),
    Route("GET", "/live", live_stream.stream_changes, Action.LOOK),
    Route("GET", _QUEUE, queue_page.show_queue, Action.LOOK),
    Route("POST", f"{_QUEUE}/pause", queue_actions.pause_queue, Action.PAUSE),
    Route("POST", f"{_QUEUE}/resume", queue_actions.resume_queue, Action.RESUME),
    Route("POST", f"{_QUEUE}/limits", queue_actions.set_limits, Action.LIMIT),
    Route("POST", f"{_QUEUE}/drain", queue_actions.drain_queue, Action.DRAIN),
    Route("POST", f"{_QUEUE}/clean", queue_actions.clean_queue, Action.CLEAN),
    Route("POST", f"{_QUEUE}/retry", bulk_actions.retry_jobs, Action.RETRY),
    Route("POST", f"{_QUEUE}/promote", bulk_actions.promote_jobs, Action.PROMOTE),
    Route("POST", f"{_QUEUE}/remove", bulk_actions.remove_jobs, Action.REMOVE),
    Route("GET", _QUARANTINE, quarantine_page.show_quarantine, Action.LOOK),
    Route("POST", f"{_QUARANTINE}/return", quarantine_page.return_quarantined_jobs, Action.RETURN),
    Route(
        "POST", f"{_QUARANTINE}/discard", quarantine_page.discard_quarantined_jobs, Action.DISCARD
    ),
    Route("GET", f"{_QUEUE}/add", job_form_page.show_add_form, Action.ADD),
    Route("POST", f"{_QUEUE}/add", job_form_page.add_job, Action.ADD),
    Route("GET", _JOB, job_page.show_job, Action.LOOK),
    Route("GET", f"{_JOB}/logs", job_page.show_job_log, Action.LOOK),
    Route("POST", f"{_JOB}/retry", job_page.retry_job, Action.RETRY),
    Route("POST", f"{_JOB}/promote", job_page.promote_job, Action.PROMOTE),
    Route("POST", f"{_JOB}/remove", job_page.remove_job, Action.REMOVE),
    Route("GET", f"{_JOB}/edit", job_form_page.show_edit_form, Action.EDIT),
    Route("POST", f"{_JOB}/edit", job_form_page.edit_job, Action.EDIT),
)
"""All routes, below the mount.

Beside them there are the static files and, where the board has its own login, `/login` and
`/logout`.
"""


def find_route(method: str, path: str) -> tuple[Route, Mapping[str, str]] | None:
    """The route of a request with the values from its path; None where no route matches.

    Args:
        method: `GET` or `POST`.
        path: The path below the mount, with its escapes as they were sent.
    """
    for route in ROUTES:
        if route.method == method and (parts := route.match(path)) is not None:
            return route, parts
    return None
