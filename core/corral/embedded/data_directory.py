"""The files of an embedded store's data directory: their names, its two locks, and where its socket
has room.

It starts and stops nothing; `embedded` does.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from corral.embedded.server_binary import ServerBinary, version_in
from corral.errors import ConfigurationError, StoreUnavailable
from corral.forking import left_to_parent

__all__ = ["POLL_SECONDS", "DataDirectory", "ensure_private", "locked"]

log = logging.getLogger(__name__)

POLL_SECONDS = 0.005
"""A server starts in 40 ms; nobody should notice the polling on top of it."""
JOIN_SECONDS = 15.0
"""How long the last user may keep a new one waiting: longer than it may take to stop the server."""
LONGEST_SOCKET_PATH = 100
"""In bytes.

The kernel's limit is 108 here and 104 on macOS, and the server exits where a path exceeds it.
"""
OWN_NAMES = re.compile(r"store\..+|users\.lock|appendonlydir|temp-.+|corral\.db.*|exports")
"""What Corral keeps in a data directory.

One that holds anything else has other uses, and is not ours to close.
"""


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """The files of one data directory.

    Attributes:
        path: Absolute.
    """

    path: Path

    @classmethod
    def at(cls, data_dir: Path) -> DataDirectory:
        """The directory of a path.

        Raises:
            ConfigurationError: The path is relative, and the working directory was deleted.
        """
        with cls(data_dir).blamed():
            return cls(data_dir.resolve())

    @classmethod
    def made(cls, data_dir: Path) -> DataDirectory:
        """Make the directory and its lock files where they are missing.

        Raises:
            ConfigurationError: The directory cannot be written, or is open to other users; see
            `ensure_private`.
        """
        directory = cls.at(data_dir)
        with directory.blamed():
            directory.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            ensure_private(directory.path)
            for file in (directory.lock, directory.users, directory.version):
                file.touch(mode=0o600)
        return directory

    @property
    def lock(self) -> Path:
        """Held by the server for its lifetime."""
        return self.path / "store.lock"

    @property
    def users(self) -> Path:
        """Shared by everybody who uses the store."""
        return self.path / "users.lock"

    @property
    def log(self) -> Path:
        """What the server said since its last start."""
        return self.path / "store.log"

    @property
    def version(self) -> Path:
        """Names the server that wrote the files last."""
        return self.path / "store.version"

    @property
    def folder(self) -> Path:
        """Names the folder of the socket, where the socket has no room here."""
        return self.path / "store.folder"

    @property
    def socket(self) -> Path:
        """Where the server listens. Does not exist where no server was started."""
        near = self.path / "store.sock"
        if len(os.fsencode(near)) <= LONGEST_SOCKET_PATH:
            return near
        return (self._recorded_folder() or self.path) / near.name

    @property
    def url(self) -> str:
        """What clients connect to."""
        return f"unix://{quote(os.fsencode(self.socket))}"

    def room_for_socket(self) -> Path:
        """`socket`, in a new folder where it would be too long to listen on.

        Only for whoever holds the lock.
        """
        if len(os.fsencode(self.socket)) > LONGEST_SOCKET_PATH:
            self.folder.write_text(tempfile.mkdtemp(prefix="corral-"), encoding="utf-8")
        return self.socket

    def forget_socket_folder(self) -> None:
        """Undo `room_for_socket`. Only for whoever stopped the server."""
        if folder := self._recorded_folder():
            shutil.rmtree(folder, ignore_errors=True)
        self.folder.unlink(missing_ok=True)

    def _recorded_folder(self) -> Path | None:
        try:
            folder = Path(self.folder.read_text(encoding="utf-8"))
            found = folder.lstat()
        except OSError:
            return None
        # The temporary directory is everybody's: after it was cleaned, the same name may be
        # somebody else's trap.
        private = (
            stat.S_ISDIR(found.st_mode)
            and found.st_uid == os.geteuid()
            and not found.st_mode & 0o077
        )
        return folder if private else None

    def check_version(self, server: ServerBinary) -> None:
        """Refuse a server older than the one that wrote the files, else note it.

        Only for whoever holds the lock.
        """
        noted = self.version.read_text(encoding="utf-8") if self.version.exists() else ""
        if server.version[:2] < version_in(noted)[:2]:
            raise StoreUnavailable(
                f"the data directory {str(self.path)!r} was written by {noted.strip()}, newer than {server}",
                hint="update the extra 'embedded' from where you got corral, or set another CORRAL_DATA_DIR",
            )
        self.version.write_text(f"{server}\n", encoding="utf-8")

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Turn the operating system's refusals into one sentence about this directory."""
        try:
            yield
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ConfigurationError(
                f"the data directory {str(self.path)!r} cannot be used: {reason}",
                hint="set CORRAL_DATA_DIR to a directory that this user can write",
            ) from error

    def in_use(self) -> StoreUnavailable:
        """The error for a locked directory without an answering server."""
        return StoreUnavailable(
            f"data directory in use: {str(self.path)!r} is locked, and its server does not answer",
            hint=f"end the process that `fuser {self.lock}` names, or set CORRAL_DATA_DIR to another directory",
        )

    def not_started(self) -> StoreUnavailable:
        """The error for a server that ended before it answered."""
        with self.blamed():
            said = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        last = said[-1].strip() if said else "it said nothing"
        return StoreUnavailable(
            f"the embedded store in {str(self.path)!r} ended at its start: {last}",
            hint=f"all it said is in {self.log}",
        )

    @contextmanager
    def shared(self) -> Iterator[int]:
        """Hold the users' lock, shared.

        Yields:
            Its descriptor.

        Raises:
            StoreUnavailable: Somebody is stopping the server and does not come to an end.
        """
        with self._opened(self.users) as users:
            deadline = time.monotonic() + JOIN_SECONDS
            while not locked(users, fcntl.LOCK_SH):
                if time.monotonic() > deadline:
                    raise self.in_use()
                time.sleep(POLL_SECONDS)
            yield users

    @contextmanager
    def free(self) -> Iterator[int | None]:
        """Hold the server's lock, if no server does.

        Yields:
            Its descriptor, or None where a server lives. Closing does not unlock it for those who
            inherited it.
        """
        with self._opened(self.lock) as lock:
            yield lock if locked(lock, fcntl.LOCK_EX) else None

    @contextmanager
    def _opened(self, path: Path) -> Iterator[int]:
        """A descriptor to lock; silenced in a forked child, for as long as which the lock would
        last otherwise.
        """
        with self.blamed():
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        with left_to_parent(descriptor):
            try:
                yield descriptor
            finally:
                os.close(descriptor)


