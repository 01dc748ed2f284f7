"""What a producer gets, and what the catalog makes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from corral import PayloadRefused
from corral_account_deletions import AccountDeletion, account_deletions

GOOD = {"userId": "ada-4711", "requestId": "r1", "requestedAt": "2027-01-01T10:00:00Z"}


def test_is_written_and_read_as_other_languages_do() -> None:
    job = AccountDeletion(
        user_id="ada-4711", request_id="r1", requested_at=datetime(2027, 1, 1, 10, tzinfo=UTC)
    )
    assert json.loads(account_deletions.dumped(job)) == GOOD
    assert account_deletions.parsed(json.dumps({**GOOD, "why": "x"}).encode()) == (job, {"why"})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("userId", ""),
        ("userId", 7),
        ("userId", "x" * 129),
        ("requestId", ""),
        ("requestedAt", "2027-01-01T10:00:00"),
    ],
)
def test_refuses_what_names_nobody_or_no_moment(field: str, value: object) -> None:
    with pytest.raises(PayloadRefused) as refused:
        account_deletions.validated({**GOOD, field: value})
    assert [path for path, _ in refused.value.errors] == [field]


def test_loads_neither_a_database_nor_a_store(python) -> None:
    probe = """
import sys, corral_account_deletions as loaded
loaded.corral_queues(), loaded.corral_hookspecs()
heavy = ("sqlalchemy", "redis", "structlog", "asyncio", "pydantic_settings", "corral_account_deletions.processor")
print([name for name in heavy if name in sys.modules])
"""
    assert python(probe) == "[]"


def test_needs_nothing_but_corral_and_pydantic_to_be_enqueued(python) -> None:
    probe = """
import sys
sys.modules |= dict.fromkeys(["sqlalchemy", "aiosqlite", "asyncpg"])
from corral.app import read_installed
from corral_account_deletions import account_deletions
print(read_installed("producer").catalog.get("account-deletions").queue is account_deletions)
"""
    assert python(probe) == "True"


def test_corral_check_passes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "corral", "check", "--json"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CORRAL_")}
    checked = subprocess.run(
        command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=60
    )
    assert checked.returncode == 0, checked.stderr
    told = json.loads(checked.stdout)
    assert "account-deletions" in [queue["name"] for queue in told["queues"]]
