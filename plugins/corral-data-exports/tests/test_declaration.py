"""What a producer gets: a queue that refuses early what the processor would refuse, and loads
nothing for it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from corral import PayloadRefused
from corral_data_exports import DataExport, data_exports

GOOD = {"userId": "4711", "exportId": "export-1", "format": "json"}


def run(program: str) -> str:
    command = [sys.executable, "-c", program]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


def test_is_written_as_other_languages_write_it() -> None:
    job = DataExport(user_id="4711", export_id="export-1", format="json")
    assert json.loads(data_exports.dumped(job)) == GOOD
    assert data_exports.parsed(json.dumps({**GOOD, "since": 7}).encode()) == (job, {"since"})


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"format": "xml"}, "format"),
        ({"format": "JSON"}, "format"),
        ({"userId": ""}, "userId"),
        ({"userId": 4711}, "userId"),
        ({"userId": "a\0"}, "userId"),
        ({"userId": "a\n"}, "userId"),
        ({"userId": "x" * 129}, "userId"),
        ({"exportId": "a\x7f"}, "exportId"),
        ({"exportId": "x" * 129}, "exportId"),
        ({"email": "ada@example.org"}, "email"),
    ],
)
def test_refuses_what_the_processor_would_refuse(fields, path) -> None:
    with pytest.raises(PayloadRefused) as refused:
        data_exports.validated({**GOOD, **fields})
    assert [wrong for wrong, _ in refused.value.errors] == [path]


def test_loads_neither_a_database_nor_a_storage() -> None:
    probe = """
import sys, corral_data_exports as loaded
loaded.corral_queues(), loaded.corral_hookspecs()
heavy = ("sqlalchemy", "obstore", "zipstream", "pydantic_settings", "redis", "structlog", "asyncio",
         "corral_data_exports.processor")
print([name for name in heavy if name in sys.modules])
"""
    assert run(probe) == "[]"


def test_needs_nothing_but_corral_and_pydantic_to_be_enqueued() -> None:
    probe = """
import sys
sys.modules |= dict.fromkeys(["sqlalchemy", "aiosqlite", "asyncpg", "obstore", "zipstream"])
from corral.app import read_installed
from corral_data_exports import data_exports
print(read_installed("producer").catalog.get("data-exports").queue is data_exports)
"""
    assert run(probe) == "True"


def test_corral_check_passes(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CORRAL_")}
    command = [sys.executable, "-m", "corral", "check", "--json"]
    checked = subprocess.run(
        command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=60
    )
    assert checked.returncode == 0, checked.stderr
    told = json.loads(checked.stdout)
    assert "data-exports" in [queue["name"] for queue in told["queues"]]
