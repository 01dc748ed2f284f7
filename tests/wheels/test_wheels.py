"""What a user gets: the core and each plugin as wheels, in an environment that has nothing else,
far from the checkout.

`tox -e wheels` runs this. Each test uses the installed command as a user does.
"""

from __future__ import annotations

import json
import re
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
ALL = ["corral", *(path.parent.name for path in sorted(ROOT.glob("[ep]*/corral-*/pyproject.toml")))]
"""The distributions of this tree."""

DECLARING = re.compile(r"pydantic\b(?!-).*")
"""What of a plugin's requirements its declaration may need: pydantic, with an extra for a type of
its payload.
"""


def test_a_plugin_alone_with_the_core_is_in_the_catalog_until_it_is_uninstalled(
    clean: Any, wheels: dict[str, Path], plugin: str
) -> None:
    clean.pip("install", wheels["corral"], wheels[plugin])
    report = json.loads(clean.corral("check", "--json").stdout)
    assert report["ok"] is True
    (queue,) = report["queues"]
    assert (queue["name"], queue["distribution"]) == (plugin.removeprefix("corral-"), plugin)
    assert queue["version"] == wheels[plugin].name.split("-")[1]
    assert "wheel" in queue["origin"]

    clean.pip("uninstall", plugin)
    assert json.loads(clean.corral("check", "--json").stdout) == {
        "ok": True,
        "queues": [],
        "problems": [],
        "warnings": [],
        "not_installed": [],
    }


def test_a_producer_needs_the_declaration_and_none_of_what_processing_needs(
    clean: Any, wheels: dict[str, Path], plugin: str
) -> None:
    """pydantic's extra for e-mail addresses belongs to a payload; mail client, templates and
    database do not.
    """
    requirements = metadata(wheels[plugin]).get_all("Requires-Dist")
    clean.pip("install", wheels["corral"], *filter(DECLARING.fullmatch, requirements))
    clean.pip("install", "--no-deps", wheels[plugin])
    (queue,) = json.loads(clean.corral("check", "--producer", "--json").stdout)["queues"]
    assert queue["name"] == plugin.removeprefix("corral-")
    refused = clean.corral("check", check=False)
    assert refused.returncode == 3, "there is something that only the processor needs"
    assert plugin in refused.stderr
    assert re.search(r"No module named|install the extra '", refused.stderr)


def metadata(wheel: Path) -> Message:
    """The metadata of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


@pytest.mark.parametrize("name", ALL)
def test_a_wheel_has_its_licence_its_addresses_and_its_pythons(
    wheels: dict[str, Path], name: str
) -> None:
    read = metadata(wheels[name])
    assert read["License-Expression"] == "MIT"
    assert read.get_all("License-File") == ["LICENSE"]
    with zipfile.ZipFile(wheels[name]) as archive:
        (licence,) = (path for path in archive.namelist() if path.endswith("/licenses/LICENSE"))
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
    addresses = dict(line.split(", ") for line in read.get_all("Project-URL"))
    assert {"Changelog", "Repository"} <= addresses.keys()
    assert all(address.startswith("https://") for address in addresses.values())
    classifiers = read.get_all("Classifier")
    assert f"Programming Language :: Python :: {read['Requires-Python'].removeprefix('>=')}" in (
        classifiers
    )
    assert {"Programming Language :: Python :: 3 :: Only", "Typing :: Typed"} <= set(classifiers)


@pytest.mark.parametrize("name", ALL)
def test_the_page_of_a_wheel_has_no_link_into_the_repository(
    wheels: dict[str, Path], name: str
) -> None:
    """An index shows the README alone: a link is absolute, or leads to a heading of the page."""
    page = index_page(wheels[name])
    targets = re.findall(r"\]\(([^)\s]+)", page)
    assert [each for each in targets if not each.startswith(("https://", "#"))] == []
    if page.strip():
        folder = ROOT if name == "corral" else next(ROOT.glob(f"[ep]*/{name}"))
        words = re.sub(r"\]\([^)\s]+\)|[\[\]]", "", (folder / "README.md").read_text("utf-8"))
        assert re.sub(r"\]\([^)\s]+\)|[\[\]]", "", page).split() == words.split()


def test_the_pages_that_an_index_shows_are_the_core_s_and_the_plugins(
    wheels: dict[str, Path],
) -> None:
    without = [name for name in ALL if not index_page(wheels[name]).strip()]
    assert without == ["corral-report-exports"], "a tutorial's package has no page on an index"


def test_everything_is_what_a_running_system_may_need_and_no_test_tool(
    wheels: dict[str, Path],
) -> None:
    read = metadata(wheels["corral"])
    needed: dict[str, set[str]] = {extra: set() for extra in read.get_all("Provides-Extra")}
    for line in read.get_all("Requires-Dist"):
        requirement, _, extra = line.partition("; extra == ")
        if extra:
            needed[extra.strip("'\"")].add(requirement)
    everything, testing = needed.pop("all"), needed.pop("testing")
    assert everything == set().union(*needed.values())
    assert {re.split(r"[<>=]", each)[0] for each in testing - everything} == {"pytest"}


def index_page(wheel: Path) -> str:
    """What an index shows of a wheel."""
    page = metadata(wheel).get_payload(decode=True)
    assert isinstance(page, bytes)
    return page.decode("utf-8")


def test_the_core_s_wheel_holds_the_scripts_and_its_types_and_no_tests(
    wheels: dict[str, Path],
) -> None:
    names = zipfile.ZipFile(wheels["corral"]).namelist()
    top = {name.split("/")[0] for name in names}
    assert {"corral/py.typed", "corral/store/lua/advance.lua", "corral/cli/__init__.py"} <= set(
        names
    )
    assert {name for name in top if not name.endswith(".dist-info")} == {"corral"}
