"""`corral schedules`: what a person and what a program reads."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from corral import Every, JobOptions, Payload, Queue
from corral.store.connection import Link
from corral.store.queue_store import QueueStore
from corral.store.schedules import NewSchedule, Schedules

NAME = "acme-letters"
"""A queue of the plugin that the fixture `command` installs; it declares no schedule."""


class Letter(Payload):
    """As in that plugin."""

    text: str = ""


@pytest.fixture
def schedule(workshop: Any) -> Any:
    """`await schedule("weekly")`: made by a program; under the queue's own name, as a declaration would."""

    async def install(schedule_id: str) -> None:
        store = QueueStore(Link(workshop.url), "bull", NAME)
        await Schedules(store).ensure(NewSchedule(schedule_id, NAME, b"{}", JobOptions(), Every(timedelta(hours=1))))
        await store.close()

    return install


@pytest.mark.asyncio
async def test_lists_and_prunes_what_is_declared_no_longer(schedule: Any, command: Any, workshop: Any) -> None:
    await schedule(NAME)
    await workshop.producer(Queue(NAME, Letter)).schedule(NAME, {}, Every(timedelta(hours=2)), id="weekly")

    listed = command("schedules")
    assert listed.wait() == 0
    heading, *rows = [line.split() for line in listed.result.splitlines()]
    assert heading == ["QUEUE", "SCHEDULE", "WHEN", "NEXT", "(UTC)", "STATE"]
    ours = {(row[1], row[-1]) for row in rows if row[0] == NAME}
    assert ours == {("undeclared", "alive"), ("weekly", "alive")}

    pruned = command("schedules", "prune", "--json")
    assert pruned.wait() == 0
    (removed,) = json.loads(pruned.result)
    assert (removed["id"], removed["origin"], removed["when"]) == (NAME, "undeclared", "every 3600 s")

    left = command("schedules", "--json")
    assert left.wait() == 0
    assert [each["id"] for each in json.loads(left.result) if each["queue"] == NAME] == ["weekly"]
    told = command("audit", "--json")
    assert told.wait() == 0
    assert [(each["what"], each["queue"], each["before"]) for each in json.loads(told.result)] == [
        ("prune", removed["queue"], {"schedule": removed["id"]})
    ]
    again = command("schedules", "prune")
    assert (again.wait(), again.result, again.said) == (0, "", "nothing to remove\n")


@pytest.mark.asyncio
async def test_a_queue_without_one_is_not_listed(command: Any) -> None:
    """Other plugins of this environment may declare schedules."""
    none = command("schedules", "--json")
    assert none.wait() == 0
    assert NAME not in {each["queue"] for each in json.loads(none.result)}
    away = command("schedules", REDIS_URL="unix:///nowhere/store.sock")
    assert away.wait() == 4
    assert away.said.startswith("error: ")
