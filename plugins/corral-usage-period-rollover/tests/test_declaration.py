"""What a producer gets, and what the catalog makes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from corral import Cron, PayloadRefused
from corral_usage_period_rollover import UsagePeriodRollover, usage_period_rollover


def test_runs_every_hour_at_minute_5_utc() -> None:
    assert usage_period_rollover.schedule == Cron("5 * * * *", tz="UTC")


def test_carries_nothing() -> None:
    assert usage_period_rollover.dumped(UsagePeriodRollover()) == b"{}"
    assert usage_period_rollover.parsed(b"{}") == (UsagePeriodRollover(), frozenset())
    with pytest.raises(PayloadRefused):
        usage_period_rollover.validated({"now": "2027-01-01"})


def test_loads_neither_a_database_nor_a_store(python) -> None:
    probe = """
import sys, corral_usage_period_rollover as loaded
loaded.corral_queues(), loaded.corral_hookspecs()
heavy = ("sqlalchemy", "redis", "structlog", "asyncio", "corral_usage_period_rollover.processor")
print([name for name in heavy if name in sys.modules])
"""
    assert python(probe) == "[]"


def test_needs_nothing_but_corral_and_pydantic_to_be_enqueued(python) -> None:
    probe = """
import sys
sys.modules |= dict.fromkeys(["sqlalchemy", "aiosqlite", "asyncpg"])
from corral.app import read_installed
from corral_usage_period_rollover import usage_period_rollover
print(read_installed("producer").catalog.get("usage-period-rollover").queue is usage_period_rollover)
"""
    assert python(probe) == "True"


def test_corral_check_passes(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CORRAL_")}
    command = [sys.executable, "-m", "corral", "check", "--json"]
    checked = subprocess.run(
        command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=60
    )
    assert checked.returncode == 0, checked.stderr
    told = json.loads(checked.stdout)
    assert "usage-period-rollover" in [queue["name"] for queue in told["queues"]]
