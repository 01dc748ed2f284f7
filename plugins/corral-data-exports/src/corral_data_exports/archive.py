"""A zip archive that is made of pieces as they come, and handed on as it grows.

It holds none of it.

zipstream-ng asks for its data, and records come when the database has them: so it is given an
iterator that has what there is, and is asked for no more output than that makes.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass

from zipstream import ZIP_DEFLATED, ZipStream  # type: ignore[import-untyped]  # it ships no types

__all__ = ["Archive", "Entry"]

LEVEL = 6
"""zlib's own choice: level 9 takes twice the time here for a hundredth of the size."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry that is complete.

    Attributes:
        name: Its name in the archive.
        size: Its length in bytes, unpacked.
        sha256: Of the unpacked bytes, in hex.
    """

    name: str
    size: int
    sha256: str


class Archive:
    """A zip in the making. Each call returns the bytes of the archive that it has made.

    The calls compress, and block for as long as that takes: some milliseconds for a piece of a
    hundred KiB.
    """

    def __init__(self) -> None:
        self._zip = ZipStream(compress_type=ZIP_DEFLATED, compress_level=LEVEL)
        self._pieces: deque[bytes] = deque()
        self._ended = False
        self._output: Generator[bytes, None, object] = self._zip.file()
        self._name = ""
        self._size = 0
        self._digest = hashlib.sha256()

    def begin(self, name: str) -> None:
        """Begin an entry; the one before has ended."""
        self._name, self._size, self._digest, self._ended = name, 0, hashlib.sha256(), False
        self._zip.add(self._yield_pieces(), name)
        self._output = self._zip.file()

    def add(self, piece: bytes) -> bytes:
        """Add to the entry."""
        self._size += len(piece)
        self._digest.update(piece)
        self._pieces.append(piece)
        made: list[bytes] = []
        while self._pieces:
            made.append(next(self._output))
        return b"".join(made)

    def end(self) -> tuple[bytes, Entry]:
        """End the entry."""
        self._ended = True
        return b"".join(self._output), Entry(self._name, self._size, self._digest.hexdigest())

    def close(self) -> bytes:
        """The archive's directory, which is its end."""
        return b"".join(self._zip.footer())

    def _yield_pieces(self) -> Iterator[bytes]:
        while self._pieces or not self._ended:
            if not self._pieces:
                raise RuntimeError("zipstream-ng asked for data before it handed on what it had")
            yield self._pieces.popleft()