def ensure_private(path: Path) -> None:
    """Take the rights of group and others from a data directory of ours; refuse one that has other
    uses.

    Its files hold every payload, and whoever reaches the socket in it is the store's user.

    Args:
        path: The directory; it exists.

    Raises:
        ConfigurationError: Other users have rights in it, and it is another user's, or holds what
            is not Corral's, or its file system keeps no rights.
        OSError: It cannot be looked at.
    """
    found = path.stat()
    if not found.st_mode & 0o077:
        return
    if found.st_uid == os.geteuid() and all(
        OWN_NAMES.fullmatch(each.name) for each in path.iterdir()
    ):
        path.chmod(stat.S_IMODE(found.st_mode) & ~0o077)
        if not path.stat().st_mode & 0o077:
            mode = stat.S_IMODE(found.st_mode)
            log.warning(
                "the data directory %s was open to other users (mode %04o): it is private now",
                path,
                mode,
            )
            return
    raise ConfigurationError(
        f"the data directory {str(path)!r} is open to other users (mode {stat.S_IMODE(found.st_mode):04o})",
        hint="chmod 700 it if it is for Corral alone, or set CORRAL_DATA_DIR to a directory of its own",
    )


def locked(descriptor: int, how: int) -> bool:
    """Try to lock a descriptor `LOCK_SH` or `LOCK_EX`, without waiting."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
