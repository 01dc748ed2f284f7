"""Names the entries of an archive: one plain file name for each participant's records.

Whoever unpacks it must not be led out of the folder, and must not lose one entry to another.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

__all__ = ["MANIFEST", "entry_names"]

MANIFEST: Final = "manifest.json"

MAX_LENGTH: Final = 80
"""Of a name without number and suffix; file systems take 255 bytes."""

DEVICES: Final = frozenset(
    [
        "con",
        "prn",
        "aux",
        "nul",
        "manifest",
        *(f"{port}{number}" for port in ("com", "lpt") for number in range(10)),
    ]
)
"""What Windows opens devices by, whatever the suffix; and the name that is taken already."""


def entry_names(names: Iterable[str], suffix: str) -> list[str]:
    """A file name for each record set, no two of them alike, also where case does not count.

    Letters, digits, `-` and `_` stay, in ASCII; a run of anything else, dots and slashes included,
    becomes one `_`.

    Args:
        names: What the record sets are called: any text.
        suffix: `.json` or `.csv`.
    """
    taken: set[str] = set()
    numbers: dict[
        str, int
    ] = {}  # the last of each name: from 1 again, six thousand that are alike take seven seconds
    made: list[str] = []
    for name in names:
        plain = _plain(name)
        chosen, number = plain, numbers.get(plain.lower(), 1)
        while chosen.lower() in taken:
            number += 1
            chosen = f"{plain}-{number}"
        taken.add(chosen.lower())
        numbers[plain.lower()] = number
        made.append(chosen + suffix)
    return made


def _plain(name: str) -> str:
    ascii_only = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", ascii_only).strip("_-")[:MAX_LENGTH]
    if not plain:
        return "records"
    return f"{plain}_" if plain.lower() in DEVICES else plain
