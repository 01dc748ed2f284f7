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

DECLARING = re.compile(r"pydantic\b(?!-).*")
"""What of a plugin's requirements its declaration may need: pydantic, with an extra for a type of
its payload.
"""


def test_a_plugin_alone_with_the_core_is_in_the_catalog_until_it_is_uninstalled(
    clean: Any, wheels: dict[str, Path], plugin: str
) -> None:
    clean.pip("install", wheels["corral"], wheels[plugin])
    told = json.loads(clean.corral("check", "--json").stdout)
    assert told["ok"] is True
    (queue,) = told["queues"]
    assert (queue["name"], queue["distribution"]) == (plugin.removeprefix("corral-"), plugin)
    assert queue["version"] == wheels[plugin].name.split("-")[1]
    assert "wheel" in queue["origin"]

    clean.pip("uninstall", plugin)
    assert json.loads(clean.corral("check", "--json").stdout) == {
        "ok": True,
        "queues": [],
        "problems": [],
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
    """What a wheel says of itself."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


def test_the_core_s_wheel_holds_the_scripts_and_its_types_and_no_tests(
    wheels: dict[str, Path],
) -> None:
    names = zipfile.ZipFile(wheels["corral"]).namelist()
    top = {name.split("/")[0] for name in names}
    assert {"corral/py.typed", "corral/store/lua/advance.lua", "corral/cli/__init__.py"} <= set(
        names
    )
    assert {name for name in top if not name.endswith(".dist-info")} == {"corral"}
