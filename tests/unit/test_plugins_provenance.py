"""Where plugins' code comes from: shadowed, overwritten and shared modules; unreadable metadata."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from corral.app.installed import log_plugin_warnings
from corral.plugins import PluginEntryPoint, loading, read_entry_points
from corral.plugins.provenance import (
    find_overwritten_modules,
    find_shadowed_modules,
    find_unreadable_entry_points,
)

QUEUE = "@hookimpl\ndef corral_queues(): return [Queue('{}', P)]"


@pytest.fixture(autouse=True)
def _forget_modules() -> Iterator[None]:
    """Forget what was imported from other folders than the site."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("acme"):
            del sys.modules[name]


def record(info: Path, *files: str) -> None:
    """Write what an installer has installed."""
    (info / "RECORD").write_text("".join(f"{file},sha256=x,1\n" for file in files), "utf-8")


def editable(info: Path, root: Path, *, pth: Path | None = None) -> None:
    """Make a distribution an editable one, as hatchling does where `pth` is given."""
    origin = {"url": root.as_uri(), "dir_info": {"editable": True}}
    (info / "direct_url.json").write_text(json.dumps(origin), "utf-8")
    if pth is None:
        record(info, f"{info.name}/METADATA")
    else:
        (info.parent / "_acme.pth").write_text(f"# ours\nimport sys\n{pth}\n", "utf-8")
        record(info, "_acme.pth")


