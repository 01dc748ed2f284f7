"""The API over HTTP: what is committed is enqueued, and what is refused mails nobody."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable

import httpx2
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from corral.sql import outbox
from examples.saas import accounts
from examples.saas.tables import users
from examples.saas.tests.conftest import ADMIN_TOKEN, STRIPE_SECRET

pytestmark = pytest.mark.asyncio

OPERATOR = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
ADA = {"email": "ada@example.org", "name": "Ada"}


@pytest.fixture
def read_outbox(engine: AsyncEngine) -> Callable[[], Awaitable[list[str]]]:
    """The queues of the jobs that wait to be relayed, in order."""

    async def read_outbox() -> list[str]:
        async with engine.connect() as connection:
            return list(await connection.scalars(select(outbox.c.queue).order_by(outbox.c.id)))

    return read_outbox


async def sign_up(api: httpx2.AsyncClient, **body: str) -> dict[str, str]:
    made = await api.post("/signup", json={**ADA, **body})
    assert made.status_code == 201, made.text
    return {"Authorization": f"Bearer {made.json()['token']}"}


async def test_an_account_from_the_beginning_to_the_end(api, read_outbox) -> None:
    me = await sign_up(api)
    assert (await api.get("/account", headers=me)).json()["email"] == "ada@example.org"
    assert (await api.post("/notes", json={"text": "Buy milk"}, headers=me)).status_code == 201
    assert (await api.post("/usage", json={"requests": 3}, headers=me)).status_code == 201
    assert (await api.get("/usage", headers=me)).json() == []
    assert (await api.post("/exports", json={"format": "csv"}, headers=me)).status_code == 202
    assert (await api.delete("/account", headers=me)).status_code == 202
    assert (await api.post("/account/restore", headers=me)).status_code == 200
    assert (await api.post("/account/restore", headers=me)).status_code == 409
    assert await read_outbox() == ["emails", "data-exports", "account-deletions"]


async def test_a_request_that_fails_after_its_listeners_ran_mails_nobody(
    api, engine, read_outbox, corral_kit
) -> None:
    refused = await api.post("/signup", json={**ADA, "invite": "spent"})
    assert (refused.status_code, refused.json()) == (
        409,
        {"detail": "this invite is unknown or was redeemed"},
    )
    assert await read_outbox() == []
    async with engine.connect() as connection:
        assert await connection.scalar(select(func.count()).select_from(users)) == 0
    assert corral_kit.jobs("emails") == []


async def test_what_was_committed_is_mailed(api, corral_kit) -> None:
    await sign_up(api)
    assert await corral_kit.relay() == 1
    assert corral_kit.assert_enqueued("emails", {"to": "ada@example.org"}).state == "waiting"
    assert await corral_kit.relay() == 0


async def test_neither_does_one_that_breaks(api, read_outbox, monkeypatch) -> None:
    """A bug after the listeners, which nobody has foreseen."""

    async def breaks(*_arguments: object) -> None:
        raise RuntimeError("the coffee machine is on fire")

    monkeypatch.setattr(accounts, "_redeem", breaks)
    with pytest.raises(RuntimeError, match="coffee"):
        await api.post("/signup", json={**ADA, "invite": "any"})
    assert await read_outbox() == []


async def test_one_account_for_an_address(api, read_outbox) -> None:
    await sign_up(api)
    again = await api.post("/signup", json=ADA)
    assert (again.status_code, again.json()["detail"]) == (409, "this address has an account")
    assert await read_outbox() == ["emails"]


async def test_an_address_with_a_header_in_it_is_refused_at_the_field(api, read_outbox) -> None:
    refused = await api.post(
        "/signup", json={**ADA, "email": "ada@example.org\r\nBcc: eve@example.org"}
    )
    assert refused.status_code == 422
    assert refused.json()["detail"][0]["loc"] == ["body", "email"]
    assert await read_outbox() == []


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/account"), ("DELETE", "/account"), ("POST", "/exports")]
)
async def test_nobody_gets_in_without_a_token(api, method, path) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer guessed"},
        {"Authorization": "guessed"},
        OPERATOR,
    ):
        assert (await api.request(method, path, headers=headers, json={})).status_code == 401


@pytest.mark.parametrize("path", ["/endpoints", "/rollover"])
async def test_what_is_for_operators_is_for_nobody_else(api, path, read_outbox) -> None:
    me = await sign_up(api)
    for headers in (
        {},
        me,
        {"Authorization": f"Bearer {ADMIN_TOKEN}x"},
        {"Authorization": "Bearer ä"},
    ):
        answer = await api.request(
            "POST", path, json={"url": "https://partner.example/"}, headers=_bytes(headers)
        )
        assert answer.status_code == 403
    assert await read_outbox() == ["emails"]


async def test_an_operator_adds_an_endpoint_and_closes_hours(api, read_outbox) -> None:
    added = await api.post(
        "/endpoints", json={"url": "https://partner.example/hooks"}, headers=OPERATOR
    )
    assert added.status_code == 201
    assert added.json()["secret"].startswith("whsec_")
    refused = await api.post("/endpoints", json={"url": "https://127.0.0.1/"}, headers=OPERATOR)
    assert refused.status_code == 409
    assert (await api.post("/rollover", headers=OPERATOR)).status_code == 202
    await sign_up(api)
    assert await read_outbox() == ["usage-period-rollover", "emails", "webhooks-outgoing"]


async def test_only_the_payment_provider_is_believed(api, read_outbox) -> None:
    body = json.dumps(
        {"id": "evt_1", "type": "invoice.paid", "created": int(time.time()), "data": {}}
    ).encode()
    for secret, expected in ((STRIPE_SECRET, 202), ("whsec_somebody_elses", 400)):
        answer = await api.post("/webhooks/stripe", content=body, headers=sign_body(body, secret))
        assert answer.status_code == expected
    assert (await api.post("/webhooks/stripe", content=body)).status_code == 400
    assert (
        await api.post("/webhooks/stripe", content=b"{}", headers=sign_body(b"{}", STRIPE_SECRET))
    ).status_code == 400
    assert await read_outbox() == ["billing-webhooks-retry"]


async def test_an_archive_needs_its_link(api) -> None:
    key = f"{'0' * 40}.zip"
    assert (await api.get(f"/exports/{key}")).status_code == 422
    assert (
        await api.get(f"/exports/{key}", params={"expires": "1", "signature": "x"})
    ).status_code == 404


def sign_body(body: bytes, secret: str) -> dict[str, str]:
    moment = str(int(time.time()))
    digest = hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    return {"Stripe-Signature": f"t={moment},v1={digest}"}


def _bytes(headers: dict[str, str]) -> dict[bytes, bytes]:
    """A header beyond ASCII, as a client in bad faith sends it."""
    return {name.encode(): value.encode() for name, value in headers.items()}


async def test_usage_that_is_sent_twice_is_counted_once(api, engine) -> None:
    """A client that saw no answer sends the request again, with the key that it had."""
    me = await sign_up(api)
    for key in ("req-1", "req-1", "req-2", None, None):
        named = {} if key is None else {"Idempotency-Key": key}
        answer = await api.post("/usage", json={"requests": 5}, headers=me | named)
        assert answer.status_code == 201
    async with engine.connect() as connection:
        counted = await connection.scalar(text("SELECT sum(amount) FROM usage_counters"))
    assert counted == 4 * 5
