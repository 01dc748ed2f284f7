"""What an endpoint's URL may be.

Judged in the same words when it is stored and when a job is delivered.

Only what the text says is judged here. What a name stands for can change at any time: `guard` looks
at that, when it connects.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from corral.errors import CorralError
from corral_webhooks_outgoing.addresses import is_public, literal_address

if TYPE_CHECKING:
    import httpx2

__all__ = ["MAX_URL_LENGTH", "EndpointRefused", "accepted_url"]

MAX_URL_LENGTH: Final = 2048
"""As long as the column."""

HINT: Final = "CORRAL_WEBHOOKS_OUTGOING_ALLOW_PRIVATE=1 allows it, in development"

PORTS: Final = frozenset({80, 443})
"""Where web servers listen.

What listens elsewhere on a public address may be a mail server or a database of yours.
"""

_AUTHORITY: Final = re.compile(r"[^/]*//([^/?#]*)")
_NAME: Final = re.compile(r"(?=.{1,253}$)([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}")
"""A name as resolvers take it, and some have underscores: no percent sign, no empty part, no dot at
its end, which no certificate has.
"""


class EndpointRefused(CorralError):
    """An endpoint that cannot be: its URL, its id or its secret.

    The text repeats none of the three.
    """


def accepted_url(url: str, *, allow_private: bool, ports: Collection[int] = ()) -> httpx2.URL:
    """The URL, parsed.

    Args:
        url: `https://hooks.example.org/corral`. A path and a query may hold the receiver's own
            token, so no error repeats them.
        allow_private: Whether `http://` and addresses that are not public are allowed.
        ports: The ports that are allowed besides 80 and 443; with `allow_private` and without any,
        every port is.

    Raises:
        EndpointRefused: It is no URL that a webhook can be sent to.
    """
    import httpx2  # noqa: PLC0415  # 2 MiB, which a worker need not have before its first delivery

    if len(url) > MAX_URL_LENGTH:
        raise EndpointRefused(
            f"a webhook's URL has {len(url)} characters, more than {MAX_URL_LENGTH}"
        )
    # readers of URLs disagree about these: one sees the host before a backslash, another the one
    # behind it
    if "\\" in url or not url.isprintable() or " " in url:
        raise EndpointRefused(
            "a webhook's URL has a blank, a backslash or a control character in it"
        )
    try:
        parsed = httpx2.URL(url)
        port = parsed.port
    except (httpx2.InvalidURL, ValueError):  # their text repeats the URL
        raise EndpointRefused("a webhook's URL is no URL, or its host is no host") from None
    if parsed.scheme != "https" and not (parsed.scheme == "http" and allow_private):
        hint = HINT if parsed.scheme == "http" else None
        raise EndpointRefused("a webhook's URL does not begin with https://", hint=hint)
    authority = _AUTHORITY.match(url)
    if authority is None or "@" in authority[1]:
        raise EndpointRefused(
            "a webhook's URL has a user or a password in it: deliveries are signed instead"
        )
    host = parsed.raw_host.decode("ascii")
    address = literal_address(host)
    if (address is None and not _NAME.fullmatch(host)) or (
        port is not None and not 0 < port < 1 << 16
    ):
        raise EndpointRefused(
            "a webhook's URL has a host that is no name and no address,"
            " or a port that does not exist"
        )
    if port is not None and port not in {*PORTS, *ports} and (ports or not allow_private):
        allowed = ", ".join(map(str, sorted({*PORTS, *ports})))
        raise EndpointRefused(
            f"a webhook's URL has the port {port}, and webhooks go to {allowed}",
            hint="CORRAL_WEBHOOKS_OUTGOING_PORTS names further ones",
        )
    local = host.removesuffix(".").rpartition(".")[2] == "localhost"
    if not allow_private and (local or (address is not None and not is_public(address))):
        raise EndpointRefused(f"a webhook's URL names {host!r}, which is not public", hint=HINT)
    return parsed
