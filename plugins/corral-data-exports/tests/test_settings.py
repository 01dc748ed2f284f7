"""`CORRAL_DATA_EXPORTS_…` and the tables' file: what holds without any, and how a wrong one is
reported.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from corral.errors import ConfigurationError
from corral_data_exports.settings import ExportSettings
from corral_data_exports.storage import Storage
from corral_data_exports.tables_file import ExportedTable, TablesFile, Users

SECRET = "0123456789abcdef" * 2


def refusal() -> list[str]:
    with pytest.raises(ConfigurationError) as refused:
        ExportSettings()
    first, *faults = str(refused.value).splitlines()
    assert first == "the settings of data-exports were refused:"
    return [fault.strip() for fault in faults]


def test_without_any_archives_are_in_the_data_directory_and_there_are_no_links(monkeypatch) -> None:
    monkeypatch.setenv("CORRAL_DATA_DIR", "/somewhere")
    settings = ExportSettings()
    assert settings.location == "/somewhere/exports"
    assert (settings.base_url, settings.link_secret, settings.tables) == (None, None, None)
    assert settings.link_lifetime == timedelta(days=3)


def test_links_need_two_settings(setting) -> None:
    setting(BASE_URL="https://app.example/exports")
    both = "CORRAL_DATA_EXPORTS_BASE_URL and CORRAL_DATA_EXPORTS_LINK_SECRET: one without the other"
    assert refusal() == [both]
    setting(LINK_SECRET=SECRET)
    assert SECRET not in repr(ExportSettings())
    setting(BASE_URL="")
    assert refusal() == [both]


@pytest.mark.parametrize("rest", ["?to=1", "#top", "?"])
def test_a_base_url_that_no_key_can_be_put_behind_is_refused(setting, rest: str) -> None:
    setting(BASE_URL=f"https://app.example/exports{rest}", LINK_SECRET=SECRET)
    assert refusal() == [
        "CORRAL_DATA_EXPORTS_BASE_URL: links begin with it, so it has no query and no fragment"
    ]


def test_everything_that_is_wrong_is_reported_at_once_and_by_its_name(setting, tmp_path) -> None:
    setting(
        STORRAGE="x",
        TABLES=str(tmp_path / "none.toml"),
        BASE_URL="app.example",
        LINK_SECRET=SECRET[:-1],
        LINK_SECONDS="604801",
    )
    faults = refusal()
    assert (
        faults[0]
        == "CORRAL_DATA_EXPORTS_STORRAGE is not a setting; did you mean CORRAL_DATA_EXPORTS_STORAGE?"
    )
    assert [fault.partition(":")[0] for fault in faults[1:]] == [
        f"CORRAL_DATA_EXPORTS_{name}"
        for name in ("TABLES", "BASE_URL", "LINK_SECRET", "LINK_SECONDS")
    ]
    assert "CORRAL_DATA_EXPORTS_LINK_SECRET: at least 32 bytes are needed" in faults
    assert SECRET[:-1] not in "".join(faults)


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("ftp://host/x", "Unable to recognise URL"),
        ("https://host.example/x", "archives cannot be kept there"),
        ("memory:///", "archives cannot be kept there"),
        ("s3://", "Unable to recognise URL"),
        ("/proc/none", "No such file or directory"),
    ],
)
def test_a_storage_that_takes_nothing_is_refused(setting, location, why) -> None:
    setting(STORAGE=location)
    with pytest.raises(ConfigurationError, match=why) as refused:
        Storage.prepare(ExportSettings())
    assert str(refused.value).startswith(
        f"CORRAL_DATA_EXPORTS_STORAGE {location!r} cannot be used: "
    )
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("location", ["{}/with space", "file://{}/with%20space"])
def test_a_directory_is_made_for_its_owner_alone(setting, tmp_path: Path, location: str) -> None:
    setting(STORAGE=location.format(tmp_path))
    assert not Storage.prepare(ExportSettings()).can_sign
    assert (tmp_path / "with space").stat().st_mode & 0o777 == 0o700


BOTH_PLUGINS = """
[users]
table = "crm.users"
id_column = "id"
email_column = "email"

[tables.orders]
user_column = "customer_id"
action = "delete"
export = ["id", "total"]

[tables."billing.invoices"]
user_column = "customer_id"
action = "anonymize"
columns = { name = "deleted", email = "deleted" }
"""


def test_the_tables_file_is_read_and_the_other_plugin_s_keys_are_passed_over(
    tmp_path: Path,
) -> None:
    path = tmp_path / "tables.toml"
    path.write_text(BOTH_PLUGINS, "utf-8")
    read = TablesFile.read(path)
    assert read.users == Users(table="crm.users", id_column="id", email_column="email")
    assert read.tables["orders"].export == ["id", "total"]
    assert read.tables["billing.invoices"] == ExportedTable(
        user_column="customer_id",
        action="anonymize",
        columns={"name": "deleted", "email": "deleted"},
    )


USERS = "[users]\ntable = 'u'\nid_column = 'i'\nemail_column = 'e'\n"


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        (
            "[users]\ntable = 'u'",
            ["[users]: id_column: field required", "[users]: email_column: field required"],
        ),
        ("[tables.orders]\nexport = ['id']", ["table 'orders': user_column: field required"]),
        (
            "[tables.orders]\nuser_column = 'c'",
            ["table 'orders': neither 'action' nor 'export' says what the table is for"],
        ),
        (
            f"user = 1\n{USERS}language = 'de'\n[tables.orders]\nuser_column = 'c'\nexports = ['id']",
            [
                "[users]: 'language' is not known; known are 'table', 'id_column', 'email_column'",
                "table 'orders': 'exports' is not known; did you mean 'export'?",
                "'user' is not known; did you mean 'users'?",
            ],
        ),
        (
            "[tables.orders]\nuser_column = 'c'\nexport = 'id'\n[tables.x]\nuser_column = 7\nexport = []",
            [
                "table 'orders': export: input should be a valid list",
                "table 'x': user_column: input should be a valid string",
                "table 'x': export: list should have at least 1 item after validation, not 0",
            ],
        ),
    ],
)
def test_a_wrong_tables_file_is_refused_in_words_that_name_file_and_table(
    tmp_path: Path, text, faults
) -> None:
    path = tmp_path / "tables.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigurationError) as refused:
        TablesFile.read(path)
    first, *message = str(refused.value).splitlines()
    assert first == f"the tables file {str(path)!r} was refused:"
    assert sorted(message) == sorted(f"  {fault}" for fault in faults)


@pytest.mark.parametrize("data", [b"[tables.orders", b"\xff"])
def test_a_tables_file_that_is_no_toml_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "tables.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigurationError, match=f"the tables file '{path}' cannot be read: "):
        TablesFile.read(path)
