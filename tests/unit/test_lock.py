"""`corral.lock`: written the same way every time, read strictly, compared before and after anything
is imported.
"""

from __future__ import annotations

import sys
import tomllib
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from corral.app.installed import read_configured_lock
from corral.catalog import Catalog
from corral.catalog.lock import (
    Lock,
    LockedQueue,
    check_complete,
    check_lock,
    check_lock_names,
    read_lock,
    write_lock,
)
from corral.errors import CatalogError, ConfigurationError
from corral.plugins import PluginEntryPoint, Provider, Report
from corral.plugins.entry_points import APPLICATION, BUILT_IN, PLUGINS, QUEUES, is_patch
from corral.settings import Settings

EMAILS = LockedQueue("corral-emails", "0.1.0", "02071a546d444bae")
FAXES = LockedQueue("acme-faxes", "2.0", "cafe000000000000")
LOCK = Lock({"emails": EMAILS, "faxes": FAXES}, {"acme-metrics": "1.4.2"})
FIRST_FORM = """\
# The queues that may run here. Written by `corral lock`; review every change as you review code.

[queues.emails]
distribution = "corral-emails"
version = "0.1.0"
fingerprint = "02071a546d444bae"
"""


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "corral.lock"
    write_lock(path, LOCK)
    assert read_lock(path) == LOCK


def test_the_same_agreement_gives_the_same_bytes_in_the_order_of_names(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    write_lock(one, Lock({"faxes": FAXES, "emails": EMAILS}, {"b": "1", "a.c": "2"}))
    write_lock(other, Lock({"emails": EMAILS, "faxes": FAXES}, {"a.c": "2", "b": "1"}))
    assert one.read_bytes() == other.read_bytes()
    assert one.read_text("utf-8") == (
        "# What may run here. Written by `corral lock`; review every change as you review code.\n"
        "form = 2\n"
        "\n"
        "[queues.emails]\n"
        'distribution = "corral-emails"\n'
        'version = "0.1.0"\n'
        'fingerprint = "02071a546d444bae"\n'
        "\n"
        "[queues.faxes]\n"
        'distribution = "acme-faxes"\n'
        'version = "2.0"\n'
        'fingerprint = "cafe000000000000"\n'
        "\n"
        '[plugins."a.c"]\n'
        'version = "2"\n'
        "\n"
        "[plugins.b]\n"
        'version = "1"\n'
    )


@pytest.mark.parametrize("text", ['a"b\\c', "é", "😀", "line\nbreak", "\t\x01"])
def test_any_text_survives(text: str, tmp_path: Path) -> None:
    path = tmp_path / "corral.lock"
    lock = Lock({"emails": LockedQueue(text, text, text)}, {text: text})
    write_lock(path, lock)
    assert read_lock(path) == lock


def test_an_agreement_on_nothing_is_one(tmp_path: Path) -> None:
    path = tmp_path / "corral.lock"
    write_lock(path, Lock({}, {}))
    assert tomllib.loads(path.read_text("utf-8")) == {"form": 2}
    assert read_lock(path) == Lock({}, {})


def test_without_a_file_there_is_no_agreement(tmp_path: Path) -> None:
    assert read_lock(tmp_path / "corral.lock") is None


def test_a_file_of_the_first_form_is_read_and_says_nothing_of_plugins_without_queues(
    tmp_path: Path,
) -> None:
    path = tmp_path / "corral.lock"
    path.write_text(FIRST_FORM, "utf-8")
    assert read_lock(path) == Lock({"emails": EMAILS}, None)


@pytest.mark.parametrize(
    "text",
    [
        "<<<<<<< ours",
        "form = 3",
        'form = "2"',
        "queues = 7",
        "form = 2\nplugins = 7",
        "form = 2\n[plugins.a]\n",
        "form = 2\n[plugins.a]\nversion = 1",
        "form = 2\n[plugin.a]\nversion = '1'",
        "[queues]\nemails = 'corral-emails'",
        "[queues.emails]\ndistribution = 'corral-emails'",
        "[queues.emails]\ndistribution = 'a'\nversion = '1'\nfingerprint = 'f'\nhash = 'h'",
        "[queues.emails]\ndistribution = 'a'\nversion = 1\nfingerprint = 'f'",
    ],
)
def test_a_file_of_another_shape_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "corral.lock"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigurationError, match=r"the lock file '.*' cannot be read: ") as refused:
        read_lock(path)
    assert refused.value.hint == "restore it, or write it anew: corral lock"
    with pytest.raises(CatalogError, match="cannot be read"):
        read_configured_lock(Settings(lock=path))


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be written: Is a directory"):
        write_lock(tmp_path, Lock({}, {}))


def test_the_file_that_holds_is_the_named_one_else_the_working_directorys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_configured_lock(Settings()) is None
    write_lock(Path("corral.lock"), Lock({}, {}))
    assert read_configured_lock(Settings(locked=True)) == Lock({}, {})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert read_configured_lock(Settings()) is None
    assert read_configured_lock(Settings(lock=tmp_path / "corral.lock")) == Lock({}, {})


