"""`corral_settings`: what every start, and `corral check`, refuse of a plugin's variables."""

from __future__ import annotations

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
Check = Callable[..., tuple[int, str]]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """`check(CORRAL_X="1")`: the exit code and the errors of a command where the plugin is installed."""

    def run(*arguments: str, declared: str = "ParcelSettings", **environ: str) -> tuple[int, str]:
        (tmp_path / "late_parcels.py").write_text(PLUGIN.replace("DECLARED", declared))
        metadata = tmp_path / "late_parcels-1.0.dist-info"
        metadata.mkdir(exist_ok=True)
        (metadata / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: late-parcels\nVersion: 1.0\n"
        )
        (metadata / "entry_points.txt").write_text("[corral.queues]\nlate-parcels = late_parcels\n")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("CORRAL_", "REDIS_URL"))}
        ended = subprocess.run(
            [sys.executable, "-m", "corral", *(arguments or ("check",))],
            env={**kept, "PYTHONPATH": str(tmp_path), **environ},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return ended.returncode, ended.stderr

    return run


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
