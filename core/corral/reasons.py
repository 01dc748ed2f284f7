"""The texts that say why a job failed, in the forms in which they are counted and listed."""

from __future__ import annotations

import re
from functools import cache
from typing import Final

__all__ = ["first_line", "generalized_reason"]

LINE: Final = 200
"""The most characters of a line: more does not fit into a row of a page."""


def first_line(text: str) -> str:
    """The first line that is not blank, cut after `LINE` characters."""
    line = next((line for line in text.splitlines() if line.strip()), "").strip()
    return line if len(line) <= LINE else line[: LINE - 1] + "…"


def generalized_reason(reason: str) -> str:
    """A failed reason with `…` in place of ids, numbers and addresses."""
    return _particular().sub("…", reason)


@cache  # compiled when it is first used: producers import this module and never do
def _particular() -> re.Pattern[str]:
    return re.compile(
        r"""
          # a URL
          \b[a-z][a-z0-9+.-]*://[^\s'"<>)\]]+
          # an e-mail address
        | [^\s'"<>()\[\]:,;=]+@[^\s'"<>()\[\]:,;=]+
          # an id: at least 8 characters, at least 3 digits among them
        | \b(?=[\w-]*\d[\w-]*\d[\w-]*\d)[\w-]{8,}
          # a hexadecimal number
        | \b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b
          # a number, a time or an IP address, but no status code of HTTP or SMTP: it is kept
        | (?<![A-Za-z0-9.])(?!(?:[1-5]\d\d|[245](?:\.\d{1,3}){2})(?![\d.,:]))
          \d[\d.,:]*(?<![.,:])
        """,
        re.VERBOSE | re.IGNORECASE,
    )
