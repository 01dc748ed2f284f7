"""How deliveries are made: the `CORRAL_WEBHOOKS_OUTGOING_…` environment."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from corral import PluginSettings
from corral_webhooks_outgoing import HORIZON

__all__ = ["WebhookSettings"]

PREFIX = "CORRAL_WEBHOOKS_OUTGOING_"

LONGEST_SECONDS = 60.0
"""Half of the queue's timeout.

Each attempt holds a place of the worker, and receivers answer before they work.
"""

Port = Annotated[int, Field(ge=1, le=65535)]
Days = Annotated[float, Field(gt=0, le=365, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, le=LONGEST_SECONDS, allow_inf_nan=False)]


class WebhookSettings(PluginSettings):
    """The settings of `webhooks-outgoing`.

    Attributes:
        allow_private: Whether endpoints may have addresses that are not public, and URLs without
            TLS: for development, and for receivers in a network of your own. Where no ports are
            named, any port as well.
        ports: The ports that endpoints may have besides 80 and 443.
        connect_timeout_seconds: How long it may take to find the address and to connect to it.
        timeout_seconds: How long an attempt may take in all, up to the last byte of the answer.
        endpoint_concurrency: How many deliveries to one endpoint this process makes at once.
        breaker_failures: After how many failures in a row an endpoint's jobs wait until it answers
            again.
        horizon_days: How old a delivery may be, counted from when it was due, before it is given
            up. A job also ends with its attempts, which are declared for three days.
        failing_days: How long an endpoint accepts nothing before that is announced.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX)

    allow_private: bool = False
    ports: Annotated[tuple[Port, ...], NoDecode] = ()
    connect_timeout_seconds: Seconds = 5.0
    timeout_seconds: Seconds = 15.0
    endpoint_concurrency: Annotated[int, Field(ge=1)] = 2
    breaker_failures: Annotated[int, Field(ge=1)] = 5
    horizon_days: Days = HORIZON / timedelta(days=1)
    failing_days: Days = 2.0

    @field_validator("ports", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return (
            tuple(part.strip() for part in value.split(",") if part.strip())
            if isinstance(value, str)
            else value
        )
