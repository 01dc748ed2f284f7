"""`python -m bench` runs, with Corral alone: no figure of it is looked at."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from corral.store.scripts import script

ROOT = Path(__file__).parents[2]
SECONDS = 120


def test_a_quick_run_of_one_section_prints_its_rows_and_what_was_measured() -> None:
    command = [sys.executable, "-m", "bench", "--only", "add", "--quick", "--alone"]
    message = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=SECONDS
    ).stdout
    assert f"advance.lua {script('advance').digest}" in message
    assert re.search(
        r"^  100 callers, one at a time each +[\d,.]+ +≥ 1.4x +~100 k/s +not measured$",
        message,
        re.MULTILINE,
    )
