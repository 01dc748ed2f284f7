"""What a producer gets: a queue that refuses early what the processor would refuse, and loads
nothing for it.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from corral import PayloadRefused
from corral_emails import EmailJob, emails

GOOD = {"to": "ada@example.org", "template": "welcome", "variables": {"name": "Ada"}}


def wrong_fields(**fields: object) -> list[str]:
    with pytest.raises(PayloadRefused) as refused:
        emails.validated({**GOOD, **fields})
    return [path for path, _ in refused.value.errors]


def test_is_written_as_other_languages_write_it() -> None:
    job = EmailJob(**GOOD, locale="de", cc=("bob@example.org",), reply_to="help@example.org")
    assert json.loads(emails.dumped(job)) == {
        **GOOD,
        "locale": "de",
        "cc": ["bob@example.org"],
        "replyTo": "help@example.org",
    }


def test_reads_what_a_producer_of_another_language_writes() -> None:
    raw = json.dumps({**GOOD, "replyTo": "help@example.org", "campaign": 7}).encode()
    assert emails.parsed(raw) == (EmailJob(**GOOD, reply_to="help@example.org"), {"campaign"})


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


def test_loads_neither_templates_nor_smtp_nor_settings() -> None:
    probe = (
        "import sys, corral_emails;"
        "heavy = ('jinja2', 'aiosmtplib', 'pydantic_settings', 'redis', 'structlog', 'corral_emails.processor');"
        "print([name for name in heavy if name in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=60
    )
    assert ended.stdout.strip() == "[]"