@pytest.mark.parametrize(
    ("named", "required", "why"),
    [
        (None, True, "there is no lock file 'corral.lock', and CORRAL_LOCKED is true"),
        (Path("none.lock"), False, "there is no lock file 'none.lock', and CORRAL_LOCK names it"),
    ],
)
def test_a_file_that_must_be_there_and_is_not_refuses_the_start(
    named: Path | None, required: bool, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CatalogError) as refused:
        read_configured_lock(Settings(lock=named, locked=required))
    (problem,) = refused.value.problems
    assert (problem.code, problem.message) == ("no-lock", why)


def entry_point(
    name: str, distribution: str, group: str = QUEUES, origin: str = "wheel", version: str = "1.0"
) -> PluginEntryPoint:
    return PluginEntryPoint(
        name, distribution.replace("-", "_"), group, Provider(distribution, version, origin)
    )


@pytest.mark.parametrize(
    ("one", "code", "message"),
    [
        (entry_point("emails", "corral-emails"), None, ""),
        (entry_point("emails", "Corral_Emails"), None, ""),
        (entry_point("hooks", "corral-emails", PLUGINS), None, ""),
        (entry_point("metrics", "acme.metrics", PLUGINS), None, ""),
        (entry_point("acme.app", "acme.app", APPLICATION, "application"), None, ""),
        (entry_point("traces", "corral", PLUGINS, BUILT_IN), None, ""),
        (
            entry_point("faxes", "acme-fax"),
            "lock-differs",
            "'acme-faxes' is locked and 'acme-fax' is installed",
        ),
        (
            entry_point("tickets", "corral-emails"),
            "not-locked",
            "queue 'tickets' of corral-emails 1.0 is not in the lock file",
        ),
        (
            entry_point("traces", "corral", PLUGINS),
            "not-locked",
            "plugin 'traces' of corral 1.0 is not in the lock file",
        ),
        (
            entry_point("metrics", "acme-metric", PLUGINS),
            "not-locked",
            "plugin 'metrics' of acme-metric 1.0 is not in the",
        ),
    ],
)
def test_names_are_compared_as_they_stand_in_the_metadata(
    one: PluginEntryPoint, code: str | None, message: str
) -> None:
    report = Report()
    check_lock_names(LOCK, [one], report)
    assert [problem.code for problem in report.problems] == ([code] if code else [])
    assert all(message in problem.message for problem in report.problems)
    assert report.faulty == ({one} if code else set())


def compared(version: str, fingerprint: str, *, patches: bool = False) -> tuple[Report, list[str]]:
    report = Report()
    queues = {"emails": (Provider("corral-emails", version, "wheel"), fingerprint)}
    return report, check_lock(LOCK, queues, [], report, patches=patches)


def test_a_difference_names_the_fields_and_both_values() -> None:
    report, _ = compared("0.2.0", "beef")
    (differs,) = report.problems
    assert (differs.code, differs.providers) == ("lock-differs", ("corral-emails 0.2.0",))
    assert differs.message == (
        "queue 'emails' of corral-emails 0.2.0 differs from the lock file: version '0.1.0' is"
        " locked and '0.2.0' is"
        " installed, fingerprint '02071a546d444bae' is locked and 'beef' is installed"
    )


def test_a_patch_release_with_the_same_payloads_is_reported_as_one_and_may_be_allowed() -> None:
    warning = (
        "corral-emails 0.1.3 is a patch release of 0.1.0, which is locked, with the same payloads"
    )
    report, warnings = compared("0.1.3", EMAILS.fingerprint)
    (problem,) = report.problems
    assert (problem.code, problem.message, warnings) == ("patch-release", warning, [])
    assert "CORRAL_LOCK_PATCHES=allow" in str(problem.hint)
    report, warnings = compared("0.1.3", EMAILS.fingerprint, patches=True)
    assert (report.problems, warnings) == ([], [warning])


@pytest.mark.parametrize(
    ("version", "fingerprint"),
    [("0.1.3", "beef"), ("0.1.0", "beef"), ("0.2.0", EMAILS.fingerprint)],
)
def test_what_is_more_than_a_patch_is_refused_although_patches_are_allowed(
    version: str, fingerprint: str
) -> None:
    report, warnings = compared(version, fingerprint, patches=True)
    assert ([problem.code for problem in report.problems], warnings) == (["lock-differs"], [])


@pytest.mark.parametrize(
    ("version", "codes"), [("1.4.2", []), ("1.4.3", ["patch-release"]), ("1.5", ["lock-differs"])]
)
def test_a_plugin_without_queues_is_compared_by_its_version(version: str, codes: list[str]) -> None:
    report = Report()
    check_lock(LOCK, {}, [Provider("Acme.Metrics", version, "wheel")], report)
    assert [problem.code for problem in report.problems] == codes


