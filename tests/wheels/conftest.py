"""Wheels of this tree, and environments that have nothing else."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGINS = ("corral-emails", "corral-usage-period-rollover")
DISTRIBUTIONS = {"corral": ROOT, **{name: ROOT / "plugins" / name for name in PLUGINS}}
KEPT = ("HOME", "PATH", "SSL_CERT_FILE", "TMPDIR", "UV_", "XDG_CACHE_HOME")


def bare_environ() -> dict[str, str]:
    """An environment that knows nothing of the checkout, or of the caller's settings."""
    return {name: value for name, value in os.environ.items() if name.startswith(KEPT)}


@dataclass(frozen=True)
class Environment:
    """A virtual environment `.venv` in a folder that holds nothing of ours, where its commands run.

    Attributes:
        folder: The folder.
    """

    folder: Path

    def run(self, *command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        ended = subprocess.run(
            command, cwd=self.folder, env=bare_environ(), capture_output=True, text=True, check=False, timeout=120
        )
        assert not check or ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"
        return ended

    def pip(self, action: str, *what: str | Path) -> None:
        """Install or uninstall."""
        self.run("uv", "pip", action, "--python", self.folder / ".venv" / "bin" / "python", *what)

    def corral(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the installed command."""
        return self.run(self.folder / ".venv" / "bin" / "corral", *arguments, check=check)

    def start(self, *command: str | Path) -> subprocess.Popen[bytes]:
        """Start a command that stays; its log is lost, its exit code is not."""
        return subprocess.Popen(command, cwd=self.folder, env=bare_environ(), stderr=subprocess.DEVNULL)


@pytest.fixture
def clean(tmp_path: Path) -> Environment:
    """An environment without a single distribution."""
    made = Environment(tmp_path)
    made.run("uv", "venv", "--quiet", ".venv")
    return made


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One wheel per distribution, built from the tree."""
    built = {}
    for name, folder in DISTRIBUTIONS.items():
        out = tmp_path_factory.mktemp(name)
        Environment(out).run("uv", "build", "--wheel", "--no-sources", "--out-dir", out, folder)
        (built[name],) = out.glob("*.whl")
    return built
