"""No page and no hint installs from an index a name that we have not published.

Another person could claim that name.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PUBLISHED: frozenset[str] = frozenset()
"""Our distributions that are on an index: none yet."""

INSTALLER = re.compile(
    r"(?:pip3?|pipx|uv(?: pip| tool)?|poetry|pdm|conda) (?:install|add|run) ([^\n`]*)|uvx ([^\n`]*)"
)
NAME = re.compile(r"[A-Za-z0-9][\w.-]*?(?=\[|[=<>~!@ ]|$)")


def ours(root: Path) -> set[str]:
    """The names of all distributions of this tree, and of the ones that pages make up."""
    manifests = [
        root / "pyproject.toml",
        *root.glob("plugins/*/pyproject.toml"),
        *root.glob("examples/*/pyproject.toml"),
    ]
    names = {
        tomllib.loads(path.read_text("utf-8"))["project"]["name"]
        for path in manifests
        if path.exists()
    }
    return names | {"acme-reports", "corral-report-exports"}


def named(text: str, names: set[str]) -> list[str]:
    """What of ours the installers' commands in a text take from an index; a path or a URL is none."""
    found: list[str] = []
    for command in INSTALLER.finditer(text):
        words = re.split(r"[`\"\s]+", (command[1] or command[2]).replace("'", " "))
        parts = [NAME.match(word) for word in words]
        found += [part[0] for part in parts if part and part[0] in names - PUBLISHED]
    return found


def test_no_page_and_no_hint_installs_one_of_our_names_from_an_index(
    written: tuple[Path, ...], root: Path
) -> None:
    names = ours(root)
    assert len(names) >= 8
    found = {
        str(path.relative_to(root)): commands
        for path in written
        if path.suffix in {".md", ".py", ".html", ".yml", ".yaml", ".toml", ".ini", ".sh", ""}
        and path != Path(__file__)
        and (commands := named(path.read_text("utf-8"), names))
    }
    assert found == {}


def test_such_a_command_would_be_found() -> None:
    names = {"corral", "corral-emails"}
    wrong = {
        "hint: pip install corral-emails": ["corral-emails"],
        "`pip install 'corral[sql]'`, then": ["corral"],
        "hint=\"pip install -U 'corral[embedded]', or set\": ": ["corral"],
        "$ .venv/bin/pip install corral==0.1.0 uvicorn": ["corral"],
        "uv pip install corral-emails>=1": ["corral-emails"],
        "uv add corral": ["corral"],
        "uvx corral dev": ["corral"],
    }
    assert {text: named(text, names) for text in wrong} == wrong
    right = (
        *(
            "pip install .",
            "pip install '.[embedded]'",
            "pip install . ./plugins/corral-emails",
            "pip install -e ./corral",
        ),
        *(
            'pip install -q "$CORRAL[embedded]" mypy',
            "install the extra 'sql' from where you got corral",
            "uv run tox",
        ),
    )
    assert [text for text in right if named(text, names)] == []


def test_what_is_published_has_an_address(root: Path) -> None:
    """The addresses in our manifests are on a reserved name (RFC 2606) as long as nothing is
    published, and not a day longer.
    """
    manifests = [root / "pyproject.toml", *root.glob("[ep]*/corral-*/pyproject.toml")]
    assert len(manifests) >= 8
    for path in manifests:
        project = tomllib.loads(path.read_text("utf-8"))["project"]
        reserved = [
            address
            for address in project["urls"].values()
            if address.startswith("https://corral.example/")
        ]
        assert bool(reserved) == (project["name"] not in PUBLISHED), path
        assert len(reserved) in {0, len(project["urls"])}, path
