"""Settings: what is read, what is refused and with which words, and what is never shown."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from corral.errors import ConfigurationError
from corral.redactor import masked
from corral.settings import Settings, WorkerSettings, unknown_names


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("CORRAL_") or name == "REDIS_URL":
            monkeypatch.delenv(name)


def refusal(queue_names: tuple[str, ...] = ()) -> str:
    with pytest.raises(ConfigurationError) as refused:
        Settings.read(queue_names)
    assert refused.value.exit_code == 2
    return str(refused.value)


def test_an_empty_environment_gives_the_documented_defaults() -> None:
    settings = Settings.read()
    assert settings == Settings(
        redis_url=None,
        env="production",
        prefix="bull",
        data_dir=Path(".corral"),
        app=None,
        disabled_plugins=(),
        database_url=None,
        log_format="auto",
        log_level="INFO",
        max_payload_bytes=1_048_576,
        valkey_server=None,
        worker=WorkerSettings(
            concurrency=10,
            lock_seconds=30,
            stalled_interval_seconds=30,
            max_stalled=1,
            shutdown_timeout_seconds=25,
        ),
    )


def test_every_setting_is_read_from_its_documented_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "REDIS_URL": "rediss://user:secret@host:6380/2",
        "CORRAL_ENV": "staging",
        "CORRAL_PREFIX": "{acme}",
        "CORRAL_DATA_DIR": "/var/lib/corral",
        "CORRAL_APP": "acme.jobs",
        "CORRAL_DISABLED_PLUGINS": "acme-mail, report-exports,",
        "CORRAL_DATABASE_URL": "postgresql+asyncpg://app:secret@db/app",
        "CORRAL_LOG_FORMAT": "JSON",
        "CORRAL_LOG_LEVEL": "debug",
        "CORRAL_MAX_PAYLOAD_BYTES": "65536",
        "CORRAL_VALKEY_SERVER": "/opt/valkey-server",
        "CORRAL_WORKER__CONCURRENCY": "50",
        "CORRAL_WORKER__LOCK_SECONDS": "0.5",
        "CORRAL_WORKER__STALLED_INTERVAL_SECONDS": "0.25",
        "CORRAL_WORKER__MAX_STALLED": "0",
        "CORRAL_WORKER__SHUTDOWN_TIMEOUT_SECONDS": "0",
    }.items():
        monkeypatch.setenv(name, value)
    assert Settings.read() == Settings(
        redis_url="rediss://user:secret@host:6380/2",
        env="staging",
        prefix="{acme}",
        data_dir=Path("/var/lib/corral"),
        app="acme.jobs",
        disabled_plugins=("acme-mail", "report-exports"),
        database_url="postgresql+asyncpg://app:secret@db/app",
        log_format="json",
        log_level="DEBUG",
        max_payload_bytes=65536,
        valkey_server="/opt/valkey-server",
        worker=WorkerSettings(
            concurrency=50,
            lock_seconds=0.5,
            stalled_interval_seconds=0.25,
            max_stalled=0,
            shutdown_timeout_seconds=0,
        ),
    )


@pytest.mark.parametrize(
    ("value", "development", "named"),
    [
        (None, False, False),
        ("", False, False),
        ("production", False, True),
        ("Development", False, True),
        ("dev", False, True),
        ("development", True, True),
    ],
)
def test_only_exactly_development_is_development(
    monkeypatch: pytest.MonkeyPatch, value: str | None, development: bool, named: bool
) -> None:
    if value is not None:
        monkeypatch.setenv("CORRAL_ENV", value)
    settings = Settings.read()
    assert settings.is_development is development
    assert settings.is_environment_set is named


def test_an_empty_value_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "")
    monkeypatch.setenv("CORRAL_WORKER__CONCURRENCY", "")
    assert Settings.read() == Settings()


def test_settings_do_not_change() -> None:
    settings: Any = Settings()
    with pytest.raises(ValidationError):
        settings.env = "development"
    with pytest.raises(ValidationError):
        settings.worker.concurrency = 3


# --- what is refused


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("CORRAL_WORKER__CONCURRENCY", "ten", "input should be a valid integer"),
        ("CORRAL_WORKER__CONCURRENCY", "0", "input should be greater than or equal to 1, not '0'"),
        ("CORRAL_WORKER__LOCK_SECONDS", "0", "input should be greater than 0, not '0'"),
        ("CORRAL_WORKER__LOCK_SECONDS", "nan", "input should be a finite number, not 'nan'"),
        (
            "CORRAL_WORKER__STALLED_INTERVAL_SECONDS",
            "30000000",
            "input should be less than or equal to 86400",
        ),
        (
            "CORRAL_WORKER__MAX_STALLED",
            "-1",
            "input should be greater than or equal to 0, not '-1'",
        ),
        (
            "CORRAL_WORKER__SHUTDOWN_TIMEOUT_SECONDS",
            "-1",
            "input should be greater than or equal to 0, not '-1'",
        ),
        ("CORRAL_MAX_PAYLOAD_BYTES", "1 MiB", "input should be a valid integer"),
        (
            "CORRAL_LOG_LEVEL",
            "verbose",
            "input should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR', not 'VERBOSE'",
        ),
        ("CORRAL_LOG_FORMAT", "xml", "input should be 'auto', 'console' or 'json', not 'xml'"),
        (
            "REDIS_URL",
            "http://host",
            "write redis://host:6379/0, rediss://… or unix:///path/to.sock",
        ),
        (
            "REDIS_URL",
            "localhost:6379",
            "write redis://host:6379/0, rediss://… or unix:///path/to.sock",
        ),
    ],
)
def test_a_wrong_value_is_one_sentence_that_begins_with_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(name, value)
    message = refusal()
    assert message.startswith(f"{name}: {sentence}")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("CORRAL_REDIS_URL", "REDIS_URL"),
        ("CORRAL_DISABLE_PLUGINS", "CORRAL_DISABLED_PLUGINS"),
        ("CORRAL_CONCURRENCY", "CORRAL_WORKER__CONCURRENCY"),
        ("CORRAL_WORKER_CONCURRENCY", "CORRAL_WORKER__CONCURRENCY"),
        ("CORRAL_WORKER__CONCURENCY", "CORRAL_WORKER__CONCURRENCY"),
        ("CORRAL_DATABASE_URL_FLIE", "CORRAL_DATABASE_URL_FILE"),
        ("CORRAL_EMIALS_HOST", "CORRAL_EMAILS_HOST"),
        ("CORRAL_DATA_EXPORT_DIR", "CORRAL_DATA_EXPORTS_DIR"),
        ("CORRAL_WEBHOOK_OUTGOING_TIMEOUT", "CORRAL_WEBHOOKS_OUTGOING_TIMEOUT"),
    ],
)
def test_a_misspelt_name_is_refused_with_what_was_meant(
    monkeypatch: pytest.MonkeyPatch, name: str, meant: str
) -> None:
    monkeypatch.setenv(name, "1")
    assert (
        refusal(("emails", "data-exports", "webhooks-outgoing"))
        == f"{name} is not a setting; did you mean {meant}?"
    )


@pytest.mark.parametrize(
    "name", ["CORRAL_FOO", "CORRAL_EMAILS", "CORRAL_FOO_HOST", "CORRAL_WORKER"]
)
def test_a_name_that_means_nothing_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    assert refusal(("emails",)) == f"{name} is not a setting of Corral or of an installed plugin"


def test_all_faults_come_in_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORRAL_WORKER__CONCURRENCY", "ten")
    monkeypatch.setenv("CORRAL_LOG_LEVEL", "verbose")
    monkeypatch.setenv("CORRAL_FOO", "1")
    first, *others = refusal().splitlines()
    assert first == "the settings were refused: 3 problems"
    assert [line.split(" ")[2].rstrip(":") for line in others] == [
        "CORRAL_FOO",
        "CORRAL_LOG_LEVEL",
        "CORRAL_WORKER__CONCURRENCY",
    ]


def test_an_installed_entry_point_explains_the_names_under_its_prefix() -> None:
    environ = {
        "CORRAL_WEBHOOKS_OUTGOING_TIMEOUT": "5",
        "CORRAL_EMAILS_SMTP__HOST": "mail",
        "PATH": "/bin",
    }
    assert unknown_names(environ, ["webhooks-outgoing", "emails"]) == {}
    assert list(unknown_names(environ, ["emails"])) == ["CORRAL_WEBHOOKS_OUTGOING_TIMEOUT"]


def test_no_entry_point_explains_a_worker_setting() -> None:
    assert unknown_names({"CORRAL_WORKER__FOO": "1"}, ["emails", "work"]) == {
        "CORRAL_WORKER__FOO": None
    }


# --- secrets in files


@pytest.mark.parametrize(
    ("name", "value"),
    [("REDIS_URL", "redis://:hunter2@host/0"), ("CORRAL_DATABASE_URL", "postgresql://a:hunter2@b")],
)
def test_a_url_with_a_password_can_stand_in_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str
) -> None:
    file = tmp_path / "url"
    file.write_text(f"{value}\n")
    monkeypatch.setenv(f"{name}_FILE", str(file))
    settings = Settings.read()
    url = settings.redis_url if name == "REDIS_URL" else settings.database_url
    assert url is not None
    assert url.get_secret_value() == value
    monkeypatch.setenv(name, value)
    assert refusal() == f"{name} and {name}_FILE are both set: set one of them"
    monkeypatch.delenv(name)
    file.unlink()
    assert (
        refusal()
        == f"{name}_FILE: the file {str(file)!r} cannot be read: No such file or directory"
    )


def test_what_a_file_holds_is_judged_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "url").write_text("http://:hunter2@host")
    monkeypatch.setenv("REDIS_URL_FILE", str(tmp_path / "url"))
    assert refusal() == "REDIS_URL: write redis://host:6379/0, rediss://… or unix:///path/to.sock"


# --- what is not shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://:secret@host", "redis://:***@host"),
        ("redis://user:se@cret@host/1", "redis://user:***@host/1"),
        ("redis://user:1234@host", "redis://user:***@host"),
        ("rediss://host/0?password=secret&db=2", "rediss://host/0?password=***&db=2"),
        ("unix:///run/store.sock?PASSWORD=secret", "unix:///run/store.sock?PASSWORD=***"),
        ("postgresql://user:se/cret@db/app", "postgresql://user:***@db/app"),
        ("redis://user@host", "redis://user@host"),
        ("http://host:8080/users/me@example.com", "http://host:8080/users/me@example.com"),
        (
            "from redis://a:secret@b to redis://c:secret@d",
            "from redis://a:***@b to redis://c:***@d",
        ),
        (
            '{"url": "http://host:80", "mail": "me@example.com"}',
            '{"url": "http://host:80", "mail": "me@example.com"}',
        ),
        ("no address at all", "no address at all"),
    ],
)
def test_the_password_of_a_url_is_masked_and_nothing_else(url: str, shown: str) -> None:
    assert masked(url) == shown


def test_a_store_password_is_seen_only_by_who_asks_for_it() -> None:
    settings = Settings(
        redis_url="redis://user:hunter2@host/0", database_url="postgresql://app:hunter2@db/app"
    )
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == "redis://user:hunter2@host/0"
    for shown in (
        repr(settings),
        str(settings),
        str(settings.redis_url),
        settings.model_dump_json(),
    ):
        assert "hunter2" not in shown
    assert "redis://user:***@host/0" in repr(settings)
    assert str(settings.database_url) == "postgresql://app:***@db/app"


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:hunter2",
        "http://user:hunter2@host",
        "redis://:hun/ter2@host",
        "redis://u:hun\u2100@h",
        "redis://[hun",
    ],
)
def test_a_refused_url_keeps_its_password(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("REDIS_URL", url)
    assert "hun" not in refusal()
    with pytest.raises(ValidationError) as raw:
        Settings()
    assert "hun" not in str(raw.value)


def test_without_a_database_url_it_is_a_file_in_the_data_directory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CORRAL_DATA_DIR", "/srv/jobs")
    settings = Settings.read()
    assert settings.database_url is None
    assert settings.database_file == Path("/srv/jobs/corral.db")
    assert (
        settings.effective_database_url.get_secret_value()
        == "sqlite+aiosqlite:////srv/jobs/corral.db"
    )

    monkeypatch.setenv("CORRAL_DATABASE_URL", "postgresql+asyncpg://app:hunter2@db/app")
    assert str(Settings.read().effective_database_url) == "postgresql+asyncpg://app:***@db/app"


def test_whoever_knows_no_entry_points_reads_without_judging_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CORRAL_EMAILS_HOST", "mail.example")
    assert Settings.read(None) == Settings()
    monkeypatch.setenv("CORRAL_LOG_LEVEL", "LOUD")
    with pytest.raises(ConfigurationError, match="CORRAL_LOG_LEVEL"):
        Settings.read(None)
