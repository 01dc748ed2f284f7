"""Durations as users type them, and times as users read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

__all__ = ["format_age", "format_duration", "parse_duration"]

_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_duration(text: str) -> timedelta | None:
    """Parse a duration such as `30s`, `1.5h` or `7d`: a number and one of ms, s, m, h, d.

    Returns:
        None if the text is anything else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text, re.ASCII)
    if match is None:
        return None
    try:
        return timedelta(**{_UNITS[match[2]]: float(match[1])})
    except OverflowError:
        return None


def format_duration(span: timedelta) -> str:
    """A duration in its two largest units: `40ms`, `3s`, `5m`, `2h59m`, `4d2h`."""
    seconds = abs(span.total_seconds())
    if 0 < seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    left = int(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or parts:
            parts.append(f"{count}{unit}" if count else "")
    return "".join(parts[:2]) or "0s"


def format_age(moment: datetime | None) -> str:
    """A time relative to now: `5m ago`, `in 2h`; empty for None."""
    if moment is None:
        return ""
    past = datetime.now(UTC) - moment
    return f"{format_duration(past)} ago" if past >= timedelta(0) else f"in {format_duration(past)}"
