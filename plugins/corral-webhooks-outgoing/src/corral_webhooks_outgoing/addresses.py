"""Which addresses are public: those that anybody on the internet would reach under them.

A webhook's address is chosen by a stranger, and the worker stands inside the network. The table is
our own, because `ipaddress.is_global` changes with the Python that runs it (CVE-2024-4032) and
judges no address inside another.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

__all__ = ["is_public", "literal_address"]

_NOT_PUBLIC_4: Final = tuple(
    IPv4Network(network)
    for network in (
        # IANA's special-purpose registry
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # behind a carrier's NAT; a cloud's metadata service at 100.100.100.200
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local; the metadata services at 169.254.169.254 and around it
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; a cloud's metadata service at 192.0.0.192
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        # looks public, and is answered inside one cloud only: its metadata and management service
        "168.63.129.16/32",
    )
)
_GLOBAL_6: Final = IPv6Network("2000::/3")
"""All that is given out to be reached from everywhere; loopback, mapped, private, link-local,
multicast are outside.
"""
_NOT_PUBLIC_6: Final = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address inside, and nobody's network any more
        "3fff::/20",  # documentation
    )
)
_NAT64: Final = IPv6Network("64:ff9b::/96")
"""How a network without IPv4 writes an IPv4 address (RFC 6052): its last 32 bits."""

_NUMBER: Final = re.compile(r"0x[0-9a-f]+|0[0-7]*|[1-9][0-9]*", re.IGNORECASE)


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is public.

    An IPv4 address that is written as an IPv6 one is not, whatever it is, but for one form: NAT64,
    which resolvers of networks without IPv4 make of every IPv4 address, is judged by what is
    inside.
    """
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    if address.scope_id is not None:
        return False
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    return address in _GLOBAL_6 and not any(address in network for network in _NOT_PUBLIC_6)


def literal_address(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a host of a URL is, or None where it is a name.

    Reads what `inet_aton` reads: one to four numbers, each decimal, octal or hexadecimal, the last
    one filling the rest: `2130706433`, `0x7f.1` and `0177.0.0.1` are 127.0.0.1 to every system's
    resolver.
    """
    try:
        return ip_address(host)
    except ValueError:
        pass
    parts = host.removesuffix(".").split(".")
    if len(parts) > 4 or not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    *first, last = (_number(part) for part in parts)
    if any(number > 0xFF for number in first) or last >= 1 << 8 * (4 - len(first)):
        return None
    return IPv4Address(sum(number << 8 * (3 - place) for place, number in enumerate(first)) + last)


def _number(text: str) -> int:
    if text[:2].lower() == "0x":
        return int(text, 16)
    return int(text, 8 if text.startswith("0") else 10)
