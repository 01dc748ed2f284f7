"""The use cases. Each runs in one `Work`, and knows neither HTTP nor queues."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from corral.board import Identity, Role
from corral_account_deletions.requests import cancel_deletion
from corral_billing_webhooks_retry import BillingEvent
from corral_usage_period_rollover.tables import usage_periods, usage_totals
from corral_usage_period_rollover.usage import begin_subscription, record_usage
from examples.saas.events import (
    AccountDeletionOrdered,
    BillingEventReceived,
    ExportOrdered,
    RolloverOrdered,
    UserRegistered,
)
from examples.saas.tables import invites, notes, users
from examples.saas.work import Work

__all__ = [
    "ClosedHour",
    "Refused",
    "SignedUp",
    "User",
    "authenticate",
    "board_identity",
    "closed_hours",
    "delete_account",
    "grant_board",
    "order_export",
    "order_rollover",
    "receive_billing_event",
    "restore_account",
    "sign_up",
    "use",
    "write_note",
]


class Refused(Exception):
    """Something that cannot be done, in words for the user."""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody with an account."""

    id: str
    email: str
    name: str
    plan: str


@dataclass(frozen=True, slots=True)
class SignedUp:
    """A new account. The token is shown once: only its hash is kept."""

    user_id: str
    token: str


@dataclass(frozen=True, slots=True)
class ClosedHour:
    """A metered hour that is over and billed."""

    started_at: datetime
    requests: int


async def sign_up(
    work: Work,
    *,
    email: str,
    name: str,
    invite: str | None = None,
    member_since: datetime | None = None,
) -> SignedUp:
    """Make an account.

    Whatever is refused after the event was raised takes its jobs back with everything else.

    Args:
        work: The transaction.
        email: The address, one account each.
        name: What the user is called.
        invite: A code that can be redeemed once, or None.
        member_since: When metering begins (aware), for accounts that come from elsewhere; now by
        default.

    Raises:
        Refused: The address has an account, or the invite is unknown or redeemed.
    """
    user = User(f"usr_{secrets.token_hex(8)}", email, name, "free")
    token = secrets.token_urlsafe(32)
    now = datetime.now(UTC)
    row = {
        "id": user.id,
        "email": email,
        "name": name,
        "plan": user.plan,
        "joined_at": now,
        "token_hash": _hash(token),
    }
    try:
        await work.connection.execute(insert(users).values(row))
    except IntegrityError:
        raise Refused("this address has an account") from None
    await begin_subscription(work.connection, user.id, "hour", started_at=member_since or now)
    await work.publish(UserRegistered(user.id, email, name))
    if invite is not None:
        await _redeem(work.connection, invite, user.id)
    return SignedUp(user.id, token)


async def authenticate(connection: AsyncConnection, token: str) -> User | None:
    """Whose token it is; None where it is nobody's."""
    found = select(users.c.id, users.c.email, users.c.name, users.c.plan).where(
        users.c.token_hash == _hash(token)
    )
    row = (await connection.execute(found)).one_or_none()
    return None if row is None else User(row.id, row.email, row.name, row.plan)


async def grant_board(connection: AsyncConnection, email: str, role: Role | None) -> bool:
    """Let somebody see the board of the queues, or no longer.

    Returns:
        Whether there is somebody of this address.
    """
    changed = await connection.execute(
        update(users).where(users.c.email == email).values(board_role=role)
    )
    return changed.rowcount == 1


async def board_identity(connection: AsyncConnection, token: str) -> Identity | None:
    """What somebody with this token is on the board; None where it is nobody's."""
    found = select(users.c.email, users.c.board_role).where(users.c.token_hash == _hash(token))
    row = (await connection.execute(found)).one_or_none()
    return None if row is None else Identity(row.email, row.board_role and Role(row.board_role))


async def write_note(work: Work, user: User, text: str) -> None:
    """Keep a note."""
    await work.connection.execute(
        insert(notes).values(user_id=user.id, text=text, written_at=datetime.now(UTC))
    )


async def use(work: Work, user: User, requests: int, at: datetime | None, key: str | None) -> None:
    """Count what a user has used, now or at a moment (aware); once for each key."""
    await record_usage(work.connection, user.id, "requests", requests, recorded_at=at, key=key)


async def closed_hours(connection: AsyncConnection, user: User) -> list[ClosedHour]:
    """The user's hours that are over, in order."""
    totals = (
        select(usage_periods.c.started_at, usage_totals.c.amount)
        .join_from(usage_periods, usage_totals)
        .where(usage_periods.c.subscription_id == user.id, usage_totals.c.metric == "requests")
        .order_by(usage_periods.c.started_at)
    )
    return [
        ClosedHour(started_at, amount) for started_at, amount in await connection.execute(totals)
    ]


async def order_export(work: Work, user: User, format: Literal["json", "csv"]) -> str:  # noqa: A002  # the payload's word
    """Have everything that is kept about a user packed; returns the export's id."""
    export_id = f"exp_{secrets.token_hex(8)}"
    await work.publish(ExportOrdered(user.id, export_id, format))
    return export_id


async def delete_account(work: Work, user: User) -> None:
    """Have the account erased when the grace period is over."""
    await work.publish(AccountDeletionOrdered(user.id, user.email))


async def restore_account(work: Work, user: User) -> bool:
    """Take a deletion back; false where there is none to take back."""
    return await cancel_deletion(work.connection, user.id)


async def receive_billing_event(work: Work, event: BillingEvent) -> None:
    """Take what the payment provider says; its signature has been verified."""
    await work.publish(BillingEventReceived(event))


async def order_rollover(work: Work) -> None:
    """Close what is due now, without waiting for the hour."""
    await work.publish(RolloverOrdered())


async def _redeem(connection: AsyncConnection, code: str, user_id: str) -> None:
    redeemed = (
        update(invites)
        .where(invites.c.code == code, invites.c.redeemed_by.is_(None))
        .values(redeemed_by=user_id)
        .returning(invites.c.code)
    )
    if (await connection.execute(redeemed)).first() is None:
        raise Refused("this invite is unknown or was redeemed")


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
