"""`CORRAL_EMAILS_…`: what holds without any, what another machine needs, and how a wrong one is
reported.
"""

from __future__ import annotations

import pytest

from corral.errors import ConfigurationError
from corral_emails.settings import EmailSettings


@pytest.fixture
def setting(monkeypatch):
    def set_all(**settings: str) -> None:
        for name, value in settings.items():
            monkeypatch.setenv(f"CORRAL_EMAILS_{name}", value)

    return set_all


def refusal() -> list[str]:
    with pytest.raises(ConfigurationError) as refused:
        EmailSettings()
    first, *faults = str(refused.value).splitlines()
    assert first == "the settings of emails were refused:"
    return [fault.strip() for fault in faults]


def test_without_any_mail_goes_to_a_server_on_this_machine() -> None:
    settings = EmailSettings()
    assert (settings.host, settings.effective_port, settings.tls_mode) == ("localhost", 25, "none")
    assert settings.sender.email == "no-reply@localhost"


@pytest.mark.parametrize(
    ("tls", "mode", "port"),
    [("", "starttls", 587), ("implicit", "implicit", 465), ("none", "none", 25)],
)
def test_another_machine_is_spoken_to_in_private_unless_said_otherwise(
    setting, tls, mode, port
) -> None:
    setting(HOST="mx.acme.example", SENDER="Acme <no-reply@acme.example>", TLS=tls)
    settings = EmailSettings()
    assert (settings.tls_mode, settings.effective_port) == (mode, port)
    setting(PORT="2525")
    assert EmailSettings().effective_port == 2525


def test_another_machine_needs_a_sender(setting) -> None:
    setting(HOST="mx.acme.example")
    assert refusal() == ["CORRAL_EMAILS_SENDER: needed where CORRAL_EMAILS_HOST is another machine"]


def test_a_password_is_not_sent_in_clear_text_and_never_shown(setting) -> None:
    setting(
        HOST="mx.acme.example",
        SENDER="a@acme.example",
        USERNAME="ada",
        PASSWORD="hunter2",
        TLS="none",
    )
    assert refusal() == ["CORRAL_EMAILS_TLS: 'none' would send the password in clear text"]
    setting(TLS="starttls")
    assert "hunter2" not in repr(EmailSettings())


@pytest.mark.parametrize("name", ["USERNAME", "PASSWORD"])
def test_a_login_is_two_settings(setting, name) -> None:
    setting(**{name: "hunter2"})
    assert refusal() == ["CORRAL_EMAILS_USERNAME and CORRAL_EMAILS_PASSWORD: one without the other"]


def test_everything_that_is_wrong_is_reported_at_once_and_by_its_name(setting, tmp_path) -> None:
    setting(
        HOSTT="x",
        PORT="70000",
        TLS="ssl",
        SENDER="nobody",
        TIMEOUT_SECONDS="0",
        TEMPLATES_DIR=str(tmp_path / "none"),
    )
    faults = refusal()
    assert faults[0] == "CORRAL_EMAILS_HOSTT is not a setting; did you mean CORRAL_EMAILS_HOST?"
    assert [fault.partition(":")[0] for fault in faults[1:]] == [
        f"CORRAL_EMAILS_{name}"
        for name in ("PORT", "TLS", "SENDER", "TIMEOUT_SECONDS", "TEMPLATES_DIR")
    ]
    assert "CORRAL_EMAILS_TLS: input should be 'none', 'starttls' or 'implicit'" in faults
