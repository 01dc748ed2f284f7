"""Commands on a damaged queue: a result, or one sentence that names the key. Never a traceback."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from damage.layout import DAMAGE

pytestmark = pytest.mark.corral_untidy("the queue is damaged, and stays so")

WORDS = (
    "wait",
    "meta",
    "active",
    "prioritized",
    "completed",
    "delayed",
    "failed",
    "limiter",
    "stalled",
    "events",
)
COMMANDS = (
    ("queues",),
    ("job", "list", "acme-letters", "--state", "waiting"),
    ("job", "show", "acme-letters", "earlier"),
    ("pause", "acme-letters"),
    ("resume", "acme-letters"),
)
AT_HOME = 2
"""Each is a process."""


@pytest.mark.parametrize("word", WORDS if os.environ.get("CI") == "true" else WORDS[:AT_HOME])
@pytest.mark.asyncio
async def test_a_command_names_the_damaged_key(
    word: str, command: Callable[..., Any], store_url: str, binary: Any
) -> None:
    """As a job of a Node producer leaves it whose id is a key word."""
    base = "bull:acme-letters:"
    fields = ("name", "x", "data", "{}", "opts", "{}")
    await binary.hset(f"{base}earlier", "name", "x")
    await binary.lpush(f"{base}wait", "earlier")
    kind = "type" if word == "meta" else "job"  # as a hash it would not be damaged
    await binary.eval(
        DAMAGE, 2, f"{base}{word}", f"aside:{base}{word}", kind, "string", "", *fields
    )
    for arguments in COMMANDS:
        ran = command(*arguments)
        code = ran.wait()
        message = f"{' '.join(arguments)} -> {code}: {ran.said}"
        assert "Traceback" not in ran.said, message
        assert code == 0 or f"{base}{word}" in ran.said, message
