"""`PageRenderer`: turns a `BoardPage` into HTML.

Everything is escaped; templates contain no script and no style of their own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from corral.board import static_files
from corral.board.identity import Action
from corral.board.messages import BoardPage, BoardRequest

__all__ = ["NOTICES", "PageRenderer", "duration_in_words", "format_json"]

NOTHING: Final = "-"
"""Shown where there is no time, or no duration."""

NOTICES: Final[Mapping[str, str]] = {
    "retried": "Retried {n} {jobs}.",
    "promoted": "Promoted {n} {jobs}.",
    "removed": "Removed {n} {jobs}.",
    "left": "{n} {jobs} not changed: held by a worker, damaged, or no longer in that state.",
    "added": "Added job {id}.",
    "known": "Job {id} exists already; nothing was added.",
    "edited": "Replaced the payload of job {id}.",
    "unchanged": "Nothing was changed: job {id} keeps its payload.",
    "paused": "Paused: no job of this queue starts; jobs that run go on.",
    "resumed": "Resumed.",
    "limited": "The limits are set.",
    "drained": "Drained: removed {n} {jobs}.",
    "cleaned": "Cleaned: removed {n} {jobs}.",
    "pruned": "Pruned {n} schedules.",
    "returned": "Returned {n} {jobs} from quarantine.",
    "renamed": "Returned the job from quarantine under the new id {id}.",
    "stayed": "{n} {jobs} could not be returned: the list shows why.",
    "discarded": "Discarded {n} {jobs}.",
}
"""What a write has done, shown at the top of the page that follows; by the address's `notice`."""


class PageRenderer:
    """Renders pages from the templates of this package."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=PackageLoader("corral.board", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(
            pretty=format_json,
            oneline=_format_json_line,
            duration=duration_in_words,
            moment=_format_time,
            ago=_format_age,
            number=_format_number,
            q=lambda text: quote(str(text), safe=""),
        )
        self._environment.globals.update(Action=Action, spark=_draw_hour, bar=_draw_states)

    def render_page(self, page: BoardPage, request: BoardRequest) -> str:
        """The HTML of a page."""

        def url(path: str, **query: Any) -> str:
            given = {name: value for name, value in query.items() if value not in (None, "")}
            return f"{request.mount}{path}" + (f"?{urlencode(given)}" if given else "")

        return self._environment.get_template(f"{page.template}.html").render(
            page.values,
            page=page,
            request=request,
            may=request.identity.may,
            url=url,
            static=lambda name: f"{request.mount}{static_files.file_url(name)}",
            notice=_notice_text(request.query),
        )

    def render_login(self, template: str, mount: str, values: Mapping[str, Any]) -> str:
        """The HTML of a page for a reader who is not logged in: the login page."""
        return self._environment.get_template(f"{template}.html").render(
            values, mount=mount, static=lambda name: f"{mount}{static_files.file_url(name)}"
        )


def _notice_text(query: Mapping[str, str]) -> str:
    """The sentence that a page's address asks for, or an empty text."""
    sentence = NOTICES.get(query.get("notice", ""))
    if sentence is None:
        return ""
    n = query.get("n", "0")[:9]
    return sentence.format(n=n, jobs="job" if n == "1" else "jobs", id=query.get("id", "")[:200])


def format_json(value: Any) -> str:
    """A JSON value as indented text; a text stays as it is."""
    return (
        value
        if isinstance(value, str)
        else json.dumps(value, indent=2, ensure_ascii=False, default=str)
    )


def _format_json_line(value: Any) -> str:
    """The first 300 characters of a JSON value, on one line."""
    return json.dumps(value, ensure_ascii=False, default=str)[:300]