@pytest.mark.parametrize(
    ("locked", "installed", "patch"),
    [
        ("1.4.2", "1.4.3", True),
        ("1.4.9", "1.4.10", True),
        ("1.4", "1.4.1", True),
        ("1.4.2", "1.4.2.post1", True),
        ("1.4.2", "1.4.2", False),
        ("1.4.2", "1.4.1", False),
        ("1.4.2", "1.5.0", False),
        ("1.4.2", "2.4.3", False),
        ("1.4.2", "1.4.3rc1", False),
        ("1.4.2", "1.4.3.dev1", False),
        ("1.4.2", "1.4.3+local", False),
        ("2025", "2026", False),
        ("", "1.4.3", False),
    ],
)
def test_a_patch_release_is_a_later_one_with_the_same_first_two_numbers(
    locked: str, installed: str, patch: bool
) -> None:
    assert is_patch(locked, installed) is patch


def test_what_is_locked_and_gone_is_missing() -> None:
    report = Report()
    check_complete(LOCK, [entry_point("emails", "corral-emails")], report)
    assert [(problem.code, problem.message) for problem in report.problems] == [
        ("locked-missing", "queue 'faxes' is in the lock file and not installed"),
        ("locked-missing", "the plugin 'acme-metrics' is in the lock file and not installed"),
    ]


HOOK_ONLY = "@hookimpl\ndef corral_enqueuing(queue, payload): pass"


def built(site: Any, lock: Lock, **options: Any) -> Catalog:
    """Build as a process does: names are checked when plugins are loaded, the rest afterwards."""
    return Catalog.build(site.load(check=partial(check_lock_names, lock)), lock=lock, **options)


def test_a_catalog_agrees_with_the_lock_file_that_it_wrote(site: Any, tmp_path: Path) -> None:
    site.module("acme", "@hookimpl\ndef corral_queues(): return [Queue('a', P)]")
    info = site.install("acme", "a = acme")
    site.module("acme_hooks", HOOK_ONLY)
    site.install("Acme.Hooks", "hooks = acme_hooks", group="corral.plugins")
    path = tmp_path / "corral.lock"
    catalog = Catalog.build(site.load())
    assert not catalog.is_locked
    write_lock(path, catalog.lock_entries())
    lock = read_lock(path)
    assert lock is not None
    assert lock.plugins == {"acme-hooks": "1.0"}
    assert built(site, lock).is_locked
    assert built(site, lock).warnings == ()

    info.rename(info.with_name("acme-1.1.dist-info"))
    metadata = info.with_name("acme-1.1.dist-info") / "METADATA"
    metadata.write_text(
        metadata.read_text("utf-8").replace("Version: 1.0", "Version: 1.1"), "utf-8"
    )
    with pytest.raises(CatalogError, match=r"version '1\.0' is locked and '1\.1' is installed"):
        built(site, lock)


@pytest.mark.parametrize("group", ["corral.queues", "corral.plugins"])
def test_what_is_not_in_the_lock_file_is_not_imported(site: Any, group: str) -> None:
    site.module("acme", "@hookimpl\ndef corral_queues(): return [Queue('a', P)]")
    site.install("acme", "a = acme")
    lock = Catalog.build(site.load()).lock_entries()
    site.module("rogue", HOOK_ONLY)
    site.install("acme-helper", "b = rogue", group=group)
    with pytest.raises(CatalogError) as refused:
        built(site, lock)
    (problem,) = refused.value.problems
    assert (problem.code, problem.providers) == ("not-locked", ("acme-helper 1.0",))
    assert "rogue" not in sys.modules
    disabled = site.load(check=partial(check_lock_names, lock), disabled=["acme-helper"])
    assert list(Catalog.build(disabled, lock=lock).entries) == ["a"]


def test_a_queue_of_the_lock_file_from_another_distribution_is_not_imported(site: Any) -> None:
    site.module("acme", "@hookimpl\ndef corral_queues(): return [Queue('a', P)]")
    site.install("acme", "a = acme")
    lock = Catalog.build(site.load()).lock_entries()
    site.module("rogue", "@hookimpl\ndef corral_queues(): return [Queue('a', P)]")
    site.install("acme-better", "a = rogue")
    with pytest.raises(CatalogError) as refused:
        built(site, lock)
    assert [problem.code for problem in refused.value.problems] == [
        "lock-differs",
        "duplicate-queue",
    ]
    assert "rogue" not in sys.modules


def test_a_lock_file_of_the_first_form_allows_plugins_without_queues_and_warns_once(
    site: Any,
) -> None:
    site.module("acme", "@hookimpl\ndef corral_queues(): return [Queue('a', P)]")
    site.install("acme", "a = acme")
    site.module("acme_hooks", HOOK_ONLY)
    site.install("acme-hooks", "hooks = acme_hooks", group="corral.plugins")
    lock = Lock(Catalog.build(site.load()).lock_entries().queues, None)
    (warning,) = built(site, lock).warnings
    assert warning == (
        "the lock file is of the first form and allows every plugin that declares no queue"
        " (acme-hooks 1.0):"
        " `corral lock` writes it anew"
    )
