"""`CORRAL_BILLING_WEBHOOKS_RETRY_…`: whose events are handled, and how a wrong setting is reported."""

from __future__ import annotations

import pytest

from corral.errors import ConfigurationError
from corral_billing_webhooks_retry.settings import PREFIX, BillingSettings


@pytest.mark.parametrize(
    ("written", "providers"),
    [
        (None, {"stripe"}),
        ("", {"stripe"}),
        ("paddle", {"paddle"}),
        (" stripe, google-play ,stripe", {"stripe", "google-play"}),
    ],
)
def test_providers_are_separated_by_commas(
    monkeypatch: pytest.MonkeyPatch, written: str | None, providers: set[str]
) -> None:
    if written is not None:
        monkeypatch.setenv(f"{PREFIX}PROVIDERS", written)
    assert BillingSettings().providers == providers


def test_everything_that_is_wrong_is_reported_at_once_and_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(f"{PREFIX}PROVIDER", "stripe")
    monkeypatch.setenv(f"{PREFIX}PROVIDERS", "stripe,Paddle Inc")
    with pytest.raises(ConfigurationError) as refused:
        BillingSettings()
    first, *faults = str(refused.value).splitlines()
    assert first == "the settings of billing-webhooks-retry were refused:"
    assert faults == [
        f"  {PREFIX}PROVIDER is not a setting; did you mean {PREFIX}PROVIDERS?",
        f"  {PREFIX}PROVIDERS: string should match pattern '^[a-z0-9]+(-[a-z0-9]+)*$'",
    ]


def test_a_list_of_nobody_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}PROVIDERS", ",")
    with pytest.raises(ConfigurationError, match="PROVIDERS"):
        BillingSettings()
