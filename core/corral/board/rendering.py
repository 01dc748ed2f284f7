"""Turns a `Page` into HTML.

Everything is escaped; templates hold no script and no style of their own.
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
from corral.board.messages import Page, Request

__all__ = ["TOLD", "Renderer", "pretty", "span"]

NOTHING: Final = "-"
"""Where there is no time and no length of time."""

TOLD: Final[Mapping[str, str]] = {
    "retried": "Retried: {n} {jobs} again.",
    "promoted": "Promoted: {n} {jobs} now.",
    "removed": "Removed {n} {jobs}.",
    "left": "{n} {jobs} could not be changed: a worker holds them, they have moved on, or are damaged.",
    "added": "Added job {id}.",
    "known": "Job {id} exists already; nothing was added.",
    "edited": "The payload of job {id} is replaced.",
    "paused": "Paused: no job of this queue starts; what runs goes on.",
    "resumed": "Resumed.",
    "limited": "The limits are set.",
    "drained": "Drained: {n} {jobs} removed.",
    "cleaned": "Cleaned: {n} {jobs} removed.",
    "pruned": "Pruned {n} schedules.",
    "returned": "Returned: {n} {jobs} again.",
    "renamed": "Returned: the job waits again, as {id}.",
    "stayed": "{n} {jobs} could not be returned: the list says why.",
    "discarded": "Discarded {n} {jobs}.",
}
"""What a write says of itself on the page that it leads to, by the word in that page's address."""


class Renderer:
    """Renders pages."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=PackageLoader("corral.board", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(
            pretty=pretty,
            oneline=_oneline,
            span=span,
            moment=_moment,
            ago=_ago,
            number=_number,
            q=lambda text: quote(str(text), safe=""),
        )
        self._environment.globals.update(Action=Action, spark=_spark, bar=_bar)

    def page(self, page: Page, request: Request) -> str:
        """A whole page."""

        def url(path: str, **query: Any) -> str:
            given = {name: value for name, value in query.items() if value not in (None, "")}
            return f"{request.mount}{path}" + (f"?{urlencode(given)}" if given else "")

        return self._environment.get_template(f"{page.template}.html").render(
            page.values,
            page=page,
            request=request,
            may=request.identity.may,
            url=url,
            static=lambda name: f"{request.mount}{static_files.url_of(name)}",
            done=_told(request.query),
        )

    def bare(self, template: str, mount: str, values: Mapping[str, Any]) -> str:
        """A page for somebody who is nobody yet: the login."""
        return self._environment.get_template(f"{template}.html").render(
            values, mount=mount, static=lambda name: f"{mount}{static_files.url_of(name)}"
        )


def _told(query: Mapping[str, str]) -> str:
    sentence = TOLD.get(query.get("told", ""))
    if sentence is None:
        return ""
    n = query.get("n", "0")[:9]
    return sentence.format(n=n, jobs="job" if n == "1" else "jobs", id=query.get("id", "")[:200])


def pretty(value: Any) -> str:
    """A JSON value as text for people; a text stays as it is."""
    return (
        value
        if isinstance(value, str)
        else json.dumps(value, indent=2, ensure_ascii=False, default=str)
    )


def _oneline(value: Any) -> str:
    """The beginning of a JSON value, on one line."""
    return json.dumps(value, ensure_ascii=False, default=str)[:300]


def span(value: timedelta | float | None) -> str:
    """A length of time in at most two units; a number is milliseconds."""
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


def _moment(value: datetime | None, short: bool = False) -> str | Markup:
    """A time as an element that a script may put into the reader's words and zone; without one it
    is UTC.

    Args:
        value: The time.
        short: Whether the day is known, and the milliseconds matter.
    """
    if value is None:
        return NOTHING
    at = value.astimezone(UTC)
    text = (
        at.isoformat(sep=" ", timespec="milliseconds")[11:23]
        if short
        else f"{at:%Y-%m-%d %H:%M:%S} UTC"
    )
    return _time(at, text, " data-short" if short else "")


def _ago(value: datetime | None, now: datetime) -> str | Markup:
    """How long ago, or in how long; a script keeps it moving."""
    if value is None:
        return NOTHING
    gap = now - value
    return _time(
        value.astimezone(UTC),
        f"{span(gap)} ago" if gap >= timedelta(0) else f"in {span(-gap)}",
        " data-ago",
    )


def _time(at: datetime, text: str, mark: str) -> Markup:
    return Markup('<time datetime="{}" title="{}"{}>{}</time>').format(
        at.isoformat(timespec="milliseconds"),
        at.isoformat(sep=" ", timespec="milliseconds"),
        mark,
        text,
    )


def _number(value: float) -> str:
    """A count, with thin spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f")


def _spark(completed: Sequence[int], failed: Sequence[int]) -> Markup:
    """Bars of an hour, a minute each; what failed stands on what completed."""
    highest = max([1, *(a + b for a, b in zip(completed, failed, strict=True))])
    bars: list[Markup] = []
    for at, (done, lost) in enumerate(zip(completed, failed, strict=True)):
        up, over = round(20 * done / highest, 1), round(20 * lost / highest, 1)
        if done:
            bars.append(_rect("completed", at * 2, 20 - up, 1.6, up))
        if lost:
            bars.append(_rect("failed", at * 2, 20 - up - max(over, 1), 1.6, max(over, 1)))
    label = f"last hour: {sum(completed)} completed, {sum(failed)} failed"
    return Markup(
        '<svg class="spark" viewBox="0 0 {} 20" role="img" aria-label="{}"><title>{}</title>{}</svg>'
    ).format(2 * len(completed), label, label, Markup("").join(bars))


def _bar(counts: Mapping[str, int]) -> Markup:
    """One bar, shared by the states of a queue's jobs."""
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
