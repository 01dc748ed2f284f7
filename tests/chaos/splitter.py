"""A process between clients and the store that sends each byte of a reply alone: `python
splitter.py FD UPSTREAM`.

`TEST_SPLIT_REPLIES=1` puts one in front of every store of `tests/chaos`.
"""

from __future__ import annotations

import socket
import sys
import threading
from contextlib import suppress

CHUNK = 2**16


def forward(source: socket.socket, target: socket.socket, *, split: bool) -> None:
    with suppress(OSError):
        while data := source.recv(CHUNK):
            for at in range(0, len(data), 1 if split else CHUNK):
                target.sendall(data[at : at + (1 if split else CHUNK)])
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def serve(listening: socket.socket, upstream: str) -> None:
    while True:
        client, _ = listening.accept()
        store = socket.socket(socket.AF_UNIX)
        try:
            store.connect(upstream)
        except OSError:  # the store is away: so are we
            client.close()
            continue
        threading.Thread(
            target=forward, args=(client, store), kwargs={"split": False}, daemon=True
        ).start()
        threading.Thread(
            target=forward, args=(store, client), kwargs={"split": True}, daemon=True
        ).start()


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), sys.argv[2])
