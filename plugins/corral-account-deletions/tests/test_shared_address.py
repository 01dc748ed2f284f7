"""Another living account with the same address loses nothing, and the result is true."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from corral import Every, Job, Payload, Queue
from corral.sql import Outbox
from corral_account_deletions.person import Person

NOW = timedelta(0)
DAY = timedelta(days=1)
ADA = "ada@example.org"
MINE = "ada-4711"
OTHER = "ada-4712"
"""Ada's other account, with the same address."""

USERS = """
[users]
table = "users"
id_column = "id"
email_column = "email"

[tables.orders]
user_column = "user_id"
action = "delete"

[tables.users]
user_column = "id"
action = "delete"
"""


class Letter(Payload):
    to: str
    user_id: str | None = None


letters = Queue("letters", Letter)


async def write(job: Job[Letter]) -> str:
    """Leave the address in the result, too."""
    return f"wrote to {job.payload.to}"


LETTERS = letters.processed_by(write)


def emails() -> Queue[Any]:
    """The queue of the package that the tests install."""
    queue: Queue[Any] = sys.modules["acme_emails"].emails
    return queue


async def send(job: Job[Any]) -> None:
    """Send nothing."""


# what a person's payload is


@pytest.mark.parametrize(
    ("others", "payload", "is_meant"),
    [
        (None, {"to": ADA}, True),
        (None, {"to": ADA, "userId": OTHER}, False),
        (None, {"to": ADA, "userId": MINE}, True),
        (None, {"to": ADA, "userId": OTHER, "invitedBy": MINE}, True),
        ({OTHER}, {"to": ADA}, False),
        ({OTHER}, {"to": ADA, "user_id": OTHER}, False),
        ({OTHER}, {"to": ADA, "user_id": MINE}, True),
        (set(), {"to": ADA}, True),
        (set(), {"to": ADA, "userId": "bob-1"}, True),
        (set(), {"to": "bob@example.org", "userId": "bob-1"}, False),
    ],
)
def test_whose_an_address_is(
    others: set[str] | None, payload: dict[str, Any], is_meant: bool
) -> None:
    person = Person(MINE, ADA, others=None if others is None else frozenset(others))
    assert person.is_meant_in(payload) is is_meant


