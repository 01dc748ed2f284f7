"""The tiny distributions of this folder, built and installed once, and catalogs built of any choice
of them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from importlib_metadata import Distribution

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one folder per distribution, each as an installer leaves it; `application` is a
    mere folder, and `acme-shared` has two distributions with one file.
    """
    together, apart = tmp_path_factory.mktemp("together"), tmp_path_factory.mktemp("apart")
    sources = sorted(project.parent for project in HERE.glob("*/pyproject.toml"))
    command = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "install",
        "--quiet",
        "--offline",
        "--no-deps",
        "--no-build-isolation",
    ]
    cache = tmp_path_factory.mktemp("cache")  # uv's own would not notice that a module has changed
    command += ["--cache-dir", str(cache)]
    sharing = [each for each in sources if each.name.startswith("acme-shared-")]
    others = [each for each in sources if each not in sharing]
    subprocess.run([*command, "--target", together, *others], check=True, timeout=120)
    # one after the other into one folder, as into a site-packages
    for each in sharing:
        subprocess.run([*command, "--target", apart / "acme-shared", each], check=True, timeout=120)
    for distribution in Distribution.discover(path=[str(together)]):
        own = apart / distribution.name
        for file in distribution.files or ():
            (own / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(together / file, own / file)
    (apart / "acme-broken-metadata" / "acme_broken_metadata-0.1.0.dist-info" / "METADATA").unlink()
    shutil.copytree(HERE / "application", apart / "application")
    return apart


@dataclass(frozen=True)
class Builder:
    """Builds catalogs in fresh processes.

    Attributes:
        installed: Where the distributions are.
        probe: The running `probe.py`.
    """

    installed: Path
    probe: subprocess.Popen[str]

    def build(
        self,
        *distributions: str,
        role: str = "check",
        serves: list[str] | None = None,
        lock: Path | None = None,
        application: str | None = None,
        disabled: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        """Build a catalog in a process in which exactly these distributions are installed."""
        request = {
            "path": [str(self.installed / name) for name in distributions],
            "role": role,
            "serves": serves,
            "lock": lock and str(lock),
            "application": application,
            "disabled": disabled,
        }
        assert all(map(Path.is_dir, map(Path, request["path"])))
        assert self.probe.stdin
        assert self.probe.stdout
        self.probe.stdin.write(json.dumps(request) + "\n")
        self.probe.stdin.flush()
        result: dict[str, Any] = json.loads(self.probe.stdout.readline())
        assert "died" not in result, result
        return result


@pytest.fixture(scope="session")
def catalogs(installed: Path) -> Iterator[Builder]:
    """`catalogs.build("acme-mail", role="producer")`."""
    command = [sys.executable, "-W", "error", HERE / "probe.py"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as probe:
        yield Builder(installed, probe)
        assert probe.stdin
        probe.stdin.close()
        probe.wait(timeout=10)
