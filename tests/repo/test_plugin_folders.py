"""One word, five spellings: folder, distribution, package, entry point and environment of a plugin
follow its queue.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = [
    *sorted(
        path
        for path in (ROOT / "plugins").iterdir()
        if path.is_dir() and not path.name.startswith(".")
    ),
    *sorted((ROOT / "examples").glob("corral-*")),
]
KEBAB_CASE = re.compile(r"corral-[a-z0-9]+(-[a-z0-9]+)*")

every_plugin = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def test_there_are_plugins_to_look_at() -> None:
    assert FOLDERS


@every_plugin
def test_the_five_spellings_agree(folder: Path) -> None:
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    package = folder.name.replace("-", "_")
    assert KEBAB_CASE.fullmatch(folder.name)
    assert project["name"] == folder.name
    assert [path.name for path in (folder / "src").iterdir() if path.suffix != ".egg-info"] == [
        package
    ]
    assert project["entry-points"]["corral.queues"] == {
        folder.name.removeprefix("corral-"): package
    }


@every_plugin
@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "tests"])
def test_a_plugin_has_what_a_distribution_needs(folder: Path, name: str) -> None:
    found = folder / name
    assert any(found.glob("test_*.py")) if name == "tests" else found.read_text("utf-8").strip()


@every_plugin
def test_a_plugin_is_typed_and_says_what_it_needs(folder: Path) -> None:
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
    assert (folder / "src" / folder.name.replace("-", "_") / "py.typed").is_file()
    assert any(re.match(r"corral\b(?!-)", needed) for needed in project["dependencies"])
    assert project["requires-python"] == ">=3.11"
    assert project["license"] == "MIT"


@every_plugin
def test_a_queue_is_two_files_and_its_declaration_is_short(folder: Path) -> None:
    """At most 35 lines beside the real work; the declaration is what a producer loads, and all of
    it counts.
    """
    declaration = folder / "src" / folder.name.replace("-", "_") / "__init__.py"
    assert "corral_queues" in declaration.read_text("utf-8")
    assert (declaration.parent / "processor.py").is_file()
