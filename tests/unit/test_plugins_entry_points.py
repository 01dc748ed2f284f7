"""What is read of installed distributions before anything is imported."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from corral.plugins import PluginEntryPoint, Provider, read_entry_points
from corral.plugins.entry_points import UnreadableDistribution

REPORTS = PluginEntryPoint(
    "reports", "acme_reports", "corral.queues", Provider("acme-reports", "1.0", "wheel")
)


def test_entry_points_are_found_without_importing_what_they_name(site: Any) -> None:
    site.module("acme_reports", "raise AssertionError('imported')")
    site.install("acme-reports", "reports = acme_reports")
    assert list(read_entry_points([str(site.folder)])) == [REPORTS]


def test_other_groups_are_no_matter_of_ours_however_broken_they_are(site: Any) -> None:
    site.install("stranger", "no equals sign", group="console_scripts")
    site.install("other", "reports = other", group="acme.queues")
    assert list(read_entry_points([str(site.folder)])) == []


def test_they_come_sorted_by_distribution_and_name_whatever_was_installed_first(site: Any) -> None:
    site.install("zeta", "b = zeta", "a = zeta")
    site.install("alpha", "c = alpha")
    assert [
        entry_point.name
        for entry_point in read_entry_points([str(site.folder)])
        if isinstance(entry_point, PluginEntryPoint)
    ] == [
        "c",
        "a",
        "b",
    ]


@pytest.mark.parametrize(
    ("recorded", "origin"),
    [
        (None, "wheel"),
        ({"url": "file:///checkout", "dir_info": {}}, "wheel"),
        ({"url": "file:///checkout", "dir_info": {"editable": True}}, "editable"),
        (
            {
                "url": "https://example.org/a.git",
                "vcs_info": {"vcs": "git", "commit_id": "3f1c9d2ab07c8e6f5d41"},
            },
            "vcs 3f1c9d2",
        ),
    ],
)
def test_the_origin_is_what_the_installer_recorded(recorded: Any, origin: str, site: Any) -> None:
    info = site.install("acme-reports", "reports = acme_reports")
    if recorded:
        (info / "direct_url.json").write_text(json.dumps(recorded), "utf-8")
    (entry_point,) = read_entry_points([str(site.folder)])
    assert isinstance(entry_point, PluginEntryPoint)
    assert entry_point.provider.label == f"acme-reports 1.0 ({origin})"
    assert str(entry_point.provider) == "acme-reports 1.0"


def test_a_folder_that_is_on_the_path_twice_makes_no_second_claim(site: Any, tmp_path: Any) -> None:
    site.install("acme-reports", "reports = acme_reports")
    other = tmp_path / "other"
    shutil.copytree(site.folder, other)
    assert list(read_entry_points([str(site.folder), str(site.folder), str(other)])) == [REPORTS]


def test_of_two_versions_the_one_counts_that_python_takes(site: Any, tmp_path: Any) -> None:
    """Even where the newer one has given up an entry point that the older one had."""
    older = tmp_path / "older"
    older.mkdir()
    type(site)(older).install(
        "acme-reports", "reports = acme_reports", "digests = acme_reports", version="0.9"
    )
    site.install("acme-reports", "reports = acme_reports")
    assert list(read_entry_points([str(site.folder), str(older)])) == [REPORTS]


def test_what_an_interrupted_uninstallation_left_makes_no_claim(site: Any) -> None:
    """pip renames a folder to `~…` before it removes it; without METADATA it has no name."""
    site.install("acme-reports", "reports = acme_reports")
    leftover = site.install("acme-reports", "reports = acme_reports", version="0.9")
    leftover.rename(leftover.with_name("~cme_reports-0.9.dist-info"))
    nameless = site.install("acme-reports", "reports = acme_reports", version="0.8")
    (nameless / "METADATA").unlink()
    assert list(read_entry_points([str(site.folder)])) == [REPORTS]


def test_a_distribution_without_a_name_that_declares_something_else_is_reported(site: Any) -> None:
    site.install("acme-reports", "reports = acme_reports")
    nameless = site.install("acme-mail", "emails = acme_mail")
    (nameless / "METADATA").unlink()
    assert list(read_entry_points([str(site.folder)]))[1:] == [
        UnreadableDistribution(
            "an installed distribution whose name cannot be read declares emails = acme_mail"
        )
    ]


def test_entry_points_that_cannot_be_parsed_are_reported_with_their_distributions(
    site: Any,
) -> None:
    site.install("acme-reports", "reports")
    (broken,) = read_entry_points([str(site.folder)])
    assert broken == UnreadableDistribution(
        "the entry points of acme-reports 1.0 cannot be read", REPORTS.provider
    )
    assert [problem.code for problem in site.load().report.problems] == ["broken-metadata"]
    assert site.load(disabled=["acme-reports"]).report.problems == []
