"""What a producer gets: a queue that refuses early what the processor would refuse, and loads
nothing for it.
"""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import pytest

from corral import PayloadRefused
from corral.testing import DeclarationContract
from corral_emails import emails
from corral_emails.server_report import ServerReport

GOOD = {"to": "ada@example.org", "template": "welcome", "variables": {"name": "Ada"}}


class TestDeclaration(DeclarationContract):
    queue = emails
    package = "corral_emails"
    example: ClassVar = {
        **GOOD,
        "locale": "de",
        "cc": ["bob@example.org"],
        "replyTo": "help@example.org",
    }
    not_for_producers = ("jinja2", "aiosmtplib", "sqlalchemy")


def wrong_fields(**fields: object) -> list[str]:
    with pytest.raises(PayloadRefused) as refused:
        emails.validated({**GOOD, **fields})
    return [path for path, _ in refused.value.errors]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"to": "ada"}, "to"),
        ({"to": ["ada@example.org"]}, "to"),
        ({"cc": ["bob@example.org", "eve"]}, "cc.1"),
        ({"replyTo": "x"}, "replyTo"),
        ({"template": "Welcome!"}, "template"),
        ({"locale": "../de"}, "locale"),
        ({"variables": [1]}, "variables"),
        ({"bcc": "eve@example.org"}, "bcc"),
    ],
)
def test_refuses_what_the_processor_would_refuse(fields, path) -> None:
    assert wrong_fields(**fields) == [path]


@pytest.mark.parametrize("character", ["\r", "\n", "\0"])
@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"to": "ada@example.org{}"}, "to"),
        ({"cc": ["{}bob@example.org"]}, "cc.0"),
        ({"replyTo": "he{}lp@example.org"}, "replyTo"),
        ({"template": "welcome{}"}, "template"),
        ({"locale": "de{}"}, "locale"),
        ({"variables": {"name": "A{}da"}}, "variables"),
        ({"variables": {"na{}me": "Ada"}}, "variables"),
        ({"variables": {"deep": [1, {"x": ["A{}da"]}]}}, "variables"),
    ],
)
def test_refuses_line_breaks_and_nul_anywhere(fields, path, character) -> None:
    hostile = json.loads(json.dumps(fields).replace("{}", json.dumps(character)[1:-1]))
    assert wrong_fields(**hostile) == [path]


@pytest.mark.asyncio
async def test_the_readme_has_the_counter_as_it_is(deps) -> None:
    """The test of the alerts looks such counters up in the READMEs."""
    ServerReport(deps)
    page = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    (row,) = re.findall(r"^\| `(\w+)` \| counter \| `(\w+)` \| (.+) \|$", page, re.MULTILINE)
    (counter,) = deps.counters.values()
    assert row[:2] == (counter.name, counter.label)
    assert [value for value in counter.counts if f"`{value}`" not in row[2]] == []


def test_the_readme_has_the_options_for_other_producers() -> None:
    page = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    (written,) = re.findall(r'`(\{"attempts": .+\})`', page)
    options, backoff = emails.options, emails.options.backoff
    assert json.loads(written) == {
        "attempts": options.attempts,
        "backoff": {
            "type": "exponential",
            "delay": milliseconds(backoff.delay),
            "jitter": backoff.jitter,
            "maxDelay": milliseconds(backoff.max),
        },
    }


def milliseconds(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)
