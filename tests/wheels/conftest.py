"""Wheels of this tree, and environments that have nothing else."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGINS = {
    project.parent.name: project.parent
    for above in ("plugins", "examples")
    for project in sorted((ROOT / above).glob("corral-*/pyproject.toml"))
}
"""The folders of all plugins, by the names of their distributions."""
KEPT = ("HOME", "PATH", "PIP_", "SSL_CERT_FILE", "TMPDIR", "UV_", "XDG_CACHE_HOME")


def environ() -> dict[str, str]:
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
            command,
            cwd=self.folder,
            env=environ(),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
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
        return subprocess.Popen(command, cwd=self.folder, env=environ(), stderr=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def bare_environ() -> dict[str, str]:
    """What a process of a test is given, where it is started otherwise."""
    return environ()


@pytest.fixture
def clean(tmp_path: Path) -> Environment:
    """An environment without a single distribution."""
    made = Environment(tmp_path)
    made.run("uv", "venv", "--quiet", ".venv")
    return made


class Wheels(dict[str, Path]):
    """Wheels by the names of their distributions, each built from the tree when it is first asked
    for.

    Args:
        out: Where they are put.
    """

    def __init__(self, out: Path) -> None:
        super().__init__()
        self._out = out

    def __missing__(self, name: str) -> Path:
        own = self._out / name
        own.mkdir()
        source = ROOT if name == "corral" else PLUGINS[name]
        Environment(own).run("uv", "build", "--wheel", "--no-sources", "--out-dir", own, source)
        (self[name],) = own.glob("*.whl")
        return self[name]


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Wheels:
    """The wheels of the core and of every plugin."""
    return Wheels(tmp_path_factory.mktemp("wheels"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes a `plugin` is run for each that there is: `plugins/` is looked through,
    nothing is listed.
    """
    if "plugin" in metafunc.fixturenames:
        assert PLUGINS
        metafunc.parametrize("plugin", PLUGINS)
