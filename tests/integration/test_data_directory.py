"""What may be in the way in a data directory: stale and frozen servers, foreign locks, missing
rights, long paths.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from corral.embedded import data_directory, server
from corral.embedded.server import attach, embedded_store
from corral.errors import ConfigurationError, StoreUnavailable

HOLDER = """
import fcntl, sys
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


def use(path: Path, how: Callable[..., Any] = embedded_store, **options: Any) -> None:
    with how(path, **options):
        pass


def info(url: str) -> dict[str, Any]:
    with redis.Redis.from_url(url) as store:
        return dict(store.info("server"))


def test_a_stale_socket_is_no_server(data_dir: Path) -> None:
    data_dir.mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(data_dir / "store.sock"))
    with attach(data_dir) as url:
        assert url is None
    with embedded_store(data_dir) as url:
        assert info(url)["process_id"]


def test_a_locked_directory_without_an_answer_is_in_use(
    data_dir: Path, spawn: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server.ANSWER_SECONDS == 5.0
    monkeypatch.setattr(server, "ANSWER_SECONDS", 0.2)
    data_dir.mkdir()
    for name in ("store.lock", "users.lock"):
        (data_dir / name).touch()
    holder = spawn(HOLDER, data_dir / "store.lock")
    assert holder.line() == "locked"
    for how in (embedded_store, attach):
        with pytest.raises(
            StoreUnavailable, match=f"data directory in use: '{data_dir}' is locked"
        ) as refused:
            use(data_dir, how)
        assert refused.value.exit_code == 4
        assert str(data_dir / "store.lock") in str(refused.value.hint)


def test_a_frozen_server_is_in_use_and_goes_on_when_it_thaws(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with embedded_store(data_dir) as url:
        running = info(url)
        with monkeypatch.context() as patience:
            patience.setattr(server, "ANSWER_SECONDS", 0.2)
            patience.setattr(server, "PING_SECONDS", 0.1)
            os.kill(running["process_id"], signal.SIGSTOP)
            try:
                with pytest.raises(StoreUnavailable, match="data directory in use"):
                    use(data_dir)
            finally:
                os.kill(running["process_id"], signal.SIGCONT)
        with attach(data_dir) as again:
            assert again == url
            assert info(again)["run_id"] == running["run_id"]


def test_a_last_user_that_does_not_come_to_an_end_is_waited_for_only_so_long(
    data_dir: Path, spawn: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_directory, "JOIN_SECONDS", 0.2)
    data_dir.mkdir()
    holder = spawn(HOLDER, data_dir / "users.lock")
    assert holder.line() == "locked"
    with pytest.raises(StoreUnavailable, match="data directory in use"), embedded_store(data_dir):
        pass


def test_a_path_that_is_no_directory_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(ConfigurationError) as refused, embedded_store(path):
            pass
        assert str(refused.value).startswith(f"the data directory '{path}' cannot be used: ")
        assert "CORRAL_DATA_DIR" in str(refused.value.hint)


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701, 0o770])
@pytest.mark.parametrize("how", [embedded_store, attach])
def test_a_directory_of_ours_that_others_may_enter_is_made_private(
    data_dir: Path, how: Callable[..., Any], mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    """As `mkdir` makes one, or what is left of an older release's."""
    data_dir.mkdir()
    (data_dir / "store.lock").touch()
    (data_dir / "users.lock").touch()
    data_dir.chmod(mode)
    use(data_dir, how)
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
    assert f"was open to other users (mode 0{mode:o}): it is private now" in caplog.text
    caplog.clear()
    use(data_dir, how)
    assert "open to other users" not in caplog.text


@pytest.mark.parametrize("how", [embedded_store, attach])
def test_a_directory_with_other_uses_that_others_may_enter_is_refused(
    data_dir: Path, how: Callable[..., Any]
) -> None:
    """It may be /srv or a project: to close it would harm its users."""
    data_dir.mkdir()
    (data_dir / "store.lock").touch()
    (data_dir / "users.lock").touch()
    (data_dir / "readme.txt").touch()
    data_dir.chmod(0o755)
    with pytest.raises(
        ConfigurationError, match=r"is open to other users \(mode 0755\)"
    ) as refused:
        use(data_dir, how)
    assert refused.value.exit_code == 2
    assert "CORRAL_DATA_DIR" in str(refused.value.hint)
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o755
    data_dir.chmod(0o700)
    use(data_dir, how)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to another user")
def test_a_directory_of_another_user_that_others_may_enter_is_refused(data_dir: Path) -> None:
    data_dir.mkdir(mode=0o755)
    os.chown(data_dir, 65534, 65534)
    with pytest.raises(ConfigurationError, match="is open to other users"):
        use(data_dir)


def test_what_the_server_writes_is_for_its_user_alone(data_dir: Path) -> None:
    before = os.umask(0)
    try:
        with embedded_store(data_dir) as url, redis.Redis.from_url(url) as store:
            store.set("payload", "secret")
            store.bgrewriteaof()
            written = {
                path: stat.S_IMODE(path.stat().st_mode) for path in [data_dir, *data_dir.rglob("*")]
            }
    finally:
        os.umask(before)
    by_server = {
        path.name: mode for path, mode in written.items() if "aof" in path.name or path.is_socket()
    }
    assert len(by_server) >= 3, written
    assert {name: oct(mode) for name, mode in by_server.items() if mode & 0o077} == {}
    assert written[data_dir] == 0o700


def test_an_unwritable_directory_is_one_sentence(tmp_path: Path) -> None:
    """Root may write everywhere, so root becomes somebody else for a moment."""
    tmp_path.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        with pytest.raises(
            ConfigurationError, match="cannot be used: permission denied"
        ) as refused:
            use(tmp_path / "data")
    finally:
        if root:
            os.seteuid(0)
        tmp_path.chmod(0o755)
    assert refused.value.exit_code == 2


def test_a_long_path_gets_a_private_folder_that_others_find_and_nobody_keeps(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = data_dir / ("deep" * 25)
    with tempfile.TemporaryDirectory(prefix="c") as short:
        monkeypatch.setenv("TMPDIR", short)
        monkeypatch.setattr(tempfile, "tempdir", None)
        with embedded_store(long) as url:
            folder = Path((long / "store.folder").read_text())
            assert folder.parent == Path(short)
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert url == f"unix://{folder}/store.sock"
            with attach(long) as found:
                assert found == url
                assert info(url)["process_id"]
        assert not list(Path(short).iterdir())


def test_a_recorded_folder_that_is_not_private_is_not_trusted(
    data_dir: Path, tmp_path: Path
) -> None:
    """After the temporary directory was cleaned, any user may have made a folder of that name."""
    long = data_dir / ("deep" * 25)
    long.mkdir(parents=True)
    trap = tmp_path / "trap"
    trap.mkdir()
    trap.chmod(0o755)
    (long / "store.folder").write_text(str(trap))
    with embedded_store(long) as url:
        assert str(trap) not in url
    assert trap.exists()


def test_a_path_with_odd_characters_makes_a_url_that_clients_read(data_dir: Path) -> None:
    odd = data_dir / "a b'ü#%41?\"c"
    with embedded_store(odd) as url:
        assert info(url)["process_id"]
    assert (odd / "appendonlydir").is_dir()
