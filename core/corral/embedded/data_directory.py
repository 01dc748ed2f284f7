"""The data directory of an embedded store: its files, its two locks, and the path of its socket.

Nothing here starts or stops a server; `corral.embedded.server` does.
"""

from __future__ import annotations

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
from corral.forking import silence_in_children

__all__ = ["POLL_SECONDS", "DataDirectory", "ensure_private", "try_lock"]

log = logging.getLogger(__name__)

POLL_SECONDS = 0.005
"""How often a lock or a server is tried again: a server starts in 40 ms, so this adds little."""
JOIN_SECONDS = 15.0
"""How long a new user waits for the last one, which may need 10 s to stop the server."""
LONGEST_SOCKET_PATH = 100
"""In bytes. The limit is 108 on Linux and 104 on macOS; a server with a longer path exits."""
OWN_NAMES = re.compile(r"store\..+|users\.lock|appendonlydir|temp-.+|corral\.db.*|exports")
"""The names of the files that Corral keeps in a data directory.

A directory with any other file is used for something else, so its rights are not changed.
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
            ConfigurationError: The path is relative, and the working directory is deleted.
        """
        with cls(data_dir).naming_path():
            return cls(data_dir.resolve())

    @classmethod
    def create(cls, data_dir: Path) -> DataDirectory:
        """Create the directory and its lock files where they are missing.

        Raises:
            ConfigurationError: The directory cannot be written, or is open to other users; see
                `ensure_private`.
        """
        directory = cls.at(data_dir)
        with directory.naming_path():
            directory.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            ensure_private(directory.path)
            for file in (directory.lock, directory.users, directory.version):
                file.touch(mode=0o600)
        return directory

    @property
    def lock(self) -> Path:
        """The lock that the server holds for its lifetime."""
        return self.path / "store.lock"

    @property
    def users(self) -> Path:
        """The lock that all users of the store share."""
        return self.path / "users.lock"

    @property
    def log(self) -> Path:
        """The server's output since its last start."""
        return self.path / "store.log"

    @property
    def version(self) -> Path:
        """A file that names the server that last wrote the data."""
        return self.path / "store.version"

    @property
    def folder(self) -> Path:
        """A file that names the socket's folder where the path of this one is too long."""
        return self.path / "store.folder"

    @property
    def socket(self) -> Path:
        """The socket on which the server listens; it need not exist."""
        near = self.path / "store.sock"
        if len(os.fsencode(near)) <= LONGEST_SOCKET_PATH:
            return near
        return (self._find_socket_folder() or self.path) / near.name

    @property
    def url(self) -> str:
        """The URL that clients connect to."""
        return f"unix://{quote(os.fsencode(self.socket))}"

    def make_socket_folder(self) -> Path:
        """Make another folder for the socket where its path is too long; return the path.

        Only the holder of the lock may call this.
        """
        if len(os.fsencode(self.socket)) > LONGEST_SOCKET_PATH:
            self.folder.write_text(tempfile.mkdtemp(prefix="corral-"), encoding="utf-8")
        return self.socket

    def remove_socket_folder(self) -> None:
        """Remove what `make_socket_folder` made, after the server has stopped."""
        if folder := self._find_socket_folder():
            shutil.rmtree(folder, ignore_errors=True)
        self.folder.unlink(missing_ok=True)

    def _find_socket_folder(self) -> Path | None:
        try:
            folder = Path(self.folder.read_text(encoding="utf-8"))
            found = folder.lstat()
        except OSError:
            return None
        # All users share the temporary directory: after it was cleaned, another user may have made
        # a folder of this name.
        private = (
            stat.S_ISDIR(found.st_mode)
            and found.st_uid == os.geteuid()
            and not found.st_mode & 0o077
        )
        return folder if private else None

    def check_version(self, server: ServerBinary) -> None:
        """Refuse a server older than the one that wrote the files, else record its version.

        Only the holder of the lock may call this.

        Raises:
            StoreUnavailable: The server is older.
        """
        noted = self.version.read_text(encoding="utf-8") if self.version.exists() else ""
        if server.version[:2] < version_in(noted)[:2]:
            raise StoreUnavailable(
                f"the data directory {str(self.path)!r} was written by {noted.strip()}, "
                f"newer than {server}",
                hint="update the extra 'embedded' from where you got corral, "
                "or set another CORRAL_DATA_DIR",
            )
        self.version.write_text(f"{server}\n", encoding="utf-8")

    @contextmanager
    def naming_path(self) -> Iterator[None]:
        """Turn an OSError into a ConfigurationError that names this directory."""
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
            hint=f"end the process that `fuser {self.lock}` names, "
            "or set CORRAL_DATA_DIR to another directory",
        )

    def build_start_error(self) -> StoreUnavailable:
        """Build the error for a server that ended before it answered: the last line of its log."""
        with self.naming_path():
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        last = lines[-1].strip() if lines else "it printed nothing"
        return StoreUnavailable(
            f"the embedded store in {str(self.path)!r} ended at its start: {last}",
            hint=f"its whole output is in {self.log}",
        )

    @contextmanager
    def join_users(self) -> Iterator[int]:
        """Hold a share of the users' lock.

        Yields:
            Its descriptor.

        Raises:
            StoreUnavailable: Another process has been stopping the server for too long.
        """
        with self._open(self.users) as users:
            deadline = time.monotonic() + JOIN_SECONDS
            while not try_lock(users, shared=True):
                if time.monotonic() > deadline:
                    raise self.in_use()
                time.sleep(POLL_SECONDS)
            yield users

    @contextmanager
    def try_server_lock(self) -> Iterator[int | None]:
        """Hold the server's lock, if no server holds it.

        Yields:
            Its descriptor, or None where a server lives. A server that has inherited the descriptor
            keeps the lock when it is closed here.
        """
        with self._open(self.lock) as lock:
            yield lock if try_lock(lock) else None

    @contextmanager
    def _open(self, path: Path) -> Iterator[int]:
        """Open a file to lock.

        A forked child gives the descriptor up: otherwise the lock would last as long as the child.
        """
        with self.naming_path():
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        with silence_in_children(descriptor):
            try:
                yield descriptor
            finally:
                os.close(descriptor)


def ensure_private(path: Path) -> None:
    """Remove the rights of group and others from a data directory.

    Its files contain every payload, and who can reach its socket can use the store. A directory
    that is used for something else is refused, not changed.

    Args:
        path: The directory; it exists.

    Raises:
        ConfigurationError: Other users have rights in it, and it belongs to another user, or
            contains files that are not Corral's, or its file system has no such rights.
        OSError: It cannot be read.
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
        f"the data directory {str(path)!r} is open to other users "
        f"(mode {stat.S_IMODE(found.st_mode):04o})",
        hint="chmod 700 it if it is for Corral alone, "
        "or set CORRAL_DATA_DIR to a directory of its own",
    )


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Try to lock a descriptor, without waiting.

    Args:
        descriptor: An open file.
        shared: Whether other processes may hold the lock at the same time, shared as well.

    Returns:
        Whether this process holds the lock now.
    """
    import fcntl  # noqa: PLC0415  # Windows has none, and a producer there loads this module

    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
