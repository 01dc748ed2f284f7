"""By which name we greet the server.

RFC 5321 § 4.1.4 asks for a domain name, or for an address literal where the client has none. Strict
servers refuse anything else, and a container's own idea of its name is `localhost`.
"""

from __future__ import annotations

import ipaddress
import re

__all__ = ["EHLO_NAME", "address_literal", "usable_name"]

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)+[A-Za-z](?:[A-Za-z0-9-]{{0,61}}[A-Za-z0-9])?")
EHLO_NAME = rf"^(?:{_LABEL}(?:\.{_LABEL})*|\[(?:IPv6:)?[0-9A-Fa-f:.]+\])$"
"""What may stand after EHLO: a name, or an address literal."""


def usable_name(fqdn: str) -> str | None:
    """The name of this host if it can be a public one, else None.

    Args:
        fqdn: What `socket.getfqdn` returns: anything from a domain name to `localhost`, an address,
            or the name of its reverse lookup.
    """
    name = fqdn.rstrip(".")
    is_local = name.lower().partition(".")[0] == "localhost" or name.lower().endswith(".arpa")
    return name if _DOMAIN.fullmatch(name) and not is_local else None


def address_literal(address: str) -> str:
    """An IP address as EHLO takes it: `[127.0.0.1]`, `[IPv6:::1]`.

    Args:
        address: The address of the local end of a connection, as its socket has it.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])  # without the interface: fe80::1%eth0
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is None:
            return f"[IPv6:{ip.compressed}]"
        ip = ip.ipv4_mapped
    return f"[{ip}]"
