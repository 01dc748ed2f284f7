"""A folder of installed distributions, written by hand: metadata and modules as an installer would
leave them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from corral.plugins import Plugins, read_entry_points

HEAD = "from corral import *\nclass P(Payload): pass\n"


@dataclass(frozen=True)
class Site:
    """A folder that Python imports from.

    Attributes:
        folder: The folder.
    """

    folder: Path

    def module(self, name: str, source: str) -> None:
        """Write a module that has the names of `corral` and a payload class `P`."""
        (self.folder / f"{name}.py").write_text(HEAD + source, "utf-8")

    def install(
        self, distribution: str, *points: str, group: str = "corral.queues", version: str = "1.0"
    ) -> Path:
        """Write a distribution's metadata.

        Args:
            distribution: Its name.
            points: Its entry points, as `name = module`.
            group: Their group.
            version: Its version.

        Returns:
            Its dist-info folder.
        """
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n", "utf-8"
        )
        (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *points, ""]), "utf-8")
        return info

    def load(self, **options: Any) -> Plugins:
        """Load what is installed here, and nothing else."""
        return Plugins.load(read_entry_points([str(self.folder)]), **options)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An empty folder of installed distributions; what is imported from it is forgotten afterwards.

    So are the modules of other tests' applications, which may have the same names.
    """
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    for name in [name for name in sys.modules if name.partition("_")[0] == "acme"]:
        monkeypatch.delitem(sys.modules, name)
    before = set(sys.modules)
    yield Site(folder)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture
def codes() -> Callable[[Plugins], list[str]]:
    """`codes(plugins)`: the codes of what is wrong so far."""
    return lambda plugins: [problem.code for problem in plugins.report.problems]
