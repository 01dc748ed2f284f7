"""Sockets on a port that the kernel chose: known before anybody listens, and nobody else's."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["listening"]


@contextmanager
def listening() -> Iterator[socket.socket]:
    """A listening socket on 127.0.0.1, closed when the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener
