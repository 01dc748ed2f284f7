"""The job that a deduplication id keeps back is a hash that another client wrote.

The keys that it names are checked before anything is written to them.
"""

from __future__ import annotations

from typing import Any

import pytest
import redis

from corral.outcome import Completed
from corral.store.codec import Ending, NewJob
from corral.store.connection import Link
from corral.store.queue_store import QueueStore

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.corral_untidy("what is damaged stays, and of a parent there is one key"),
]

B = "bull:letters:"
OPTS = b'{"de":{"id":"one","keepLastIfActive":true}}'


async def end_the_owner(store_url: str, raw: redis.Redis, kept: dict[str, str]) -> list[int]:
    """End the job that holds the deduplication id `one`, for which `kept` is kept back."""
    store = QueueStore(Link(store_url), "bull", "letters")
    try:
        await store.add([NewJob("owner", "letters", b"{}", OPTS)])
        raw.hset(f"{B}owner", "deid", "one")
        raw.set(f"{B}de:one", "owner")
        raw.hset(
            f"{B}dn:one",
            mapping={
                "name": "letters",
                "data": "{}",
                "opts": '{"de":{"id":"one"}}',
                "jid": "next",
                **kept,
            },
        )
        (fetched,) = (await store.advance("hand", 1, [], 1)).jobs
        return list((await store.advance("hand", 2, [Ending(fetched, Completed())], 0)).codes)
    finally:
        await store.close()


@pytest.fixture
def client(store_url: str) -> Any:
    with redis.Redis.from_url(store_url, decode_responses=True) as client:
        yield client


def assert_refused(client: redis.Redis) -> None:
    """The owner has failed and says why; what was kept back is there still, for an operator."""
    assert client.zrange(f"{B}failed", 0, -1) == ["owner"]
    reason = client.hget(f"{B}owner", "failedReason")
    assert reason == f"job refused: {B}dn:one is damaged (a hash): its pdk is not of its parent"
    assert not client.exists(f"{B}next")
    assert client.exists(f"{B}dn:one")


@pytest.mark.parametrize(
    "container", ["wait", "paused", "prioritized", "delayed", "completed", "waiting-children"]
)
async def test_a_container_is_never_made_a_set(
    store_url: str, client: redis.Redis, container: str
) -> None:
    """An empty list has no key: SADD would make a set, and no worker could fetch from it."""
    kept = {"pk": f"{B}parent", "pdk": f"{B}{container}"}
    assert await end_the_owner(store_url, client, kept) == [1]
    assert client.type(f"{B}{container}") == "none"
    assert_refused(client)


@pytest.mark.parametrize(
    "kept", [{"pdk": "other:dependencies"}, {"pk": "other", "pdk": ""}, {"pk": "", "pdk": "{bad"}]
)
async def test_no_key_is_written_that_is_not_the_parents(
    store_url: str, client: redis.Redis, kept: dict[str, str]
) -> None:
    assert await end_the_owner(store_url, client, kept) == [1]
    assert not client.exists("other:dependencies", "", "{bad")
    assert_refused(client)


@pytest.mark.parametrize("parent", ["bull:parents:p", "elsewhere:parents:p"])
async def test_a_childs_parent_knows_of_it(
    store_url: str, client: redis.Redis, parent: str
) -> None:
    assert await end_the_owner(
        store_url, client, {"pk": parent, "pdk": f"{parent}:dependencies"}
    ) == [0]
    assert client.lrange(f"{B}wait", 0, -1) == ["next"]
    assert client.smembers(f"{parent}:dependencies") == {f"{B}next"}
