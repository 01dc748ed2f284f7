"""What a user gets: the core and a plugin as wheels, in an environment that has nothing else, far from the checkout.

`tox -e wheels` runs this. Each test uses the installed command as a user does.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest


def test_an_installed_plugin_is_in_the_catalog_and_an_uninstalled_one_is_not(clean, wheels: dict[str, Path]) -> None:
    clean.pip("install", wheels["corral"], wheels["corral-emails"])
    told = json.loads(clean.corral("check", "--json").stdout)
    assert told["ok"] is True
    (queue,) = told["queues"]
    assert (queue["name"], queue["distribution"]) == ("emails", "corral-emails")
    assert queue["version"] == wheels["corral-emails"].name.split("-")[1]
    assert "wheel" in queue["origin"]
    shown = clean.corral("check").stdout
    assert "corral-emails" in shown
    assert "catalog is open: no corral.lock" in shown

    clean.pip("uninstall", "corral-emails")
    assert json.loads(clean.corral("check", "--json").stdout) == {"ok": True, "queues": [], "problems": []}


@pytest.mark.parametrize(
    ("plugin", "pydantic", "missing"),
    [
        ("corral-emails", "pydantic[email]", "No module named"),
        ("corral-usage-period-rollover", "pydantic", "pip install 'corral[sql]'"),
    ],
)
def test_a_producer_needs_the_declaration_and_none_of_what_processing_needs(
    clean, wheels: dict[str, Path], plugin: str, pydantic: str, missing: str
) -> None:
    """pydantic's extra for e-mail addresses belongs to the payload; mail client, templates and database do not."""
    clean.pip("install", wheels["corral"], pydantic)
    clean.pip("install", "--no-deps", wheels[plugin])
    clean.corral("check", "--producer")
    refused = clean.corral("check", check=False)
    assert refused.returncode == 3
    assert plugin in refused.stderr
    assert missing in refused.stderr


def test_the_core_s_wheel_holds_the_scripts_and_its_types_and_no_tests(wheels: dict[str, Path]) -> None:
    names = zipfile.ZipFile(wheels["corral"]).namelist()
    top = {name.split("/")[0] for name in names}
    assert {"corral/py.typed", "corral/store/lua/advance.lua", "corral/cli/__init__.py"} <= set(names)
    assert {name for name in top if not name.endswith(".dist-info")} == {"corral"}
