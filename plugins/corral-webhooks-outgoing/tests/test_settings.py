"""`CORRAL_WEBHOOKS_OUTGOING_…`: what holds without any, and how a wrong one is reported."""

from __future__ import annotations

from datetime import timedelta

import pytest

from corral.errors import ConfigurationError
from corral_webhooks_outgoing import HORIZON
from corral_webhooks_outgoing.settings import PREFIX, WebhookSettings


def test_without_any_nothing_private_is_reached_and_an_attempt_lasts_fifteen_seconds() -> None:
    settings = WebhookSettings()
    assert (settings.allow_private, settings.connect_timeout_seconds, settings.timeout_seconds) == (
        False,
        5.0,
        15.0,
    )


def test_without_any_an_endpoint_has_two_requests_at_once_and_three_days() -> None:
    settings = WebhookSettings()
    assert (settings.endpoint_concurrency, settings.breaker_failures) == (2, 5)
    assert timedelta(days=settings.horizon_days) == HORIZON
    assert settings.failing_days < settings.horizon_days, "owners hear of it before events are lost"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("ENDPOINT_CONCURRENCY", value) for value in ("0", "-1", "1.5", "many")),
        *(("BREAKER_FAILURES", value) for value in ("0", "2.5")),
        *(("HORIZON_DAYS", value) for value in ("0", "-1", "366", "inf", "nan")),
        *(("FAILING_DAYS", value) for value in ("0", "366", "nan")),
    ],
)
def test_bounds_that_cannot_hold_are_refused(monkeypatch, name, value) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(ConfigurationError, match=PREFIX + name):
        WebhookSettings()


@pytest.mark.parametrize(
    ("value", "allowed"), [("1", True), ("true", True), ("0", False), ("", False)]
)
def test_private_addresses_are_allowed_by_a_plain_yes(monkeypatch, value, allowed) -> None:
    monkeypatch.setenv(f"{PREFIX}ALLOW_PRIVATE", value)
    assert WebhookSettings().allow_private is allowed


@pytest.mark.parametrize(
    ("value", "ports"), [("", ()), ("8443", (8443,)), (" 8443, 9443 ,", (8443, 9443))]
)
def test_ports(monkeypatch, value, ports) -> None:
    monkeypatch.setenv(f"{PREFIX}PORTS", value)
    assert WebhookSettings().ports == ports


@pytest.mark.parametrize("value", ["0", "65536", "*", "https", "8000-9000", "-1"])
def test_ports_that_are_none_are_refused(monkeypatch, value) -> None:
    monkeypatch.setenv(f"{PREFIX}PORTS", value)
    with pytest.raises(ConfigurationError, match=f"{PREFIX}PORTS"):
        WebhookSettings()


def test_everything_that_is_wrong_is_reported_at_once_and_by_its_name(monkeypatch) -> None:
    for name, value in {
        "ALOW_PRIVATE": "1",
        "ALLOW_PRIVATE": "perhaps",
        "TIMEOUT_SECONDS": "61",
        "CONNECT_TIMEOUT_SECONDS": "0",
    }.items():
        monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(ConfigurationError) as refused:
        WebhookSettings()
    first, *faults = str(refused.value).splitlines()
    assert first == "the settings of webhooks-outgoing were refused:"
    assert (
        faults[0].strip()
        == f"{PREFIX}ALOW_PRIVATE is not a setting; did you mean {PREFIX}ALLOW_PRIVATE?"
    )
    assert [fault.strip().partition(":")[0] for fault in faults[1:]] == [
        f"{PREFIX}{name}"
        for name in ("ALLOW_PRIVATE", "CONNECT_TIMEOUT_SECONDS", "TIMEOUT_SECONDS")
    ]
