"""Ids and keys as printable text.

Bytes that are not UTF-8 or not printable become escapes, from which the same bytes can be restored.
"""

from __future__ import annotations

import re

__all__ = ["escaped", "unescaped"]

_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|(\\))")


def escaped(raw: bytes) -> str:
    r"""Bytes as one line of text that can be typed: `\xff` for a byte, `\\` for a backslash.

    Different bytes have different texts.
    """
    text = raw.decode(errors="surrogateescape")
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(map(_escape, text))


def unescaped(text: str) -> bytes:
    """The bytes that `escaped` made a text of; a backslash that begins no escape stays one."""
    raw = text.encode(errors="surrogateescape")
    return _ESCAPE.sub(lambda found: b"\\" if found[2] else bytes([int(found[1], 16)]), raw)


def _escape(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode(errors="surrogateescape"))
