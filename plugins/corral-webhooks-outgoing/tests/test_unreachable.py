"""What a stranger points a webhook to: nothing on this machine or in its network is connected to,
by whatever name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from corral import Fail, testing
from corral_webhooks_outgoing import webhooks_outgoing
from corral_webhooks_outgoing.courier import Unanswered
from corral_webhooks_outgoing.endpoints import Endpoint
from corral_webhooks_outgoing.guard import NotPublic
from corral_webhooks_outgoing.message import Message
from corral_webhooks_outgoing.processor import NotDelivered, deliver

from .conftest import NAME, PUBLIC, Receiver, answering
from .hostile import NAMES, urls

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
JOB = testing.job(
    webhooks_outgoing,
    {"endpointId": "ep_1", "eventId": "evt_1", "eventType": "user.created", "data": {}},
)

pytestmark = pytest.mark.asyncio


class Canaries:
    """Listeners on 127.0.0.1 and ::1.

    Attributes:
        four: The one on 127.0.0.1.
        six: The one on ::1.
        urls: Where strangers point to, with their ports.
    """

    def __init__(self, four: Receiver, six: Receiver) -> None:
        self.four = four
        self.six = six
        self.urls = urls(four.port, six.port)

    @property
    def connections(self) -> int:
        return self.four.connections + self.six.connections


@pytest_asyncio.fixture
async def canaries(serving) -> AsyncIterator[Canaries]:
    async with AsyncExitStack() as opened:
        yield Canaries(
            await opened.enter_async_context(serving("127.0.0.1")),
            await opened.enter_async_context(serving("::1")),
        )


@pytest.fixture
def endpoint() -> dict[str, str]:
    """Where the endpoint of the job points to, under `url`."""
    return {"url": f"https://{NAME}/"}


@pytest_asyncio.fixture
async def guarded(authority, deliveries_with, endpoint, resolver, internet, canaries) -> Any:
    """Deliveries as a worker makes them, to an endpoint that the application keeps and has not
    checked.

    The canaries' ports are named, so that nothing but their addresses protects them.
    """
    ports = f"{canaries.four.port},{canaries.six.port}"
    resolver.answers |= {name: [addresses] for name, addresses in NAMES.items()}
    return await deliveries_with(
        internet,
        ports=ports,
        webhooks_outgoing_endpoint=lambda: Endpoint("ep_1", endpoint["url"], (SECRET,)),
    )


async def test_there_are_at_least_eighty(canaries) -> None:
    assert len(set(canaries.urls)) >= 80


async def test_each_of_them_fails_for_good_and_nothing_is_dialled(
    guarded, canaries, endpoint, internet
) -> None:
    others: list[tuple[str, object]] = []
    for url in canaries.urls:
        endpoint["url"] = url
        try:
            others.append((url, await deliver(JOB, guarded)))
        except Fail:
            pass
        except Exception as error:  # noqa: BLE001  # whatever else it is, it is wrong
            others.append((url, error))
    assert others == []
    assert (internet.dialled, canaries.connections) == ([], 0)
    print(f"{len(canaries.urls)} addresses, {canaries.connections} connections")


async def test_the_guard_alone_holds_where_the_text_of_the_url_was_not_judged(
    guarded, canaries, internet
) -> None:
    """What is judged when it is stored is for people; this is the wall."""
    refused = 0
    for url in canaries.urls:
        try:
            parsed = httpx2.URL(url)
        except httpx2.InvalidURL:
            continue
        if parsed.scheme in {"http", "https"} and parsed.host:
            with pytest.raises(
                (NotPublic, Unanswered)
            ) as message:  # Unanswered: a name with a percent sign has no address
                await guarded.sender.courier.post(parsed, Message(b"{}", {}))
            refused += message.type is NotPublic
    # to httpx2, what stands before an @ is a user, whatever backslash is in it: then the host is
    # public for real
    assert (set(internet.dialled) <= {PUBLIC}, canaries.connections) == (True, 0)
    assert refused >= 80


async def test_in_development_the_same_canaries_are_reached(
    deliveries_with, resolver, canaries, endpoint
) -> None:
    """That this test passes says that the ones above could have failed."""
    resolver.answers |= {name: [addresses] for name, addresses in NAMES.items()}
    deliveries = await deliveries_with(
        allow_private=1,
        webhooks_outgoing_endpoint=lambda: Endpoint("ep_1", endpoint["url"], (SECRET,)),
    )
    hosts = [
        "127.0.0.1:{4}",
        "127.1:{4}",
        "2130706433:{4}",
        "0:{4}",
        "[::1]:{6}",
        "loopback.example.org:{4}",
    ]
    for host in hosts:
        endpoint["url"] = f"http://{host}/".replace("{4}", str(canaries.four.port)).replace(
            "{6}", str(canaries.six.port)
        )
        await deliver(replace(JOB, id=f"job-{host}"), deliveries)
    assert (canaries.four.connections >= 1, canaries.six.connections) == (True, 1)
    assert len(canaries.four.requests) + len(canaries.six.requests) == len(hosts)


async def test_a_port_that_is_not_named_is_not_dialled(
    guarded, endpoint, resolver, internet
) -> None:
    """Also where the application keeps endpoints, and whatever it has let in."""
    resolver.answers[NAME] = [[PUBLIC]]
    endpoint["url"] = f"https://{NAME}:25/"
    with pytest.raises(Fail, match="has the port 25, and webhooks go to 80, 443, "):
        await deliver(JOB, guarded)
    assert internet.dialled == []


@pytest.mark.parametrize("second", ["127.0.0.1", "::1", "169.254.169.254"])
async def test_a_resolver_that_answers_differently_the_second_time_is_asked_once(
    guarded, endpoint, resolver, internet, serving, certified, canaries, second
) -> None:
    endpoint["url"] = f"https://{NAME}:{canaries.four.port}/"
    resolver.answers[NAME] = [[PUBLIC], [second]]
    async with serving(tls=certified(NAME)) as receiver:
        internet.ports[PUBLIC] = receiver.port
        receiver.replies.append(answering(500, connection="close"))
        with pytest.raises(NotDelivered, match="answered 500"):
            await deliver(JOB, guarded)
        assert (resolver.asked, internet.dialled, len(receiver.requests)) == ([NAME], [PUBLIC], 1)
        with pytest.raises(Fail, match=f"not public: {NAME} is {second}"):
            await deliver(JOB, guarded)
    assert (resolver.asked, internet.dialled, len(receiver.requests)) == ([NAME, NAME], [PUBLIC], 1)
    assert canaries.connections == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(
    guarded, resolver, internet, serving, certified, canaries, status
) -> None:
    async with serving(tls=certified(NAME)) as receiver:
        internet.ports[PUBLIC] = receiver.port
        for target in (
            f"http://127.0.0.1:{canaries.four.port}/",
            f"https://[::1]:{canaries.six.port}/",
            "//127.0.0.1/",
        ):
            receiver.replies.append(answering(status, location=target, refresh=f"0; url={target}"))
            with pytest.raises(
                NotDelivered, match=f"answered {status} \\(redirects are not followed\\)"
            ):
                await deliver(JOB, guarded)
        assert len(receiver.requests) == 3
    assert set(internet.dialled) == {PUBLIC}
    assert canaries.connections == 0
