"""By which name the server is greeted."""

from __future__ import annotations

import re
import socket

import pytest

from corral import testing
from corral_emails import emails
from corral_emails.ehlo import EHLO_NAME, address_literal, usable_name
from corral_emails.processor import send_email


@pytest.mark.parametrize(
    "name", ["mx.acme.example", "ip-10-0-0-1.ec2.internal", "a.b", "A1.Local."]
)
def test_a_name_with_a_dot_is_used(name) -> None:
    assert usable_name(name) == name.rstrip(".")


@pytest.mark.parametrize(
    "name",
    [
        "localhost",
        "localhost.localdomain",
        "LOCALHOST.localdomain",
        "web-1",
        "3f2a9c1b7d10",
        "",
        ".",
        "127.0.0.1",
        "::1",
        "fe80::1%eth0",
        "my_host.example",
        "-a.example",
        "a..example",
        "a b.example",
        "host.example\r\nMAIL",
        "1.0.0.127.in-addr.arpa",
        "1.0.0.0.ip6.arpa",
        "größe.example",
        "x" * 64 + ".example",
    ],
)
def test_another_one_is_not(name) -> None:
    assert usable_name(name) is None


@pytest.mark.parametrize(
    ("address", "literal"),
    [
        ("127.0.0.1", "[127.0.0.1]"),
        ("172.17.0.2", "[172.17.0.2]"),
        ("::1", "[IPv6:::1]"),
        ("2001:db8:0:0::25", "[IPv6:2001:db8::25]"),
        ("fe80::1%eth0", "[IPv6:fe80::1]"),
        ("::ffff:10.0.0.7", "[10.0.0.7]"),
    ],
)
def test_an_address_becomes_a_literal_that_a_setting_may_have_too(address, literal) -> None:
    assert address_literal(address) == literal
    assert re.match(EHLO_NAME, literal)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("fqdn", "settings", "greeting"),
    [
        ("localhost", {}, "[127.0.0.1]"),
        ("web-1.acme.example", {}, "web-1.acme.example"),
        ("web-1.acme.example", {"ehlo_name": "mail.acme.example"}, "mail.acme.example"),
        ("localhost", {"ehlo_name": "[192.0.2.1]"}, "[192.0.2.1]"),
    ],
)
async def test_the_server_is_greeted_so(
    scripted, mailer_with, monkeypatch, fqdn, settings, greeting
) -> None:
    monkeypatch.setattr(socket, "getfqdn", lambda: fqdn)
    mailer = await mailer_with(port=scripted.port, **settings)
    mail = {"to": "a@example.org", "template": "account-deleted", "variables": {}}
    await send_email(testing.job(emails, mail), mailer)
    assert scripted.said[0][0] == f"EHLO {greeting}"
    assert len(scripted.mails) == 1


@pytest.mark.asyncio
async def test_over_ipv6_too(mailer_with, monkeypatch, serving_ipv6) -> None:
    monkeypatch.setattr(socket, "getfqdn", lambda: "localhost")
    mailer = await mailer_with(host="::1", port=serving_ipv6.port)
    mail = {"to": "a@example.org", "template": "account-deleted", "variables": {}}
    await send_email(testing.job(emails, mail), mailer)
    assert serving_ipv6.said[0][0] == "EHLO [IPv6:::1]"
