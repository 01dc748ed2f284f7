"""The files that pages load.

They are a fixed table of this package's files: no path from a request ever reaches the file system.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Final

from corral.board.messages import RawBody

__all__ = ["file_url", "find_file"]

_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@cache
def _load_table() -> Mapping[str, RawBody]:
    """Every file by its path; a digest of its content in the path lets browsers keep it."""
    table: dict[str, RawBody] = {}
    for each in files(__package__).joinpath("static").iterdir():
        stem, _, ending = each.name.rpartition(".")
        if ending in _TYPES:
            body = each.read_bytes()
            name = f"{stem}.{hashlib.sha256(body).hexdigest()[:12]}.{ending}"
            table[f"/static/{name}"] = RawBody(body, _TYPES[ending], cacheable=True)
    return MappingProxyType(table)


def find_file(path: str) -> RawBody | None:
    """The file at a path below the mount, or None."""
    return _load_table().get(path)


@cache
def file_url(name: str) -> str:
    """The path of a file below the mount.

    Args:
        name: The file's name in the folder `static`, such as `board.css`.

    Raises:
        KeyError: There is no such file.
    """
    stem, _, ending = name.rpartition(".")
    for path in _load_table():
        if path.rsplit(".", 2)[::2] == [f"/static/{stem}", ending]:
            return path
    raise KeyError(name)
