"""`corral.lock`: written the same way every time, read strictly, and compared field by field."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from corral.catalog import Catalog
from corral.catalog.lock import Locked, check_lock, read_lock, write_lock
from corral.errors import CatalogError, ConfigurationError
from corral.plugins import Report

EMAILS = Locked("corral-emails", "0.1.0", "02071a546d444bae")
FAXES = Locked("acme-faxes", "2.0", "cafe000000000000")


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "corral.lock"
    write_lock(path, {"faxes": FAXES, "emails": EMAILS})
    assert read_lock(path) == {"emails": EMAILS, "faxes": FAXES}


def test_the_same_queues_give_the_same_bytes_in_the_order_of_their_names(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    write_lock(one, {"faxes": FAXES, "emails": EMAILS})
    write_lock(other, {"emails": EMAILS, "faxes": FAXES})
    assert one.read_bytes() == other.read_bytes()
    assert one.read_text("utf-8") == (
        "# The queues that may run here. Written by `corral lock`; review every change as you review code.\n"
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
    )


@pytest.mark.parametrize("text", ['a"b\\c', "é", "😀", "line\nbreak", "\t\x01"])
def test_any_text_survives(text: str, tmp_path: Path) -> None:
    path = tmp_path / "corral.lock"
    write_lock(path, {"emails": Locked(text, text, text)})
    assert read_lock(path) == {"emails": Locked(text, text, text)}


def test_an_agreement_on_no_queue_is_one(tmp_path: Path) -> None:
    path = tmp_path / "corral.lock"
    write_lock(path, {})
    assert tomllib.loads(path.read_text("utf-8")) == {}
    assert read_lock(path) == {}


def test_without_a_file_there_is_no_agreement(tmp_path: Path) -> None:
    assert read_lock(tmp_path / "corral.lock") is None


@pytest.mark.parametrize(
    "text",
    [
        "<<<<<<< ours",
        "queues = 7",
        "[queues]\nemails = 'corral-emails'",
        "[queues.emails]\ndistribution = 'corral-emails'",
        "[queues.emails]\ndistribution = 'a'\nversion = '1'\nfingerprint = 'f'\nhash = 'h'",
    ],
)
def test_a_file_of_another_shape_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "corral.lock"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigurationError, match=r"the lock file '.*' cannot be read: ") as refused:
        read_lock(path)
    assert refused.value.hint == "restore it, or write it anew: corral lock"


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be written: Is a directory"):
        write_lock(tmp_path, {})


def test_a_difference_names_the_fields_and_both_values() -> None:
    report = Report()
    found = Locked("corral-emails", "0.2.0", "02071a546d444bae")
    check_lock({"emails": EMAILS}, {"emails": found, "faxes": FAXES}, report)
    differs, missing = report.problems
    assert (differs.code, differs.providers) == ("lock-differs", ("corral-emails 0.2.0",))
    assert differs.message == (
        "queue 'emails' of corral-emails 0.2.0 differs from the lock file: version '0.1.0' is locked and '0.2.0' is"
        " installed"
    )
    assert (missing.code, missing.providers) == ("not-locked", ("acme-faxes 2.0",))
    assert missing.message == "queue 'faxes' of acme-faxes 2.0 is not in the lock file"


def test_a_catalog_agrees_with_the_lock_file_that_it_wrote(site: Any, tmp_path: Path) -> None:
    site.module("acme", "@hookimpl\ndef corral_queues(): return [Queue('a', P)]")
    info = site.install("acme", "a = acme")
    path = tmp_path / "corral.lock"
    catalog = Catalog.build(site.load(), lock=path)
    assert not catalog.is_locked
    write_lock(path, catalog.agreement())
    assert Catalog.build(site.load(), lock=path).is_locked

    info.rename(info.with_name("acme-1.1.dist-info"))
    metadata = info.with_name("acme-1.1.dist-info") / "METADATA"
    metadata.write_text(metadata.read_text("utf-8").replace("Version: 1.0", "Version: 1.1"), "utf-8")
    with pytest.raises(CatalogError, match=r"version '1\.0' is locked and '1\.1' is installed"):
        Catalog.build(site.load(), lock=path)


def test_the_lock_file_of_the_working_directory_is_the_one(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.module("acme", "@hookimpl\ndef corral_queues(): return [Queue('a', P)]")
    site.install("acme", "a = acme")
    monkeypatch.chdir(tmp_path)
    assert not Catalog.build(site.load()).is_locked
    write_lock(Path("corral.lock"), {})
    with pytest.raises(CatalogError, match="not in the lock file"):
        Catalog.build(site.load())
    assert not Catalog.build(site.load(), lock=None).is_locked