# in queues and outbox


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`tables("…")`: the tables file."""

    def write_file(content: str) -> None:
        (tmp_path / "accounts.toml").write_text(content, "utf-8")
        monkeypatch.setenv("CORRAL_ACCOUNT_DELETIONS_TABLES", str(tmp_path / "accounts.toml"))

    return write_file


async def add_other_account(accounts: Any) -> None:
    """Ada has two accounts with one address, in another case."""
    await accounts.run("ALTER TABLE users RENAME TO former")
    await accounts.run("CREATE TABLE members (id VARCHAR(40) PRIMARY KEY, email VARCHAR(80))")
    await accounts.run(
        f"INSERT INTO members VALUES ('{MINE}', '{ADA}'), ('{OTHER}', 'Ada@Example.org')"
    )


MEMBERS = USERS.replace('table = "users"', 'table = "members"').replace(
    "[tables.users]", "[tables.members]"
)


async def enqueue_for_all(accounts: Any) -> None:
    """For both accounts and for nobody: a finished job, one for later, a schedule."""
    async with accounts.kit.connect(letters) as jobs:
        for user_id in (MINE, OTHER, None):
            letter = Letter(to=ADA, user_id=user_id)
            await jobs.enqueue(letters, letter, job_id=f"done-{user_id}")
        await accounts.kit.drain(LETTERS)
        for user_id in (MINE, OTHER, None):
            letter = Letter(to=ADA, user_id=user_id)
            await jobs.enqueue(letters, letter, job_id=f"later-{user_id}", delay=90 * DAY)
            await jobs.schedule(letters, letter, Every(10 * DAY), id=f"digest-{user_id}")
        await accounts.kit.drain(LETTERS)  # the first digests


async def drain(accounts: Any) -> list[tuple[str, Any]]:
    """Carry out what is due, with the queue `letters` installed."""
    async with accounts.kit.connect(letters):
        return await accounts.drained(NOW)


async def payloads(accounts: Any) -> dict[str, Any]:
    """What is stored as the payload of each letter; schedules by their ids."""
    found: dict[str, Any] = {}
    async with accounts.kit.open_inspector() as inspector:
        for state in ("completed", "delayed"):
            for job in (await inspector.list(letters, state, limit=100)).jobs:
                found[f"{job.schedule_id or job.id}"] = job.data
    return found


@pytest.mark.asyncio
async def test_a_living_account_with_the_same_address_loses_nothing(
    accounts: Any, tables: Callable[[str], None]
) -> None:
    tables(MEMBERS)
    await add_other_account(accounts)
    await enqueue_for_all(accounts)
    before = await payloads(accounts)

    await accounts.asked(MINE, grace=NOW)
    ((kind, message),) = await drain(accounts)
    assert kind == "Completed"
    found = json.loads(message)
    assert found["outcome"] == "deleted"
    assert found["jobsShared"] >= 2, "the other account's, and those that may be"

    after = await payloads(accounts)
    for name, payload in before.items():
        if name.endswith(MINE):
            assert after.get(name, {}) == {}, "theirs is gone"
        else:
            assert after[name] == payload, "the other account's is as it was"
    assert await accounts.rows("SELECT id FROM members") == [(OTHER,)]


@pytest.mark.asyncio
async def test_the_outbox_keeps_what_is_another_account_s(
    accounts: Any, tables: Callable[[str], None]
) -> None:
    tables(MEMBERS)
    await add_other_account(accounts)
    await accounts.asked(MINE, grace=NOW)
    async with accounts.kit.connect(letters) as jobs, accounts.engine.begin() as connection:
        for user_id in (MINE, OTHER, None):
            letter, outbox = Letter(to=ADA, user_id=user_id), Outbox(jobs).within(connection)
            await outbox.enqueue(letters, letter, job_id=f"outbox-{user_id}", delay=90 * DAY)
    assert [kind for kind, _ in await drain(accounts)] == ["Completed"]
    left = await accounts.rows("SELECT job_id FROM corral_outbox WHERE queue = 'letters'")
    assert {name for (name,) in left} == {f"outbox-{OTHER}", "outbox-None"}


@pytest.mark.asyncio
async def test_the_last_account_with_an_address_takes_it_along(
    accounts: Any, tables: Callable[[str], None]
) -> None:
    tables(MEMBERS)
    await add_other_account(accounts)
    await enqueue_for_all(accounts)
    for user_id in (MINE, OTHER):
        await accounts.asked(user_id, grace=NOW)
        assert [kind for kind, _ in await drain(accounts)] == ["Completed"]
        await accounts.relayed()
        sent = await accounts.kit.drain(emails().processed_by(send))
        assert [run.job.payload.to for run in sent] == [ADA]
    assert set(map(str, (await payloads(accounts)).values())) == {"{}"}


@pytest.mark.asyncio
async def test_the_application_says_whose_an_address_is(
    accounts: Any, taking_part: Any, erase_orders: Any
) -> None:
    asked: list[str] = []

    async def say(email: str) -> list[str]:
        asked.append(email)
        return [OTHER]

    taking_part(account_deletions_erase=erase_orders, account_deletions_address_owners=say)
    await enqueue_for_all(accounts)
    await accounts.asked(MINE, grace=NOW)
    assert [kind for kind, _ in await drain(accounts)] == ["Completed"]
    left = await payloads(accounts)
    assert left["done-None"]["to"] == ADA
    assert left[f"done-{OTHER}"]["to"] == ADA
    assert left[f"done-{MINE}"] == {}
    assert set(asked) == {ADA}


@pytest.mark.asyncio
async def test_where_nobody_says_it_a_job_that_names_another_user_is_theirs(
    accounts: Any, erasing: None
) -> None:
    await enqueue_for_all(accounts)
    await accounts.asked(MINE, grace=NOW)
    assert [kind for kind, _ in await drain(accounts)] == ["Completed"]
    left = await payloads(accounts)
    assert left[f"done-{OTHER}"]["to"] == ADA
    assert left[f"later-{OTHER}"]["to"] == ADA
    assert left["done-None"] == {}
    assert "later-None" not in left


@pytest.mark.asyncio
@pytest.mark.parametrize("answer", ["a text", LookupError(f"no {ADA} here")], ids=["text", "error"])
async def test_a_hook_that_cannot_be_used_erases_nothing_and_tells_no_address(
    accounts: Any, taking_part: Any, erase_orders: Any, answer: Any
) -> None:
    def say() -> str:
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    taking_part(account_deletions_erase=erase_orders, account_deletions_address_owners=say)
    request = await accounts.asked(MINE, grace=NOW)
    ((kind, why),) = await accounts.drained(NOW)
    assert kind == "Retried"
    assert "account_deletions_address_owners" in why
    assert ADA not in why
    assert (await accounts.request(request.id)).processed_at is None
