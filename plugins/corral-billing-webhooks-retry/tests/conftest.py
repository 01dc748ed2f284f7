"""What several tests use: settings of nobody, and an interpreter of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

SECONDS = 60
"""How long a program may take."""


@pytest.fixture(autouse=True)
def _no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("CORRAL_BILLING_WEBHOOKS_RETRY_"):
            monkeypatch.delenv(name)


@pytest.fixture
def python() -> Callable[..., str]:
    """Runs a program to its end in an interpreter of its own, and returns what it printed."""

    def run(program: str) -> str:
        command = [sys.executable, "-c", program]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS).stdout.strip()

    return run
