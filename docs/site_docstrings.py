"""Docstrings of Corral as griffe reads them: further lines of an entry need no indentation.

In our `Args:`, `Attributes:` and `Raises:` every line of an entry begins in the same column; griffe
takes a line for a further one only if it is indented, and would leave it out of the page.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

SECTION = re.compile(r"^(Args|Attributes|Raises):$")
ENTRY = re.compile(r"^    [\w*.]+(?: \([^)]*\))?: ")


def indented(docstring: str) -> str:
    """A docstring whose entries have their further lines indented."""
    lines: list[str] = []
    within = False
    for line in docstring.split("\n"):
        if line and not line.startswith(" "):
            within = SECTION.match(line) is not None
        further = within and re.match(r"    \S", line) and not ENTRY.match(line)
        lines.append(f"    {line}" if further else line)
    return "\n".join(lines)


class FurtherLines(griffe.Extension):
    """Indents them before griffe parses the sections."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object that has one."""
        if obj.docstring is not None:
            obj.docstring.value = indented(obj.docstring.value)
