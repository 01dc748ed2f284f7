"""How deliveries are made: the `CORRAL_WEBHOOKS_OUTGOING_…` environment."""

from __future__ import annotations

import difflib
import os
from typing import Annotated

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from corral.errors import ConfigurationError

__all__ = ["WebhookSettings"]

PREFIX = "CORRAL_WEBHOOKS_OUTGOING_"

LONGEST_SECONDS = 60.0
"""Half of the queue's timeout. Each attempt holds a place of the worker, and receivers answer before they work."""

Seconds = Annotated[float, Field(gt=0, le=LONGEST_SECONDS, allow_inf_nan=False)]


class WebhookSettings(BaseSettings):
    """The settings of `webhooks-outgoing`.

    Attributes:
        allow_private: Whether endpoints may have addresses that are not public, and URLs without TLS: for development,
            and for receivers in a network of your own.
        connect_timeout_seconds: How long it may take to find the address and to connect to it.
        timeout_seconds: How long an attempt may take in all, up to the last byte of the answer.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="ignore")

    allow_private: bool = False
    connect_timeout_seconds: Seconds = 5.0
    timeout_seconds: Seconds = 15.0

    @classmethod
    def from_environment(cls) -> WebhookSettings:
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
                faults.append(f"{name} is not a setting of webhooks-outgoing{meant}")
        try:
            settings = cls()
        except ValidationError as error:
            faults += [_told(fault) for fault in error.errors(include_url=False, include_input=False)]
        else:
            if not faults:
                return settings
        raise ConfigurationError("\n  ".join(["the settings of webhooks-outgoing were refused:", *faults]))


def _told(fault: ErrorDetails) -> str:
    message = fault["msg"]
    return f"{PREFIX}{str(fault['loc'][0]).upper()}: {message[:1].lower()}{message[1:]}"
