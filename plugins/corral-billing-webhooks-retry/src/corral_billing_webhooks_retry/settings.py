"""Whose events are handled: the `CORRAL_BILLING_WEBHOOKS_RETRY_…` environment."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode, SettingsConfigDict

from corral import PluginSettings
from corral_billing_webhooks_retry import Provider

__all__ = ["BillingSettings"]

PREFIX = "CORRAL_BILLING_WEBHOOKS_RETRY_"


def _split(value: object) -> object:
    return (
        [name.strip() for name in value.split(",") if name.strip()]
        if isinstance(value, str)
        else value
    )


class BillingSettings(PluginSettings):
    """The settings of `billing-webhooks-retry`.

    Attributes:
        providers: Whose events are handled; the job of anybody else's event fails for good.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX)

    # NoDecode: names separated by commas, not JSON
    providers: Annotated[
        frozenset[Provider], NoDecode, BeforeValidator(_split), Field(min_length=1)
    ] = frozenset({"stripe"})
