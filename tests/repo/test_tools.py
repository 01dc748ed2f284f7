"""The tools say why: a reason beside everything that is ignored, a description on every
environment.
"""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

SWITCHED_OFF = re.compile(
    r"#\s*(?:noqa|type:\s*ignore|pyright:)(?P<codes>[^#]*?)(?P<reason>\s(?:#|-)\s.*\w.*)?$"
)


def test_every_rule_that_is_ignored_has_its_reason_beside_it(root: Path) -> None:
    text = (root / "pyproject.toml").read_text("utf-8")
    ignored = text.split("\nignore = [\n")[1].split("\n]")[0].splitlines()
    per_file = text.split("[tool.ruff.lint.per-file-ignores]\n")[1].split("\n\n")[0].splitlines()
    assert len(ignored) > 1
    assert unexplained(ignored) == []
    assert unexplained(per_file) == []


def unexplained(lines: list[str]) -> list[str]:
    """The lines without a comment behind them or, as a line of its own, above them."""
    above = ["", *lines]
    return [
        line
        for line, before in zip(lines, above, strict=False)
        if "# " not in line and before[:2] != "# "
    ]


def test_every_line_that_silences_a_checker_says_why(written: tuple[Path, ...], root: Path) -> None:
    """`# noqa: BLE001  # a plugin may raise anything`: the codes, then the reason."""
    silent = [
        f"{path.relative_to(root)}:{number}: {line.strip()}"
        for path in written
        if path.suffix == ".py" and path != Path(__file__)
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if (found := SWITCHED_OFF.search(line)) and not found["reason"]
    ]
    assert not silent, "\n".join(["", *silent])


def test_every_environment_of_tox_ini_has_a_description(root: Path) -> None:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(root / "tox.ini", encoding="utf-8")
    environments = [name for name in tox.sections() if name.startswith("testenv:")]
    assert {"testenv:lint", "testenv:demo", "testenv:bench"} <= set(environments)
    assert [name for name in environments if not tox[name].get("description", "").strip()] == []


def test_a_plugin_s_folder_has_its_environment_without_being_listed(
    root: Path, tmp_path: Path
) -> None:
    for name in ("tox.ini", "toxfile.py"):
        shutil.copy(root / name, tmp_path)
    for place in (
        "plugins/corral-parcels",
        "plugins/corral-late-fees",
        "examples/corral-teas",
        "examples/shop",
    ):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        (folder / "pyproject.toml").write_text(
            f'[project]\nname = "{folder.name}"\nversion = "1"\n', "utf-8"
        )
    (tmp_path / "plugins" / "notes").mkdir()

    bare_tox = tox(tmp_path, "list").split("additional environments:")[0]
    plugins = [line.split("->") for line in bare_tox.splitlines() if line.startswith("plugin-")]
    assert [name.strip() for name, _ in plugins] == [
        "plugin-late-fees",
        "plugin-parcels",
        "plugin-teas",
    ]
    assert all("own tests" in description for _, description in plugins)
    installed = tox(tmp_path, "config", "-e", "dev", "-k", "commands")
    assert "corral-parcels" in installed
    assert "corral-teas" not in installed, "an example is somebody else's"


def tox(folder: Path, *arguments: str) -> str:
    """What tox prints in a folder."""
    command = [sys.executable, "-m", "tox", *arguments]
    own = {"PATH": os.environ["PATH"]}
    return subprocess.run(
        command, cwd=folder, env=own, capture_output=True, text=True, check=True, timeout=60
    ).stdout


def test_the_script_of_the_ci_can_be_started(root: Path) -> None:
    script = root / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text("utf-8").splitlines()[0] == "#!/usr/bin/env bash"
