"""The table of endpoints, as an application uses it; on SQLite and on PostgreSQL."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from corral.sql import create_engine
from corral_webhooks_outgoing.endpoints import (
    Endpoint,
    EndpointRefused,
    add_endpoint,
    disable_address,
    disable_endpoint,
    enable_endpoint,
    end_rotation,
    find_endpoint,
    forget_failures,
    list_endpoints,
    remove_endpoint,
    rotate_secret,
)
from corral_webhooks_outgoing.settings import PREFIX
from corral_webhooks_outgoing.tables import webhook_failing_endpoints

URL = "https://hooks.example.org/corral?token=1"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def engine(corral_database_with_tables: str) -> AsyncIterator[Any]:
    engine = create_engine(corral_database_with_tables)
    yield engine
    await engine.dispose()


@pytest_asyncio.fixture(params=[AsyncConnection, AsyncSession])
async def connection(engine, request) -> AsyncIterator[Any]:
    """The caller's transaction, on a connection or on a session."""
    async with (
        engine.begin() if request.param is AsyncConnection else AsyncSession(engine) as connection
    ):
        yield connection


async def test_an_endpoint_is_stored_with_an_id_and_a_secret_of_its_own(connection) -> None:
    first, second = [await add_endpoint(connection, URL) for _ in range(2)]
    assert (first.url, first.enabled, len(first.secrets)) == (URL, True, 1)
    assert first.id != second.id
    assert first.secrets != second.secrets
    assert first.secrets[0].startswith("whsec_")
    assert len(base64.b64decode(first.secrets[0].removeprefix("whsec_"))) == 32
    assert await find_endpoint(connection, first.id) == first
    assert await list_endpoints(connection) == sorted(
        [first, second], key=lambda endpoint: endpoint.id
    )


async def test_an_id_and_a_secret_may_be_brought_along(connection) -> None:
    stored = await add_endpoint(connection, URL, endpoint_id="acme", secret=SECRET)
    assert stored == Endpoint("acme", URL, (SECRET,), enabled=True)
    assert await find_endpoint(connection, "acme") == stored


async def test_an_id_is_given_once(engine) -> None:
    async with engine.begin() as connection:
        await add_endpoint(connection, URL, endpoint_id="acme")
    with pytest.raises(IntegrityError, match="webhook_endpoints") as refused:
        async with engine.begin() as connection:
            await add_endpoint(connection, URL, endpoint_id="acme", secret=SECRET)
    assert not [canary for canary in (SECRET, URL) if canary in str(refused.value)]


