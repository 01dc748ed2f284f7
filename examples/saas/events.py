"""What happens in the domain. Whoever raises an event does not know who listens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from corral_billing_webhooks_retry import BillingEvent

__all__ = [
    "AccountDeletionOrdered",
    "BillingEventReceived",
    "Event",
    "ExportOrdered",
    "RolloverOrdered",
    "UserRegistered",
]


@dataclass(frozen=True, slots=True)
class UserRegistered:
    """Somebody has signed up."""

    user_id: str
    email: str
    name: str


@dataclass(frozen=True, slots=True)
class ExportOrdered:
    """A user wants everything that we have of theirs."""

    user_id: str
    export_id: str
    format: Literal["json", "csv"]


@dataclass(frozen=True, slots=True)
class AccountDeletionOrdered:
    """A user wants to be forgotten."""

    user_id: str
    email: str


@dataclass(frozen=True, slots=True)
class BillingEventReceived:
    """The payment provider has sent an event, and its signature was right."""

    event: BillingEvent


@dataclass(frozen=True, slots=True)
class RolloverOrdered:
    """An operator does not want to wait for the hour."""


Event = (
    UserRegistered | ExportOrdered | AccountDeletionOrdered | BillingEventReceived | RolloverOrdered
)
