"""What a user gets: the core and a plugin as wheels, in an environment that has nothing else, far from the checkout.

`tox -e wheels` runs this. Each test uses the installed command as a user does.
"""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DISTRIBUTIONS = {"corral": ROOT, "corral-emails": ROOT / "plugins" / "corral-emails"}


def run(*command: str | Path, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command with an environment that knows nothing of the checkout or of the caller's settings."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PATH", "HOME", "UV_", "SSL_"))}
    ended = subprocess.run(command, cwd=cwd, env=kept, capture_output=True, text=True, check=False, timeout=120)
    assert not check or ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"
    return ended


@dataclass(frozen=True)
class Environment:
    """A virtual environment of its own.

    Attributes:
        folder: Where it is; commands run in it, and it holds nothing of ours.
    """

    folder: Path

    def install(self, *what: str | Path) -> None:
        run("uv", "pip", "install", "--python", self.folder / "bin" / "python", *what, cwd=self.folder)

    def uninstall(self, name: str) -> None:
        run("uv", "pip", "uninstall", "--python", self.folder / "bin" / "python", name, cwd=self.folder)

    def corral(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run(self.folder / "bin" / "corral", *arguments, cwd=self.folder, check=check)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One wheel per distribution, built from the tree."""
    built = {}
    for name, folder in DISTRIBUTIONS.items():
        out = tmp_path_factory.mktemp(name)
        run("uv", "build", "--wheel", "--no-sources", "--out-dir", out, folder, cwd=out)
        (built[name],) = out.glob("*.whl")
    return built


@pytest.fixture
def clean(tmp_path: Path) -> Environment:
    """An environment without a single distribution."""
    run("uv", "venv", "--quiet", tmp_path / "clean", cwd=tmp_path)
    return Environment(tmp_path / "clean")


def test_an_installed_plugin_is_in_the_catalog_and_an_uninstalled_one_is_not(
    clean: Environment, wheels: dict[str, Path]
) -> None:
    clean.install(*wheels.values())
    told = json.loads(clean.corral("check", "--json").stdout)
    assert told["ok"] is True
    (queue,) = told["queues"]
    assert (queue["name"], queue["distribution"]) == ("emails", "corral-emails")
    assert queue["version"] == wheels["corral-emails"].name.split("-")[1]
    assert "wheel" in queue["origin"]
    shown = clean.corral("check")
    assert "emails" in shown.stdout
    assert "catalog is open: no corral.lock" in shown.stdout + shown.stderr

    clean.uninstall("corral-emails")
    assert json.loads(clean.corral("check", "--json").stdout)["queues"] == []


def test_a_producer_needs_the_declaration_and_none_of_what_processing_needs(
    clean: Environment, wheels: dict[str, Path]
) -> None:
    """pydantic's extra for e-mail addresses belongs to the payload; the mail client and the templates do not."""
    clean.install(wheels["corral"], "email-validator")
    clean.install("--no-deps", wheels["corral-emails"])
    clean.corral("check", "--producer")
    refused = clean.corral("check", check=False)
    assert refused.returncode == 3
    assert "corral-emails" in refused.stderr


def test_the_core_s_wheel_holds_the_scripts_and_its_types_and_no_tests(wheels: dict[str, Path]) -> None:
    names = zipfile.ZipFile(wheels["corral"]).namelist()
    top = {name.split("/")[0] for name in names}
    assert {"corral/py.typed", "corral/store/lua/advance.lua", "corral/cli/__init__.py"} <= set(names)
    assert {name for name in top if not name.endswith(".dist-info")} == {"corral"}
