"""`corral_settings`: what every start, and `corral check`, refuse of a plugin's variables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PLUGIN = """
from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from corral import Payload, PluginSettings, Queue, hookimpl


class Parcel(Payload):
    to: str


parcels = Queue("late-parcels", Parcel)


class ParcelSettings(PluginSettings):
    model_config = SettingsConfigDict(env_prefix="CORRAL_LATE_PARCELS_")

    host: str
    weight: Annotated[int, Field(gt=0)] = 1
    password: SecretStr | None = None


@hookimpl
def corral_queues():
    return [parcels]


@hookimpl
def corral_processors():
    return [parcels.processed_by(lambda job: None)]


@hookimpl
def corral_settings():
    return [DECLARED]
"""
Ran = subprocess.CompletedProcess[str]
Check = Callable[..., tuple[int, str]]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Ran]:
    """`run("check", CORRAL_X="1")`: a command where the plugin is installed."""

    def run(*arguments: str, declared: str = "ParcelSettings", **environ: str) -> Ran:
        (tmp_path / "late_parcels.py").write_text(PLUGIN.replace("DECLARED", declared))
        metadata = tmp_path / "late_parcels-1.0.dist-info"
        metadata.mkdir(exist_ok=True)
        (metadata / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: late-parcels\nVersion: 1.0\n"
        )
        (metadata / "entry_points.txt").write_text("[corral.queues]\nlate-parcels = late_parcels\n")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("CORRAL_", "REDIS_URL"))}
        return subprocess.run(
            [sys.executable, "-m", "corral", *arguments],
            env={**kept, "PYTHONPATH": str(tmp_path), **environ},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def check(run: Callable[..., Ran]) -> Check:
    """`check(CORRAL_X="1")`: the exit code and the errors of `corral check`, or of a command."""

    def check(*arguments: str, **environ: str) -> tuple[int, str]:
        ended = run(*(arguments or ("check",)), **environ)
        return ended.returncode, ended.stderr

    return check


def test_a_misspelt_variable_refuses_the_check_and_every_other_start(check: Check) -> None:
    sentence = (
        "CORRAL_LATE_PARCELS_POST_HOTS is not a setting; did you mean CORRAL_LATE_PARCELS_HOST?"
    )
    for arguments in (("check",), ("check", "--producer"), ("enqueue", "late-parcels", "{}")):
        code, errors = check(*arguments, CORRAL_LATE_PARCELS_POST_HOTS="x")
        assert (code, errors) == (2, f"error: {sentence}\n"), arguments


def test_the_check_judges_values_and_files_and_shows_neither(check: Check, tmp_path: Path) -> None:
    code, errors = check(
        CORRAL_LATE_PARCELS_WEIGHT="hunter2",
        CORRAL_LATE_PARCELS_PASSWORD_FILE=str(tmp_path / "missing"),
    )
    assert code == 2
    assert "CORRAL_LATE_PARCELS_WEIGHT: input should be a valid integer" in errors
    assert "CORRAL_LATE_PARCELS_PASSWORD_FILE: the file" in errors
    assert "hunter2" not in errors
    assert check("check", "--producer", CORRAL_LATE_PARCELS_WEIGHT="hunter2")[0] == 0


def test_a_required_setting_that_is_missing_does_not_fail_the_check(check: Check) -> None:
    assert check()[0] == 0


def test_what_is_no_plugin_settings_is_a_problem_of_its_plugin(check: Check) -> None:
    code, errors = check(declared="int")
    assert code == 3
    assert "late-parcels 1.0 returned int in the list from corral_settings" in errors


def test_plugins_names_the_package_whose_settings_cannot_be_read(run: Callable[..., Ran]) -> None:
    misspelt = (
        "late-parcels 1.0 cannot read its settings: CORRAL_LATE_PARCELS_POST_HOTS is not a setting;"
        " did you mean CORRAL_LATE_PARCELS_HOST?"
    )
    unusable = "late-parcels 1.0 cannot read its settings: CORRAL_LATE_PARCELS_WEIGHT: input should"
    wrong = {"CORRAL_LATE_PARCELS_POST_HOTS": "x", "CORRAL_LATE_PARCELS_WEIGHT": "hunter2"}
    listed = run("plugins", "--json", **wrong)
    (row,) = [each for each in json.loads(listed.stdout) if each["name"] == "late-parcels"]
    assert (listed.returncode, row["state"], listed.stderr) == (0, "failed", "")
    assert row["reason"].startswith(f"{misspelt}; {unusable}")
    shown = run("plugins", **wrong)
    assert (shown.returncode, "hunter2" in shown.stdout + shown.stderr) == (0, False)
    first, second = shown.stderr.splitlines()
    assert first == f"error: {misspelt}"
    assert second.startswith(f"error: {unusable}")


def test_plugins_names_the_package_that_declares_no_settings(run: Callable[..., Ran]) -> None:
    listed = run("plugins", "--json", declared="int")
    (row,) = [each for each in json.loads(listed.stdout) if each["name"] == "late-parcels"]
    assert (row["state"], listed.returncode) == ("failed", 0)
    assert "late-parcels 1.0 returned int in the list from corral_settings" in row["reason"]


def test_plugins_has_no_complaint_about_settings_that_can_be_read(run: Callable[..., Ran]) -> None:
    listed = run("plugins", "--json", CORRAL_LATE_PARCELS_WEIGHT="2")
    (row,) = [each for each in json.loads(listed.stdout) if each["name"] == "late-parcels"]
    assert (row["state"], row["reason"], listed.stderr) == ("loaded", None, "")
    other = run(
        "plugins", "--json", CORRAL_LATE_PARCELS_WEIGHT="no", CORRAL_DISABLED_PLUGINS="late-parcels"
    )
    (row,) = [each for each in json.loads(other.stdout) if each["name"] == "late-parcels"]
    assert row["state"] == "disabled"
