"""Expiring links to archives in a directory: the worker signs them, the application checks them.

Object stores sign their own. A link is `<base URL>/<key>?expires=<unix
seconds>&signature=<HMAC-SHA256>`; the key is the archive's name in the storage. It knows neither
storage nor settings.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime

from corral.errors import CorralError

__all__ = ["LinkExpired", "LinkRefused", "signed_link", "verified"]

CONTEXT = b"corral-data-exports link 1"
"""Signed with the rest, so that a secret that is used elsewhere too gives nobody a link."""


class LinkRefused(CorralError):
    """A link that nobody here has signed, or not as it stands."""


class LinkExpired(LinkRefused):
    """A link of ours whose time is over."""


def signed_link(base_url: str, key: str, secret: str, expires: datetime) -> str:
    """A link that is good until a moment.

    Args:
        base_url: Where the application serves archives, without query.
        key: The archive; a plain name, as `corral_data_exports.storage.object_key` makes it.
        secret: What it is signed with.
        expires: Aware; counted in whole seconds.
    """
    moment = str(int(expires.timestamp()))
    return (
        f"{base_url.rstrip('/')}/{key}?expires={moment}&signature={_signature(key, moment, secret)}"
    )


def verified(
    key: str, expires: str, signature: str, *, secret: str, now: datetime | None = None
) -> str:
    """Check a link that somebody came with.

    Args:
        key: The last part of its path.
        expires: Its parameter of that name.
        signature: Its parameter of that name.
        secret: What our links are signed with.
        now: The moment, aware; by default this one.

    Returns:
        The key of the archive, for `corral_data_exports.storage.open_export`.

    Raises:
        LinkExpired: It was ours, and is no longer good.
        LinkRefused: It is not ours, or was changed.
    """
    expected = _signature(key, expires, secret)
    if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace")):
        raise LinkRefused("the link's signature is not ours")
    if (now or datetime.now(UTC)).timestamp() >= int(expires):
        raise LinkExpired("the link has expired")
    return key


def _signature(key: str, expires: str, secret: str) -> str:
    """HMAC-SHA256 over context, key and moment, each ended by NUL, in base64 for URLs."""
    said = b"\0".join([CONTEXT, *(part.encode("utf-8", "replace") for part in (key, expires)), b""])
    digest = hmac.new(secret.encode(), said, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