def shadowed(site: Any) -> list[str]:
    """The warnings about the plugins of a site, after they were imported."""
    plugins = site.load()
    return [*find_shadowed_modules(each for one in plugins.loaded for each in one.entry_points)]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: Any) -> Path:
    """A folder with the module `acme_jobs` that comes before the site on Python's path."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    type(site)(folder).module("acme_jobs", QUEUE.format("jobs"))
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.fixture
def wheel(site: Any) -> Path:
    """The distribution `acme-jobs`, installed from a wheel."""
    site.module("acme_jobs", QUEUE.format("jobs"))
    info: Path = site.install("acme-jobs", "jobs = acme_jobs")
    record(info, "acme_jobs.py")
    return info


class TestShadowed:
    def test_a_checkout_before_a_wheel_is_named_with_both_paths(
        self, site: Any, wheel: Path, checkout: Path
    ) -> None:
        (warning,) = shadowed(site)
        assert warning == (
            f"acme_jobs is imported from {checkout / 'acme_jobs.py'}, and acme-jobs has installed"
            f" it as {site.folder / 'acme_jobs.py'}: a folder that comes first on Python's path"
            " hides it (PYTHONPATH, or the working directory)"
        )

    def test_so_is_one_that_hides_an_editable_installation(
        self, site: Any, checkout: Path, tmp_path: Path
    ) -> None:
        other = tmp_path / "other"
        other.mkdir()
        editable(site.install("acme-jobs", "jobs = acme_jobs"), other)
        (warning,) = shadowed(site)
        assert f"from {checkout / 'acme_jobs.py'}, " in warning
        assert f"installed it as {other}:" in warning

    def test_so_is_one_with_the_metadata_of_a_build(
        self, site: Any, wheel: Path, checkout: Path
    ) -> None:
        """`pip install` leaves a folder `*.egg-info`, which Python finds before the wheel's."""
        egg = checkout / "acme_jobs.egg-info"
        egg.mkdir()
        (egg / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: acme-jobs\nVersion: 2.0\n")
        (egg / "entry_points.txt").write_text("[corral.queues]\njobs = acme_jobs\n")
        points = [*read_entry_points([str(checkout), str(site.folder)])]
        assert [each.provider.version for each in points if isinstance(each, PluginEntryPoint)] == [
            "2.0"
        ]
        type(site)(checkout).load()
        (warning,) = find_shadowed_modules(
            each for each in points if isinstance(each, PluginEntryPoint)
        )
        assert f"installed it as {site.folder / 'acme_jobs.py'}:" in warning

    def test_a_wheel_is_not(self, site: Any, wheel: Path) -> None:
        assert shadowed(site) == []

    def test_a_newer_wheel_before_an_older_one_is_not(
        self, site: Any, wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An environment with the system's packages below its own."""
        system = tmp_path / "system"
        system.mkdir()
        older = type(site)(system)
        older.module("acme_jobs", QUEUE.format("jobs"))
        record(older.install("acme-jobs", "jobs = acme_jobs", version="0.9"), "acme_jobs.py")
        monkeypatch.setattr(sys, "path", [*sys.path, str(system)])
        assert shadowed(site) == []

    def test_a_link_to_the_same_folder_is_not(
        self, site: Any, wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        link = tmp_path / "link"
        link.symlink_to(site.folder)
        monkeypatch.syspath_prepend(link)
        assert shadowed(site) == []

    @pytest.mark.parametrize("layout", ["src", "."])
    @pytest.mark.parametrize("has_pth", [True, False])
    def test_an_editable_installation_is_not(
        self,
        layout: str,
        has_pth: bool,
        site: Any,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        root = tmp_path / "root"
        source = root / layout
        source.mkdir(parents=True)
        type(site)(source).module("acme_jobs", QUEUE.format("jobs"))
        monkeypatch.setattr(sys, "path", [*sys.path, str(source)])
        info = site.install("acme-jobs", "jobs = acme_jobs")
        editable(info, root, pth=source if has_pth else None)
        assert shadowed(site) == []

    def test_a_finder_of_setuptools_is_not(
        self, site: Any, checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """It maps modules to folders anywhere, also outside of the project."""
        name = "__editable___acme_jobs_1_0_finder"
        finder: Any = types.ModuleType(name)
        finder.MAPPING = {"acme_jobs": str(checkout / "acme_jobs.py")}
        monkeypatch.setitem(sys.modules, name, finder)
        info = site.install("acme-jobs", "jobs = acme_jobs")
        editable(info, tmp_path / "project")
        record(info, f"{name}.py")
        assert shadowed(site) == []
        finder.MAPPING = {"acme_jobs": str(tmp_path / "project")}
        assert len(shadowed(site)) == 1

    def test_without_a_record_nothing_is_said(self, site: Any, checkout: Path) -> None:
        """Distributions' own packagers write none, and `setup.py develop` wrote none."""
        site.install("acme-jobs", "jobs = acme_jobs")
        assert shadowed(site) == []

    def test_a_module_in_a_namespace_is_not(self, site: Any) -> None:
        (site.folder / "acmespace").mkdir()
        site.module("acmespace/jobs", QUEUE.format("jobs"))
        record(site.install("acme-jobs", "jobs = acmespace.jobs"), "acmespace/jobs.py")
        site.module("acmespace/faxes", QUEUE.format("faxes"))
        record(site.install("acme-faxes", "faxes = acmespace.faxes"), "acmespace/faxes.py")
        assert shadowed(site) == []
        assert site.load().report.problems == []

    def test_a_damaged_record_says_nothing(self, site: Any, wheel: Path) -> None:
        (wheel / "RECORD").write_bytes(b'\xff\xfe"unclosed\n,,\n')
        (wheel / "direct_url.json").write_text("{")
        assert shadowed(site) == []


class TestShared:
    def messages(self, site: Any) -> list[tuple[str, str]]:
        return [(each.code, each.message) for each in site.load().report.problems]

    def test_one_module_without_a_record(self, site: Any) -> None:
        site.module("acme_jobs", "raise AssertionError('imported')")
        site.install("acme-one", "one = acme_jobs")
        site.install("acme-two", "two = acme_jobs")
        ((code, message),) = self.messages(site)
        assert code == "shared-module"
        assert message == (
            "acme-one 1.0 and acme-two 1.0 both install the file"
            f" {site.folder / 'acme_jobs.py'}: the one that was installed last has overwritten"
            " the other's"
        )

    def test_one_module_that_neither_has(self, site: Any) -> None:
        for name in ("one", "two"):
            record(site.install(f"acme-{name}", f"{name} = acme_gone:plugin"), "README")
        ((code, message),) = self.messages(site)
        assert code == "shared-module"
        assert message == (
            "acme-one 1.0 and acme-two 1.0 both have entry points that name the module 'acme_gone'"
        )

    def test_two_modules_of_which_both_have_one(self, site: Any) -> None:
        (site.folder / "acmespace").mkdir()
        for name in ("one", "two"):
            site.module(f"acmespace/{name}", QUEUE.format(name))
            record(
                site.install(f"acme-{name}", f"{name} = acmespace.{name}"),
                "acmespace/one.py",
                f"acmespace/{name}.py",
            )
        ((code, message),) = self.messages(site)
        assert code == "shared-module"
        assert f" both install the file {site.folder / 'acmespace' / 'one.py'}:" in message

    def test_a_namespace_that_both_begin_alike_is_no_fault(self, site: Any) -> None:
        """The old way to share a namespace: both distributions install its `__init__.py`."""
        (site.folder / "acmespace").mkdir()
        (site.folder / "acmespace" / "__init__.py").write_text("")
        for name in ("one", "two"):
            site.module(f"acmespace/{name}", QUEUE.format(name))
            info = site.install(f"acme-{name}", f"{name} = acmespace.{name}")
            record(info, "acmespace/__init__.py", f"acmespace/{name}.py")
        assert self.messages(site) == []

    def test_a_stranger_with_the_same_file_is_a_warning(self, site: Any, wheel: Path) -> None:
        record(site.install("stranger", "x = y", group="console_scripts"), "acme_jobs.py")
        plugins = site.load()
        points = [each for one in plugins.loaded for each in one.entry_points]
        (warning,) = find_overwritten_modules(points)
        assert warning == (
            f"acme-jobs and stranger both install the file {site.folder / 'acme_jobs.py'}: the one"
            " that was installed last has overwritten the other's"
        )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[x]\nno equals sign\n", 'it has a line that is neither "[group]" nor "name = module"'),
        (b"[x]\nname = \xff\n", "it is not UTF-8"),
    ],
)
def test_a_stranger_s_broken_entry_points_are_a_warning(
    content: bytes, reason: str, site: Any, wheel: Path
) -> None:
    info = site.install("stranger", group="x")
    (info / "entry_points.txt").write_bytes(content)
    assert [queue.name for queue in site.load().entry_points] == ["jobs"]
    assert [each for each in find_unreadable_entry_points() if "stranger" in each] == [
        f"entry_points.txt of stranger in {site.folder} cannot be read: {reason}"
    ]


@pytest.mark.parametrize("file", ["entry_points.txt", "METADATA", "direct_url.json"])
def test_a_plugin_s_own_metadata_that_is_not_utf_8_ends_in_no_traceback(
    file: str, site: Any, wheel: Path
) -> None:
    path = wheel / file
    before = path.read_bytes() if path.exists() else b"{}"
    path.write_bytes(before + b"\n# \xff\n")
    problems = site.load().report.problems
    assert [each.code for each in problems] == (
        [] if file == "direct_url.json" else ["broken-metadata"]
    )


def test_a_slow_import_is_named_with_its_time(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is moved, so that nobody waits."""
    site.module("acme_slow", QUEUE.format("slow"))
    site.install("acme-slow", "slow = acme_slow")
    clock = SimpleNamespace(perf_counter=iter([0.0, 4.04]).__next__)
    monkeypatch.setattr(loading, "time", clock)
    plugins = site.load()
    sentence = (
        "plugin 'slow' (acme-slow 1.0) took 4.0 s to import: every process that loads it starts so"
        " much later"
    )
    assert [*plugins.find_slow_imports(0.5)] == [sentence]
    assert [*plugins.find_slow_imports(5.0)] == []


@pytest.mark.parametrize(("seconds", "logged"), [(1.9, 0), (2.1, 1)])
def test_a_worker_s_start_logs_an_import_of_more_than_two_seconds(
    seconds: float,
    logged: int,
    site: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    site.module("acme_slow", QUEUE.format("slow"))
    site.install("acme-slow", "slow = acme_slow")
    clock = SimpleNamespace(perf_counter=iter([0.0, seconds]).__next__)
    monkeypatch.setattr(loading, "time", clock)
    log_plugin_warnings(site.load())
    found = [each for each in caplog.messages if "(acme-slow 1.0) took" in each]
    assert len(found) == logged
