"""What is public, and what a URL may be when it is stored."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, ip_address

import pytest

from corral_webhooks_outgoing.addresses import is_public, literal_address
from corral_webhooks_outgoing.urls import EndpointRefused, accepted_url

SECRET_URL = "https://127.0.0.1/t0ken?key=t0ken"


@pytest.mark.parametrize(
    "address",
    [
        *(
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "93.184.216.34",
            "100.63.255.255",
            "100.128.0.0",
        ),
        *(
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
        ),
        *(
            "168.63.129.15",
            "168.63.129.17",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450:4001::200e",
            "2620:fe::9",
        ),
        "64:ff9b::8.8.8.8",
    ],
)
def test_what_everybody_reaches_is_public(address) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        *(
            "0.0.0.0",
            "0.255.255.255",
            "10.0.0.0",
            "100.64.0.0",
            "100.127.255.255",
            "127.0.0.0",
            "169.254.0.1",
        ),
        *(
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.8",
            "192.168.255.255",
            "198.19.255.255",
            "224.0.0.0",
            "240.0.0.0",
        ),
        *(
            "::",
            "::1",
            "::7f00:1",
            "::ffff:8.8.8.8",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::808:808",
            "100::1",
            "1fff::1",
        ),
        *(
            "2001::1",
            "2001:1ff::1",
            "2002:808:808::",
            "3fff:fff::1",
            "4000::1",
            "fc00::1",
            "fe80::1",
            "ff0e::1",
        ),
        "2606:4700::1111%lo",
    ],
)
def test_what_is_special_is_not(address) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "host",
    [
        *(
            "127.0.0.1",
            "127.1",
            "127.0.1",
            "0",
            "1",
            "0x7f.1",
            "0X7F000001",
            "0177.0.0.1",
            "017700000001",
            "2130706433",
        ),
        *(
            "4294967295",
            "0xffffffff",
            "1.2.3",
            "1.65536",
            "1.16777215",
            "0x",
            "0x.1",
            "00000000001.2.3.4",
        ),
        *(
            "4294967296",
            "256.1",
            "1.2.256.1",
            "1.2.3.256",
            "1.2.65536",
            "1.2.3.4.5",
            "08.1",
            "0xg",
            "1..2",
            "1.2.3.x",
            "",
        ),
    ],
)
def test_a_number_in_whatever_form_is_the_address_that_the_system_makes_of_it(host) -> None:
    try:
        system = IPv4Address(socket.inet_aton(host)) if host else None
    except OSError:
        system = None
    assert literal_address(host) == system


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.org",
        "https://hooks.example.org:443/corral?token=t0ken",
        "https://hooks.example.org:80/",
        "HTTPS://Hooks.Example.ORG/a@b",
        "https://bücher.example/",
        "https://under_score.example.org/",
        "https://93.184.216.34/",
        "https://[2606:4700::1111]/",
        "https://localhost.example.org/",
    ],
)
def test_what_may_be_stored(url) -> None:
    accepted_url(url, allow_private=False)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://hooks.example.org/", "does not begin with https://"),
        ("wss://hooks.example.org/", "does not begin with https://"),
        ("hooks.example.org", "does not begin with https://"),
        ("", "does not begin with https://"),
        ("https://", "no name and no address"),
        ("https://a..b/", "no name and no address"),
        ("https://hooks.example.org./", "no name and no address"),
        (f"https://{'a' * 64}.example/", "no name and no address"),
        ("https://hooks.example.org:0/", "port that does not exist"),
        ("https://hooks.example.org:65536/", "port that does not exist"),
        ("https://hooks.example.org:https/", "is no URL"),
        ("https://[::g]/", "is no URL"),
        ("https://ada@hooks.example.org/", "user or a password"),
        ("https://hooks.example.org/" + "a" * 2048, "more than 2048"),
    ],
)
def test_what_may_not_be_stored_whoever_allows_what(url, reason) -> None:
    for allow_private in (False, True) if not url.startswith("http://") else (False,):
        with pytest.raises(EndpointRefused, match=reason):
            accepted_url(url, allow_private=allow_private)


@pytest.mark.parametrize(
    ("port", "named", "allow_private", "accepted"),
    [
        (8443, (), False, False),
        (22, (), False, False),
        (8443, (8443, 9443), False, True),
        (443, (8443,), False, True),
        (80, (8443,), False, True),
        (6379, (8443,), False, False),
        (6379, (), True, True),
        (6379, (8443,), True, False),
        (8443, (8443,), True, True),
    ],
)
def test_webhooks_go_to_80_and_443_and_the_ports_that_are_named(
    port, named, allow_private, accepted
) -> None:
    """Development goes to any port, unless it names some."""
    url = f"https://hooks.example.org:{port}/"
    if accepted:
        accepted_url(url, allow_private=allow_private, ports=named)
        return
    with pytest.raises(
        EndpointRefused, match=f"has the port {port}, and webhooks go to 80, 443"
    ) as refused:
        accepted_url(url, allow_private=allow_private, ports=named)
    assert refused.value.hint == "CORRAL_WEBHOOKS_OUTGOING_PORTS names further ones"


@pytest.mark.parametrize(
    "url", ["https://127.0.0.1/", "http://localhost:8000/", "http://[::1]/", "http://printer/"]
)
def test_development_may_reach_itself_and_without_tls(url) -> None:
    with pytest.raises(EndpointRefused) as refused:
        accepted_url(url, allow_private=False)
    assert (
        refused.value.hint == "CORRAL_WEBHOOKS_OUTGOING_ALLOW_PRIVATE=1 allows it, in development"
    )
    accepted_url(url, allow_private=True)


@pytest.mark.parametrize(
    "url",
    [
        SECRET_URL,
        "https://[t0ken/",
        "http://x/t0ken",
        "https://x:t0ken/",
        "https://t0ken:a@x/",
        "https://x/\\t0ken",
    ],
)
def test_a_refusal_does_not_repeat_what_may_be_a_token(url) -> None:
    with pytest.raises(EndpointRefused) as refused:
        accepted_url(url, allow_private=False)
    assert "t0ken" not in f"{refused.value} {refused.value.hint} {refused.value.__cause__}"
