"""Whose events are handled: the `CORRAL_BILLING_WEBHOOKS_RETRY_…` environment."""

from __future__ import annotations

import difflib
import os
from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from corral.errors import ConfigurationError
from corral_billing_webhooks_retry import Provider

__all__ = ["BillingSettings"]

PREFIX = "CORRAL_BILLING_WEBHOOKS_RETRY_"


def _split(value: object) -> object:
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


class BillingSettings(BaseSettings):
    """The settings of `billing-webhooks-retry`.

    Attributes:
        providers: Whose events are handled; the job of anybody else's event fails for good.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="ignore")

    # NoDecode: names separated by commas, not JSON
    providers: Annotated[frozenset[Provider], NoDecode, BeforeValidator(_split), Field(min_length=1)] = frozenset(
        {"stripe"}
    )

    @classmethod
    def from_environment(cls) -> BillingSettings:
        """The settings of this process.

        Raises:
            ConfigurationError: Settings that are misspelt or of no use; it names all of them.
        """
        known = [f"{PREFIX}{name.upper()}" for name in cls.model_fields]
        faults: list[str] = []
        for name in sorted(os.environ):
            if name.upper().startswith(PREFIX) and name.upper() not in known:
                near = difflib.get_close_matches(name.upper(), known, n=1)
                meant = f"; did you mean {near[0]}?" if near else ""
                faults.append(f"{name} is not a setting of billing-webhooks-retry{meant}")
        try:
            settings = cls()
        except ValidationError as error:
            for fault in error.errors(include_url=False, include_input=False):
                message = fault["msg"]
                faults.append(f"{PREFIX}{str(fault['loc'][0]).upper()}: {message[:1].lower()}{message[1:]}")
        else:
            if not faults:
                return settings
        raise ConfigurationError("\n  ".join(["the settings of billing-webhooks-retry were refused:", *faults]))