async def test_a_database_s_error_does_not_repeat_a_secret(engine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE webhook_endpoints"))
    for change in (
        lambda connection: add_endpoint(connection, URL, secret=SECRET),
        lambda connection: rotate_secret(connection, "acme", secret=SECRET),
        lambda connection: disable_address(connection, Endpoint("acme", URL, (SECRET,))),
    ):
        with pytest.raises(DBAPIError, match="webhook_endpoints") as refused:
            async with engine.begin() as connection:
                await change(connection)
        assert not [canary for canary in (SECRET, URL) if canary in str(refused.value)]


async def test_disabled_ones_are_not_listed_and_can_come_back(connection) -> None:
    endpoint = await add_endpoint(connection, URL)
    assert await disable_endpoint(connection, endpoint.id)
    found = await find_endpoint(connection, endpoint.id)
    assert found is not None
    assert not found.enabled
    assert await list_endpoints(connection) == []
    assert await enable_endpoint(connection, endpoint.id)
    assert await list_endpoints(connection) == [endpoint]


@pytest.mark.parametrize("forgetting", [enable_endpoint, remove_endpoint, forget_failures])
async def test_one_that_is_enabled_again_or_removed_fails_since_never(
    connection, forgetting
) -> None:
    endpoint = await add_endpoint(connection, URL)
    since = datetime(2030, 1, 1, tzinfo=UTC)
    for endpoint_id in (endpoint.id, "another"):
        row = {"endpoint_id": endpoint_id, "since": since, "announced": True}
        await connection.execute(insert(webhook_failing_endpoints).values(row))
    assert await forgetting(connection, endpoint.id)
    left = await connection.scalars(select(webhook_failing_endpoints.c.endpoint_id))
    assert list(left) == ["another"]
    assert not await forget_failures(connection, endpoint.id)


async def test_while_a_secret_is_changed_two_sign_and_never_three(connection) -> None:
    endpoint = await add_endpoint(connection, URL, secret=SECRET)
    second = await rotate_secret(connection, endpoint.id)
    assert second is not None
    assert second.secrets[1:] == (SECRET,)
    third = await rotate_secret(connection, endpoint.id)
    assert third is not None
    assert third.secrets[1:] == second.secrets[:1]
    assert await find_endpoint(connection, endpoint.id) == third
    assert await end_rotation(connection, endpoint.id)
    assert await find_endpoint(connection, endpoint.id) == Endpoint(
        endpoint.id, URL, third.secrets[:1]
    )


async def test_one_that_is_gone_is_gone(connection) -> None:
    endpoint = await add_endpoint(connection, URL)
    assert await remove_endpoint(connection, endpoint.id)
    assert await find_endpoint(connection, endpoint.id) is None
    for change in (remove_endpoint, enable_endpoint, disable_endpoint, end_rotation):
        assert not await change(connection, endpoint.id)
    assert await rotate_secret(connection, endpoint.id) is None


async def test_an_address_that_was_changed_meanwhile_is_not_disabled_for_the_old_one(
    connection,
) -> None:
    endpoint = await add_endpoint(connection, URL, endpoint_id="acme", secret=SECRET)
    await disable_address(connection, Endpoint("acme", "https://old.example.org/", (SECRET,)))
    assert await list_endpoints(connection) == [endpoint]
    await disable_address(connection, endpoint)
    assert await list_endpoints(connection) == []


async def test_what_cannot_be_delivered_to_is_not_stored(connection, monkeypatch) -> None:
    for url in (
        "http://hooks.example.org/",
        "https://127.0.0.1/",
        "https://localhost/",
        "https://a@hooks.example.org/",
    ):
        with pytest.raises(EndpointRefused):
            await add_endpoint(connection, url)
    monkeypatch.setenv(f"{PREFIX}ALLOW_PRIVATE", "1")
    await add_endpoint(connection, "http://127.0.0.1:8000/hooks")
    assert [endpoint.url for endpoint in await list_endpoints(connection)] == [
        "http://127.0.0.1:8000/hooks"
    ]


@pytest.mark.parametrize(
    "secret",
    [
        *("", "whsec_", SECRET.removeprefix("whsec_"), SECRET + "!", "whsec_é"),
        "whsec_" + base64.b64encode(bytes(23)).decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
    ],
)
async def test_a_secret_is_what_standard_webhooks_says_and_a_refusal_does_not_repeat_it(
    connection, secret
) -> None:
    endpoint = await add_endpoint(connection, URL)
    with pytest.raises(EndpointRefused) as refused:
        await add_endpoint(connection, URL, secret=secret)
    assert str(refused.value) == "a webhook's secret is not whsec_ and 24 to 64 bytes in base64"
    with pytest.raises(EndpointRefused):
        await rotate_secret(connection, endpoint.id, secret=secret)
    assert await list_endpoints(connection) == [endpoint]


@pytest.mark.parametrize("size", [24, 64])
async def test_the_shortest_and_the_longest_secret_are_stored(connection, size) -> None:
    secret = "whsec_" + base64.b64encode(b"\xff" * size).decode()
    assert (await add_endpoint(connection, URL, secret=secret)).secrets == (secret,)


@pytest.mark.parametrize("endpoint_id", ["", "a b", "a\n", "é", "a" * 129])
async def test_an_id_is_what_a_payload_can_carry(connection, endpoint_id) -> None:
    with pytest.raises(EndpointRefused, match="1 to 128 visible ASCII"):
        await add_endpoint(connection, URL, endpoint_id=endpoint_id)
