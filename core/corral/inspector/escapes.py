"""Ids and keys as texts: what is no UTF-8, or cannot be seen, is shown as an escape that means the
same bytes again.
"""

from __future__ import annotations

import re

__all__ = ["escaped", "unescaped"]

_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(\\))")


def escaped(raw: bytes) -> str:
    r"""Bytes as a text of one line that can be typed: `\xff` for a byte that is no character, `\\`
    for a backslash.

    Two different ids have two different texts.
    """
    text = raw.decode(errors="surrogateescape")
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(map(_shown, text))


def unescaped(text: str) -> bytes:
    """The bytes that a text of `escaped` stands for; a backslash that begins no escape is one."""
    raw = text.encode(errors="surrogateescape")
    return _ESCAPE.sub(lambda found: b"\\" if found[2] else bytes([int(found[1], 16)]), raw)


def _shown(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode(errors="surrogateescape"))
