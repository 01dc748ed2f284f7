"""What a producer gets, and what the catalog makes of it."""

from __future__ import annotations

from typing import ClassVar

import pytest

from corral import Cron, PayloadRefused
from corral.testing import DeclarationContract
from corral_usage_period_rollover import UsagePeriodRollover, usage_period_rollover


class TestDeclaration(DeclarationContract):
    queue = usage_period_rollover
    package = "corral_usage_period_rollover"
    example: ClassVar = {}
    not_for_producers = ("sqlalchemy", "aiosqlite", "asyncpg")


def test_runs_every_hour_at_minute_5_utc() -> None:
    assert usage_period_rollover.schedule == Cron("5 * * * *", tz="UTC")


def test_carries_nothing() -> None:
    assert usage_period_rollover.dumped(UsagePeriodRollover()) == b"{}"
    assert usage_period_rollover.parsed(b"{}") == (UsagePeriodRollover(), frozenset())
    with pytest.raises(PayloadRefused):
        usage_period_rollover.validated({"now": "2027-01-01"})
