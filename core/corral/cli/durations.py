"""Durations as one types them, and times as one reads them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

__all__ = ["age", "duration", "short"]

_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def duration(text: str) -> timedelta | None:
    """A duration from `30s`, `1.5h`, `7d`: a number and one of ms, s, m, h, d; None from anything
    else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text, re.ASCII)
    if match is None:
        return None
    try:
        return timedelta(**{_UNITS[match[2]]: float(match[1])})
    except OverflowError:
        return None


def short(span: timedelta) -> str:
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


def age(moment: datetime | None) -> str:
    """How long ago a time is, or in how long it will be; empty without one."""
    if moment is None:
        return ""
    past = datetime.now(UTC) - moment
    return f"{short(past)} ago" if past >= timedelta(0) else f"in {short(past)}"
