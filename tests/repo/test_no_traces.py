"""Nothing of the machine it was written on: no path of a home, no host that packages came from."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

SOMEBODYS_PATH = re.compile(r"(?<![\w.}*:])/(?:root|work|Users/\w+|home/\w+)/")
HOST_IN_A_LOCK_FILE = re.compile(r"https?://")


def text_of(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        return None


def test_no_file_names_a_path_of_somebodys_machine(written: tuple[Path, ...], root: Path) -> None:
    found = [str(path.relative_to(root)) for path in written if (text := text_of(path)) and SOMEBODYS_PATH.search(text)]
    assert found == []


def test_lock_files_name_no_host(written: tuple[Path, ...], root: Path) -> None:
    """Whoever installs says where from; a host in a lock file overrules that, and is often one nobody else reaches."""
    locks = [path for path in written if path.name in {"package-lock.json", "uv.lock"}]
    if not locks:
        pytest.fail("no lock file found: npm's is part of the tree")
    for lock in locks:
        resolved = re.findall(r'"resolved":\s*"([^"]+)"|registry = "([^"]+)"', lock.read_text("utf-8"))
        assert resolved == [], lock.relative_to(root)


def test_npm_installs_what_the_lock_file_says(root: Path) -> None:
    """`npm ci` refuses a lock file that does not match; this says so before anything is downloaded."""
    folder = root / "tests" / "node"
    wanted = json.loads((folder / "package.json").read_text("utf-8"))
    locked = json.loads((folder / "package-lock.json").read_text("utf-8"))["packages"]
    assert locked[""]["dependencies"] == wanted["dependencies"]
    for name, version in wanted["dependencies"].items():
        assert locked[f"node_modules/{name}"]["version"] == version