def duration_in_words(value: timedelta | float | None) -> str:
    """A duration in at most two units, such as `3 min 20 s`; a number is milliseconds."""
    if value is None:
        return NOTHING
    ms = value.total_seconds() * 1000 if isinstance(value, timedelta) else value
    if ms < 0:
        return "0 ms"
    if ms < 1000:
        return f"{ms:.0f} ms"
    seconds = ms / 1000
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    for size, name, smaller, below in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if seconds >= size:
            rest = int(seconds % size // smaller)
            return f"{int(seconds // size)} {name}" + (f" {rest} {below}" if rest else "")
    return f"{seconds:.0f} s"


def _format_time(value: datetime | None, short: bool = False) -> str | Markup:
    """A time as a `<time>` element: in UTC, or in the reader's own zone once the script has run.

    Args:
        value: The time.
        short: Whether to show the time of day with milliseconds, without the date.
    """
    if value is None:
        return NOTHING
    at = value.astimezone(UTC)
    text = (
        at.isoformat(sep=" ", timespec="milliseconds")[11:23]
        if short
        else f"{at:%Y-%m-%d %H:%M:%S} UTC"
    )
    return _time_element(at, text, " data-short" if short else "")


def _format_age(value: datetime | None, now: datetime) -> str | Markup:
    """How long ago a time was, or how far ahead it is; the script keeps it up to date."""
    if value is None:
        return NOTHING
    gap = now - value
    return _time_element(
        value.astimezone(UTC),
        f"{duration_in_words(gap)} ago" if gap >= timedelta(0) else f"in {duration_in_words(-gap)}",
        " data-ago",
    )


def _time_element(at: datetime, text: str, mark: str) -> Markup:
    return Markup('<time datetime="{}" title="{}"{}>{}</time>').format(
        at.isoformat(timespec="milliseconds"),
        at.isoformat(sep=" ", timespec="milliseconds"),
        mark,
        text,
    )


def _format_number(value: float) -> str:
    """A count with narrow spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f")


def _draw_hour(completed: Sequence[int], failed: Sequence[int], attempts: Sequence[int]) -> Markup:
    """Bars for the last hour, one per minute: completed jobs, failed ones, attempts in between.

    Args:
        completed: How many jobs have completed in each minute.
        failed: How many have failed for good.
        attempts: How many attempts have failed, the last ones of failed jobs included.
    """
    # a worker of another client, or of an older release, counts failed jobs and no attempts
    retried = [max(0, tried - lost) for tried, lost in zip(attempts, failed, strict=True)]
    hour = [*zip(completed, retried, failed, strict=True)]
    highest = max([1, *map(sum, hour)])
    bars: list[Markup] = []
    for minute, counts in enumerate(hour):
        top = 20.0
        for state, count in zip(("completed", "retried", "failed"), counts, strict=True):
            if count:
                height = round(20 * count / highest, 1)
                if state != "completed":
                    height = max(height, 1)  # a failure is always visible
                top = round(top - height, 1)
                bars.append(_rect(state, minute * 2, top, 1.6, height))
    label = f"last hour: {sum(completed)} completed, {sum(failed)} failed"
    if any(attempts):
        label += f", {sum(attempts)} failed attempts"
    return Markup(
        '<svg class="spark" viewBox="0 0 {} 20" role="img" aria-label="{}">'
        "<title>{}</title>{}</svg>"
    ).format(2 * len(completed), label, label, Markup("").join(bars))


def _draw_states(counts: Mapping[str, int]) -> Markup:
    """One bar that shows how a queue's jobs are divided among the states."""
    total = sum(counts.values())
    parts, left = [], 0.0
    for state, count in counts.items():
        if count:
            width = max(100 * count / total, 0.8)
            parts.append(_rect(state, round(left, 2), 0, round(width, 2), 4))
            left += width
    return Markup(
        '<svg class="bar" viewBox="0 0 {} 4" preserveAspectRatio="none" aria-hidden="true">{}</svg>'
    ).format(max(100, round(left, 2)), Markup("").join(parts))


def _rect(state: str, x: float, y: float, width: float, height: float) -> Markup:
    return Markup('<rect class="s-{}" x="{}" y="{}" width="{}" height="{}"/>').format(
        escape(state), x, y, width, height
    )
