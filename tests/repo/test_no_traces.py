"""Nothing of the machine it was written on: no path of a home, no host that packages came from."""

from __future__ import annotations

import json
import re
from pathlib import Path

SOMEBODYS_PATH = re.compile(r"(?<![\w.}*:])/(?:root|work|Users/\w+|home/\w+)/")
PACKAGE_HOST = re.compile(r"//[\w.-]*(?:pypi|pythonhosted|npmjs|npmmirror)\.")


def text_of(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace")


def test_no_file_names_a_path_of_somebodys_machine(written: tuple[Path, ...], root: Path) -> None:
    found = [
        str(path.relative_to(root)) for path in written if SOMEBODYS_PATH.search(text_of(path))
    ]
    assert found == []


def test_no_file_names_a_host_that_packages_come_from(
    written: tuple[Path, ...], root: Path
) -> None:
    """The person who installs chooses the index; a host in a lock file overrules that, and is often one
    nobody else reaches.
    """
    found = [str(path.relative_to(root)) for path in written if PACKAGE_HOST.search(text_of(path))]
    assert found == []


def test_npm_installs_what_the_lock_file_says(root: Path) -> None:
    """`npm ci` refuses a lock file that does not match; this says so before anything is downloaded."""
    folder = root / "tests" / "node"
    wanted = json.loads((folder / "package.json").read_text("utf-8"))
    locked = json.loads((folder / "package-lock.json").read_text("utf-8"))["packages"]
    assert locked[""]["dependencies"] == wanted["dependencies"]
    for name, version in wanted["dependencies"].items():
        assert (
            locked[f"node_modules/{name}"]["version"] == version.rpartition("@")[2]
        )  # of npm:bullmq@5.81.5, the end
