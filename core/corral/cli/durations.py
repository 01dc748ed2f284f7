"""Durations as one types them, and times as one reads them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

__all__ = ["age", "duration", "short"]

_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def duration(text: str) -> timedelta | None:
    """A duration from `30s`, `1.5h`, `7d`: a number and one of ms, s, m, h, d; None from anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text, re.ASCII)
    if match is None:
        return None
    try:
        return timedelta(**{_UNITS[match[2]]: float(match[1])})
    except OverflowError:
        return None


def short(span: timedelta) -> str:
    """A duration in its largest unit: `3s`, `5m`, `2h`, `4d`."""
    seconds = abs(span.total_seconds())
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * length or (unit == "m" and seconds >= length):
            return f"{seconds // length:.0f}{unit}"
    return f"{seconds:.0f}s"


def age(moment: datetime | None) -> str:
    """How long ago a time is, or in how long it will be; empty without one."""
    if moment is None:
        return ""
    past = datetime.now(UTC) - moment
    return f"{short(past)} ago" if past >= timedelta(0) else f"in {short(past)}"
