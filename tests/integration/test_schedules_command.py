"""`corral schedules`: what it prints for people and for programs."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
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
    """`await schedule("weekly")`: made by a program; with the queue's own name, as declared."""

    async def install(schedule_id: str) -> None:
        store = QueueStore(Link(workshop.url), "bull", NAME)
        await Schedules(store).ensure(
            NewSchedule(schedule_id, NAME, b"{}", JobOptions(), Every(timedelta(hours=1)))
        )
        await store.close()

    return install


@pytest.mark.asyncio
async def test_lists_and_prunes_what_is_declared_no_longer(
    schedule: Any, command: Any, workshop: Any
) -> None:
    await schedule(NAME)
    await workshop.producer(Queue(NAME, Letter)).schedule(
        NAME, {}, Every(timedelta(hours=2)), id="weekly"
    )

    listed = command("schedules")
    assert listed.wait() == 0
    heading, *rows = [line.split() for line in listed.result.splitlines()]
    assert heading == ["QUEUE", "SCHEDULE", "WHEN", "NEXT", "(UTC)", "STATE"]
    ours = {(row[1], row[-1]) for row in rows if row[0] == NAME}
    assert ours == {("undeclared", "alive"), ("weekly", "alive")}

    pruned = command("schedules", "prune", "--json")
    assert pruned.wait() == 0
    (removed,) = json.loads(pruned.result)
    assert (removed["id"], removed["origin"], removed["when"]) == (
        NAME,
        "undeclared",
        "every 3600 s",
    )

    left = command("schedules", "--json")
    assert left.wait() == 0
    assert [each["id"] for each in json.loads(left.result) if each["queue"] == NAME] == ["weekly"]
    assert [
        (each["what"], each["queue"], each["before"]) for each in run_json(command, "audit")
    ] == [("prune", removed["queue"], {"schedule": removed["id"]})]
    assert await workshop.raw.hgetall(f"corral:bull:{NAME}:removed-schedules") == {NAME: "prune"}
    again = command("schedules", "prune")
    assert (again.wait(), again.result, again.said) == (0, "", "nothing to remove\n")


DECLARED = (
    "letters = Queue(",
    "from datetime import timedelta\nfrom corral import Every\n\nletters = Queue(",
)
SCHEDULE = (
    "concurrency=4)\nthreaded",
    "concurrency=4, schedule=Every(timedelta(hours=1)))\nthreaded",
)


@pytest.fixture
def declares(acme: Path) -> None:
    """The queue of the plugin declares a schedule."""
    module = acme / "acme_letters.py"
    source = module.read_text("utf-8")
    for before, after in (DECLARED, SCHEDULE):
        assert source.count(before) == 1
        source = source.replace(before, after)
    module.write_text(source, "utf-8")


def run_json(command: Any, *arguments: str) -> Any:
    """The JSON that a command prints."""
    ran = command(*arguments, "--json")
    assert ran.wait() == 0, ran.said
    return json.loads(ran.result)


def state(command: Any) -> str:
    (row,) = [each for each in run_json(command, "schedules") if each["queue"] == NAME]
    assert (row["id"], row["origin"]) == (NAME, "declared")
    return str(row["state"])


@pytest.mark.asyncio
async def test_removes_what_is_declared_and_restores_it(
    declares: None, command: Any, workshop: Any
) -> None:
    """Workers that start leave it removed, and log that."""
    assert state(command) == "new"
    assert command("worker", "--burst").wait() == 0
    assert state(command) == "alive"
    removed = command("schedules", "remove", NAME)
    assert removed.wait() == 0
    assert (
        removed.result
        == f"{NAME}: the schedule is removed; to restore it: corral schedules restore {NAME}\n"
    )
    assert state(command) == "removed"
    assert run_json(command, "schedules", "remove", NAME) == {"queue": NAME, "removed": False}, (
        "and it stays so"
    )

    worker = command("worker", "--burst")
    assert worker.wait() == 0
    assert "stays removed: `corral schedules restore` brings it back" in worker.said
    assert state(command) == "removed"
    shown = command("schedules")
    assert shown.wait() == 0
    assert shown.result.splitlines()[-1].split() == [NAME, "declared", "-", "-", "removed"]

    following = datetime.fromisoformat(run_json(command, "schedules", "restore", NAME)["next"])
    assert state(command) == "alive"
    again = command("schedules", "restore", NAME)
    assert again.wait() == 0
    assert again.result == f"{NAME}: runs next at {following:%Y-%m-%dT%H:%M:%SZ}\n"
    restored = command("worker", "--burst")
    assert restored.wait() == 0
    assert "removed" not in restored.said
    changes = [(each["what"], each["queue"], each["before"]) for each in run_json(command, "audit")]
    one = ("remove_schedule", NAME, {"schedule": NAME})
    other = ("restore_schedule", NAME, {"schedule": NAME})
    assert changes == [other, other, one, one]


@pytest.mark.asyncio
async def test_refuses_to_remove_what_is_not_declared(command: Any) -> None:
    for word in ("remove", "restore"):
        refused = command("schedules", word, NAME)
        assert refused.wait() == 2
        assert refused.said.startswith(
            f"error: queue '{NAME}' declares no schedule\n  hint: `corral schedules prune`"
        )
        unknown = command("schedules", word, "nobody")
        assert unknown.wait() == 2
        assert unknown.said.startswith("error: no queue is named 'nobody'")


@pytest.mark.asyncio
async def test_a_queue_without_one_is_not_listed(command: Any) -> None:
    """Other plugins of this environment may declare schedules."""
    none = command("schedules", "--json")
    assert none.wait() == 0
    assert NAME not in {each["queue"] for each in json.loads(none.result)}
    away = command("schedules", REDIS_URL="unix:///nowhere/store.sock")
    assert away.wait() == 4
    assert away.said.startswith("error: ")
