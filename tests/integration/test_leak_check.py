"""The check that other tests end with finds what it is there for."""

from __future__ import annotations

from typing import Any

import pytest

from corral.testing import find_leaks

pytestmark = pytest.mark.asyncio

untidy = pytest.mark.corral_untidy("plants what the check must find")


async def test_a_tidy_store_passes(raw: Any, store_url: str) -> None:
    await raw.rpush("bull:q:wait", "1", "custom:id:3")
    await raw.hset("bull:q:1", "data", "{}")
    await raw.hset("bull:q:custom:id:3", "data", "{}")
    await raw.rpush("bull:q:1:logs", "a line")
    await raw.zadd("bull:q:delayed", {"repeat:nightly:1700000000000": 1})
    await raw.hset("bull:q:repeat:nightly:1700000000000", "data", "{}")
    await raw.hset("bull:q:repeat:nightly", "ic", "1")
    await raw.zadd("bull:q:repeat", {"nightly": 1})
    await raw.hset("bull:q:meta", "version", "x")
    await raw.set("bull:q:de:once", "1")
    await raw.hset("corral:bull:catalog", "anything", "else")
    await raw.set("bullet:q:1:lock", "of another prefix")
    assert find_leaks(store_url) == []


@untidy
@pytest.mark.parametrize(
    ("commands", "leak"),
    [
        (["SET bull:q:7:lock token"], "bull:q:7:lock is left (string)"),
        (
            ["SET bull:q:repeat:nightly:5:lock token"],
            "bull:q:repeat:nightly:5:lock is left (string)",
        ),
        (["SET bull:q:oops 1"], "bull:q:oops is left (string)"),
        (["RPUSH bull:q:7:logs line"], "bull:q:7:logs is left (list)"),
        (["HSET bull:q:7 data {}"], "bull:q: job 7 is in no state"),
        (["HSET bull:q:repeat:nightly:5 data {}"], "bull:q: job repeat:nightly:5 is in no state"),
        (["LPUSH bull:q:active 7"], "bull:q: id 7 is in active and has no job"),
        (["ZADD bull:q:failed 1 7"], "bull:q: id 7 is in failed and has no job"),
        (
            ["HSET bull:q:7 data {}", "LPUSH bull:q:wait 7", "ZADD bull:q:completed 1 7"],
            "bull:q: job 7 is in wait and completed",
        ),
        (["HSET bull:q:7 data {}", "LPUSH bull:q:wait 7 7"], "bull:q: job 7 is in wait and wait"),
    ],
)
async def test_each_kind_of_leak_is_found(
    raw: Any, store_url: str, commands: list[str], leak: str
) -> None:
    for command in commands:
        await raw.execute_command(*command.split(" "))
    assert find_leaks(store_url) == [leak]
    assert find_leaks(store_url, "bul") == []


@untidy
async def test_all_leaks_are_reported_in_order_whatever_the_prefix(
    raw: Any, store_url: str
) -> None:
    await raw.set("own*:q:8:lock", "token")
    await raw.set("own*:q:7:lock", "token")
    await raw.set("owner:q:7:lock", "of another prefix")
    assert find_leaks(store_url, "own*") == [
        "own*:q:7:lock is left (string)",
        "own*:q:8:lock is left (string)",
    ]


async def test_waiting_in_vain_says_for_what(wait_until: Any) -> None:
    await wait_until(lambda: True, "this is so")
    with pytest.raises(AssertionError, match=r"waited 0\.02 s in vain until pigs fly"):
        await wait_until(lambda: False, "pigs fly", seconds=0.02)
