"""No archive leads whoever unpacks it out of the folder, and no entry hides another."""

from __future__ import annotations

import re
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_data_exports.entry_names import MANIFEST, entry_names

DEVICES = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{port}{number}" for port in ("com", "lpt") for number in range(10)),
}
SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\.(json|csv)")


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("orders", "orders"),
        ("billing.invoices", "billing_invoices"),
        ("../../etc/passwd", "etc_passwd"),
        ("..\\..\\boot.ini", "boot_ini"),
        ("/etc/passwd", "etc_passwd"),
        ("C:\\Windows\\x", "C_Windows_x"),
        ("C:x", "C_x"),
        ("a\0b\r\nc\x1b[2J", "a_b_c_2J"),
        ("Übersicht", "Ubersicht"),
        ("注文", "records"),
        ("", "records"),
        ("..", "records"),
        ("-rf", "rf"),
        ("CON", "CON_"),
        ("lpt1", "lpt1_"),
        ("manifest", "manifest_"),
        ("\N{RIGHT-TO-LEFT OVERRIDE}gnp.exe", "gnp_exe"),
        ("x" * 300, "x" * 80),
    ],
)
def test_a_name_is_made_plain(name: str, entry: str) -> None:
    assert entry_names([name], ".json") == [f"{entry}.json"]


def test_what_is_alike_is_numbered_also_where_case_does_not_count() -> None:
    names = ["orders", "Orders", "orders!", "orders-2", "注文", "..", "manifest", "manifest_"]
    assert entry_names(names, ".csv") == [
        *("orders.csv", "Orders-2.csv", "orders-3.csv", "orders-2-2.csv"),
        *("records.csv", "records-2.csv", "manifest_.csv", "manifest_-2.csv"),
    ]


@given(st.lists(st.text(max_size=12), max_size=12), st.sampled_from([".json", ".csv"]))
def test_every_entry_is_a_plain_file_of_its_own(names: list[str], suffix: str) -> None:
    entries = entry_names(names, suffix)
    assert len(entries) == len(names)
    assert len({entry.lower() for entry in [*entries, MANIFEST]}) == len(names) + 1
    for entry in entries:
        assert SAFE.fullmatch(entry)
        assert PurePosixPath(entry).name == PureWindowsPath(entry).name == entry
        assert PureWindowsPath(entry).stem.lower() not in DEVICES
