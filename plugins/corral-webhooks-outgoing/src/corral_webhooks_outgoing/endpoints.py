"""Endpoints: where webhooks go, and what signs them.

For the application, each in its own transaction.

This is the table that is asked where the application does not keep endpoints of its own
(`webhooks_outgoing_endpoint`).
"""

from __future__ import annotations

import base64
import binascii
import secrets as random
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Row, delete, insert, select, update

from corral.sql import Connection
from corral_webhooks_outgoing.settings import WebhookSettings
from corral_webhooks_outgoing.tables import webhook_endpoints, webhook_failing_endpoints
from corral_webhooks_outgoing.urls import EndpointRefused, accepted_url

__all__ = [
    "Endpoint",
    "EndpointRefused",
    "add_endpoint",
    "disable_endpoint",
    "enable_endpoint",
    "end_rotation",
    "find_endpoint",
    "forget_failures",
    "list_endpoints",
    "remove_endpoint",
    "rotate_secret",
]

PREFIX: Final = "whsec_"
SECRET_BYTES: Final = 32
"""Standard Webhooks has 24 to 64; 32 are what HMAC-SHA256 can use."""

_own = webhook_endpoints.c


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address that hears of events.

    Attributes:
        id: At most 128 characters, visible ASCII.
        url: The address.
        secrets: What deliveries are signed with, `whsec_…`, the newest first; one, or two while it
        is being changed.
        enabled: Whether anything is sent at all.
    """

    id: str
    url: str = field(repr=False)  # receivers put tokens of their own into it
    secrets: tuple[str, ...] = field(repr=False)
    enabled: bool = True


async def add_endpoint(
    connection: Connection, url: str, *, endpoint_id: str | None = None, secret: str | None = None
) -> Endpoint:
    """Store an endpoint, enabled.

    What its name stands for is not looked up here: that is done, and judged, at each delivery.

    Args:
        connection: The caller's connection or session, in its transaction.
        url: Where to; `https://` and public, unless `CORRAL_WEBHOOKS_OUTGOING_ALLOW_PRIVATE` is
            set, to port 80 or 443 or one of `CORRAL_WEBHOOKS_OUTGOING_PORTS`.
        endpoint_id: Its id; made up by default.
        secret: `whsec_` and 24 to 64 bytes in base64; made up by default.

    Returns:
        The endpoint. Its secret is for its owner: show it once.

    Raises:
        EndpointRefused: The URL, the id or the secret cannot be used.
        ConfigurationError: A `CORRAL_WEBHOOKS_OUTGOING_…` setting cannot be used.
        IntegrityError: There is an endpoint of this id.
    """
    settings = WebhookSettings()
    accepted_url(url, allow_private=settings.allow_private, ports=settings.ports)
    if endpoint_id is None:
        endpoint_id = f"ep_{random.token_hex(12)}"
    elif (
        not (0 < len(endpoint_id) <= 128 and endpoint_id.isascii() and endpoint_id.isprintable())
        or " " in endpoint_id
    ):
        raise EndpointRefused(
            "a webhook endpoint's id is not made of 1 to 128 visible ASCII characters"
        )
    endpoint = Endpoint(endpoint_id, url, (_check_or_create_secret(secret),))
    row = {"id": endpoint_id, "url": url, "secret": endpoint.secrets[0], "enabled": True}
    await connection.execute(insert(webhook_endpoints).values(row))
    return endpoint


async def find_endpoint(connection: Connection, endpoint_id: str) -> Endpoint | None:
    """The endpoint of this id, enabled or not; None where there is none."""
    row = (
        await connection.execute(select(webhook_endpoints).where(_own.id == endpoint_id))
    ).one_or_none()
    return None if row is None else _endpoint(row)


async def list_endpoints(connection: Connection) -> list[Endpoint]:
    """The enabled endpoints, ordered by id: a job for each sends it an event."""
    rows = await connection.execute(select(webhook_endpoints).where(_own.enabled).order_by(_own.id))
    return [_endpoint(row) for row in rows]


async def enable_endpoint(connection: Connection, endpoint_id: str) -> bool:
    """Send to it again, and forget its failures. False where there is no such endpoint."""
    await forget_failures(connection, endpoint_id)
    return await _update_endpoint(connection, endpoint_id, enabled=True)


async def disable_endpoint(connection: Connection, endpoint_id: str) -> bool:
    """Send nothing any more; jobs that are on their way fail for good.

    False where there is no such endpoint.
    """
    return await _update_endpoint(connection, endpoint_id, enabled=False)


async def remove_endpoint(connection: Connection, endpoint_id: str) -> bool:
    """Remove an endpoint with its secrets. Jobs that wait to be sent to it fail for good.

    Returns:
        Whether there was such an endpoint.
    """
    await forget_failures(connection, endpoint_id)
    gone = delete(webhook_endpoints).where(_own.id == endpoint_id).returning(_own.id)
    return (await connection.execute(gone)).first() is not None


async def rotate_secret(
    connection: Connection, endpoint_id: str, *, secret: str | None = None
) -> Endpoint | None:
    """Sign with a new secret, and with the one before as well, until `end_rotation`.

    No more than two sign at once.

    Args:
        connection: As `add_endpoint`.
        endpoint_id: Whose.
        secret: As `add_endpoint`.

    Returns:
        The endpoint with both secrets, the new one first; None where there is none.

    Raises:
        EndpointRefused: The secret cannot be used.
    """
    changed = {"secret": _check_or_create_secret(secret), "previous_secret": _own.secret}
    return (
        await find_endpoint(connection, endpoint_id)
        if await _update_endpoint(connection, endpoint_id, **changed)
        else None
    )


async def end_rotation(connection: Connection, endpoint_id: str) -> bool:
    """Sign with the newest secret only. False where there is no such endpoint."""
    return await _update_endpoint(connection, endpoint_id, previous_secret=None)


async def forget_failures(connection: Connection, endpoint_id: str) -> bool:
    """Forget since when an endpoint has accepted nothing: the days of its next outage count anew.

    A delivery that is accepted does that, and so do `enable_endpoint` and `remove_endpoint`. It is
    for applications that keep endpoints of their own.

    Returns:
        Whether it was failing.
    """
    of_it = webhook_failing_endpoints.c.endpoint_id == endpoint_id
    failing = delete(webhook_failing_endpoints).where(of_it)
    return (await connection.execute(failing.returning(of_it))).first() is not None


async def disable_address(connection: Connection, endpoint: Endpoint) -> None:
    """Disable an endpoint, unless its URL has changed since it was read."""
    same = (_own.id == endpoint.id) & (_own.url == endpoint.url)
    await connection.execute(update(webhook_endpoints).where(same).values(enabled=False))


async def _update_endpoint(connection: Connection, endpoint_id: str, **values: Any) -> bool:
    change = (
        update(webhook_endpoints).where(_own.id == endpoint_id).values(values).returning(_own.id)
    )
    return (await connection.execute(change)).first() is not None


def accepted_secret(secret: str) -> str:
    """The secret, judged in the same words when it is stored and when it signs.

    Raises:
        EndpointRefused: It is none, or one that can be guessed.
    """
    try:
        text = secret.removeprefix(PREFIX)
        key = base64.b64decode(
            text + "=" * (-len(text) % 4), validate=True
        )  # some leave the padding out
    except (binascii.Error, ValueError):  # ValueError: characters beyond ASCII
        key = b""
    if not secret.startswith(PREFIX) or not 24 <= len(key) <= 64:
        raise EndpointRefused(
            "a webhook's secret is not whsec_ and 24 to 64 bytes in base64"
        ) from None
    return secret


def _check_or_create_secret(secret: str | None) -> str:
    if secret is None:
        return PREFIX + base64.b64encode(random.token_bytes(SECRET_BYTES)).decode()
    return accepted_secret(secret)


def _endpoint(row: Row[Any]) -> Endpoint:
    signing = (row.secret,) if row.previous_secret is None else (row.secret, row.previous_secret)
    return Endpoint(row.id, row.url, signing, row.enabled)
