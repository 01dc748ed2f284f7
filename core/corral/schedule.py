"""`Cron` and `Every`: when a recurring queue runs. A declaration only; it is judged with the catalog."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

__all__ = ["Cron", "Every"]


@dataclass(frozen=True, slots=True)
class Cron:
    """Run at the times a cron expression names.

    Attributes:
        expression: Five fields (minute hour day month weekday), or six with seconds first.
        tz: An IANA time zone.
    """

    expression: str
    tz: str = "UTC"


@dataclass(frozen=True, slots=True)
class Every:
    """Run once per `period`, on a fixed grid.

    Attributes:
        period: The time between two runs.
    """

    period: timedelta
