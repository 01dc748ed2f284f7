"""What the rules about this tree look at: the files that a person wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = (".ci", "bench", "core", "deploy", "docs", "examples", "plugins", "tests")
MADE_BY_TOOLS = {".git", "__pycache__", "build", "dist", "node_modules"}


def _by_hand(path: Path) -> bool:
    folders = path.relative_to(ROOT).parts[1:]
    return (
        path.is_file()
        and path.name not in MADE_BY_TOOLS
        and not any(part in MADE_BY_TOOLS or part.startswith(".") for part in folders)
    )


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def written() -> tuple[Path, ...]:
    """Every file written by hand, without asking git: an unpacked archive keeps the same rules."""
    below = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))
    found = sorted(path for path in [*ROOT.glob("*.*"), *below] if _by_hand(path))
    assert len(found) > len(FOLDERS), "the rules below would look at nothing"
    return tuple(found)
