"""Makes values safe as CSV cells: a spreadsheet would run some text as a formula.

The rule is OWASP's for CSV injection: such a text gets an apostrophe in front. Numbers stay
numbers.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from pydantic_core import to_json, to_jsonable_python

__all__ = ["cell", "neutral", "plain"]

STARTS: Final = frozenset("=+-@\N{MINUS SIGN}")
"""What a formula starts with. Full-width, small and raised forms are recognized by their NFKC
form.
"""

BREAKS: Final = frozenset("\t\r\n")
"""Characters that a spreadsheet may read as the end of a cell; the next one may be a formula."""

INVISIBLE: Final = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})
"""Characters that a spreadsheet may trim or ignore: spaces of all widths, byte order marks, control
characters.
"""


def cell(value: object) -> str:
    """A value as the text of a cell.

    None and numbers that are none (NaN, infinity) are empty. Bytes are base64, moments ISO 8601,
    lists and mappings JSON.
    """
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case int():
            return str(int(value))
        case float():
            return repr(float(value)) if math.isfinite(value) else ""
        case Decimal():
            return str(value) if value.is_finite() else ""
        case str():
            return neutral(value)
    jsonable = to_jsonable_python(value, bytes_mode="base64", fallback=plain)
    return neutral(
        jsonable if isinstance(jsonable, str) else to_json(jsonable, inf_nan_mode="null").decode()
    )


def plain(value: object) -> object:
    """What JSON has no word for: a mapping of some other type as a dict, all else as its text."""
    return dict(value) if isinstance(value, Mapping) else str(value)


def neutral(text: str) -> str:
    """The text, with an apostrophe in front if a spreadsheet would run it."""
    first = text[:1]
    if first.isascii() and first.isalnum():  # nearly every cell
        return text
    return f"'{text}" if _runs(text) else text


def _runs(text: str) -> bool:
    for character in text:
        if character in BREAKS:
            return True
        if unicodedata.category(character) not in INVISIBLE:
            return unicodedata.normalize("NFKC", character)[0] in STARTS
    return False
