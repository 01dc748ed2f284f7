"""What a large export costs: the peak of a fresh worker process, beside one that has nothing to do."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from corral_data_exports import DataExport
from corral_data_exports.storage import object_key

pytestmark = pytest.mark.asyncio

ROWS = 200_000
MOST_MIB = 60
UNIT = 1 if sys.platform == "darwin" else 1024
"""What `ru_maxrss` counts in, in bytes."""

FILLED = {
    "sqlite": "INSERT INTO orders WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < {last}) "
    "SELECT i, 1, hex(randomblob(100)), i / 7.0, true FROM n",
    "postgresql": "INSERT INTO orders SELECT i, 1, md5(i || 'a') || md5(i || 'b') || md5(i || 'c') || md5(i || 'd') "
    "|| md5(i || 'e') || md5(i || 'f'), i / 7.0, true FROM generate_series(100, {last}) i",
}
"""Rows of 200 characters that compress to half: the archive has several parts."""

LAUNCHER = """
import os, sys
command = [sys.executable, "-m", "corral", "worker", "--burst", "data-exports"]
process, status, used = os.wait4(os.posix_spawn(sys.executable, command, os.environ), 0)
print(os.waitstatus_to_exitcode(status), used.ru_maxrss)
"""
"""Small, because a process counts what it was forked from as its own peak."""


def peak_mib() -> float:
    """The peak of a worker that works off what there is, in MiB."""
    launched = [sys.executable, "-c", LAUNCHER]
    message = subprocess.run(launched, capture_output=True, text=True, check=True, timeout=120)
    code, peak = map(int, message.stdout.split())
    assert code == 0, message.stderr
    return peak * UNIT / 2**20


async def test_two_hundred_thousand_rows_take_less_than_sixty_mib(
    site, shop, monkeypatch, capsys
) -> None:
    monkeypatch.delenv("CORRAL_APP")
    database = shop.url.partition("+")[0]
    form = "csv" if database == "sqlite" else "json"
    await shop.run("DELETE FROM orders")
    await shop.run(FILLED[database].format(last=99 + ROWS))

    empty = peak_mib()
    export = DataExport(user_id="1", export_id="1", format=form)
    job_id = await site.enqueue(export)
    full = peak_mib()
    made = json.loads(site.job(job_id)["returnvalue"])
    assert made["key"] == object_key(export)
    assert made["size"] > 3 * 5 * 2**20, "more than what is on its way at once"
    assert [entry["rows"] for entry in shop.manifest(made["key"])["entries"]] == [ROWS, 1]

    with capsys.disabled():
        print(
            f"\n{database}, {form}: {ROWS} rows take {full - empty:.1f} MiB more than none (peak {full:.1f} MiB)"
        )
    assert full - empty < MOST_MIB
