"""How deliveries are made: the `CORRAL_WEBHOOKS_OUTGOING_…` environment."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from corral.queue_settings import QueueSettings

__all__ = ["WebhookSettings"]

PREFIX = "CORRAL_WEBHOOKS_OUTGOING_"

LONGEST_SECONDS = 60.0
"""Half of the queue's timeout. Each attempt holds a place of the worker, and receivers answer before they work."""

Seconds = Annotated[float, Field(gt=0, le=LONGEST_SECONDS, allow_inf_nan=False)]


class WebhookSettings(QueueSettings):
    """The settings of `webhooks-outgoing`.

    Attributes:
        allow_private: Whether endpoints may have addresses that are not public, and URLs without TLS: for development,
            and for receivers in a network of your own.
        connect_timeout_seconds: How long it may take to find the address and to connect to it.
        timeout_seconds: How long an attempt may take in all, up to the last byte of the answer.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX)

    allow_private: bool = False
    connect_timeout_seconds: Seconds = 5.0
    timeout_seconds: Seconds = 15.0
