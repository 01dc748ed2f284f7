"""The files that pages load: a table of what is in this package, never a path that somebody asks
for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Final

from corral.board.messages import Answer

__all__ = ["served", "url_of"]

_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@cache
def _table() -> Mapping[str, Answer]:
    """Every file by its name with the digest of its contents, so that a browser may keep it for
    good.
    """
    table: dict[str, Answer] = {}
    for each in files(__package__).joinpath("static").iterdir():
        stem, _, ending = each.name.rpartition(".")
        if ending in _TYPES:
            body = each.read_bytes()
            name = f"{stem}.{hashlib.sha256(body).hexdigest()[:12]}.{ending}"
            table[f"/static/{name}"] = Answer(body, _TYPES[ending], cacheable=True)
    return MappingProxyType(table)


def served(path: str) -> Answer | None:
    """A file by its path below where the board is mounted, or None."""
    return _table().get(path)


@cache
def url_of(name: str) -> str:
    """The path of a file below where the board is mounted.

    Raises:
        KeyError: There is no such file.
    """
    stem, _, ending = name.rpartition(".")
    for path in _table():
        if path.rsplit(".", 2)[::2] == [f"/static/{stem}", ending]:
            return path
    raise KeyError(name)
