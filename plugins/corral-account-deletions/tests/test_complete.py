"""What a deletion says of itself is true: queues nobody declares, what is kept, what is outside."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from corral import Every, Job, Payload, Queue
from corral.testing import Kit
from corral_account_deletions import Kept

pytestmark = pytest.mark.asyncio

NOW = timedelta(0)
DAY = timedelta(days=1)
ADA = "ada@example.org"


class Letter(Payload):
    to: str | None = None
    user_id: str | None = None


foreign = Queue("acme-letters", Letter)
"""Another service's queue: the worker of deletions does not have its plugin."""


async def write(job: Job[Letter]) -> str:
    """Leave the address in the result, too."""
    return f"wrote to {job.payload.to}"


LETTERS = foreign.processed_by(write)


@pytest.fixture
def service(corral_kit: Kit) -> Kit:
    """Another service on the same store; only it declares the queue `acme-letters`."""
    return Kit(corral_kit.url, prefix=corral_kit.prefix)


async def enqueue(service: Kit, job_id: str, payload: Letter, **options: Any) -> None:
    """A job of that service."""
    async with service.connect(foreign) as jobs:
        await jobs.enqueue(foreign, payload, job_id=job_id, **options)


async def deleted(accounts: Any) -> Any:
    """The result of a deletion that is carried out now."""
    await accounts.asked(grace=NOW)
    ((kind, message),) = await accounts.drained(NOW)
    assert kind == "Completed"
    return json.loads(message)


async def mail_variables(accounts: Any) -> Any:
    """The variables of the confirmation."""
    await accounts.relayed()
    (mail,) = accounts.kit.jobs("emails")
    return mail.payload.variables


# queues that no plugin of the worker declares


async def test_finished_jobs_of_an_undeclared_queue_are_cleared_and_it_is_named(
    accounts: Any, erasing: None, service: Kit, caplog: pytest.LogCaptureFixture
) -> None:
    for job_id, payload in {
        "of-ada": Letter(to=ADA),
        "by-id": Letter(user_id="ada-4711"),
        "of-bob": Letter(to="bob@example.org"),
    }.items():
        await enqueue(service, job_id, payload)
    await service.drain(LETTERS)
    with caplog.at_level(logging.WARNING):
        found = await deleted(accounts)
    assert (found["queuesUndeclared"], found["queuesUncleared"]) == (["acme-letters"], [])
    assert found["jobsScrubbed"] == 2
    assert "no plugin of this worker declares queues that are in the store: acme-letters" in (
        caplog.text
    )
    async with service.open_inspector() as inspector:
        assert (await inspector.get(foreign, "of-ada")).data == {}
        assert (await inspector.get(foreign, "of-ada")).returnvalue is None
        assert (await inspector.get(foreign, "by-id")).data == {}
        assert (await inspector.get(foreign, "of-bob")).data["to"] == "bob@example.org"
    assert ADA not in everything_in(service.url)
    assert await mail_variables(accounts) == {"complete": True, "kept": []}


@pytest.mark.parametrize("where", ["waiting", "delayed", "prioritized", "schedule"])
async def test_unfinished_jobs_of_an_undeclared_queue_are_named_and_the_mail_says_it(
    accounts: Any, erasing: None, service: Kit, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    """Nobody here knows what they are for, or whether a worker will ever come for them."""
    options: dict[str, dict[str, Any]] = {"delayed": {"delay": DAY}, "prioritized": {"priority": 1}}
    async with service.connect(foreign) as jobs:
        if where == "schedule":
            await jobs.schedule(foreign, Letter(to=ADA), Every(DAY), id="digest")
        else:
            await jobs.enqueue(foreign, Letter(to=ADA), job_id="x", **options.get(where, {}))
    with caplog.at_level(logging.WARNING):
        found = await deleted(accounts)
    assert found["queuesUncleared"] == ["acme-letters"]
    assert "still hold jobs or archives of a deleted account, or cannot be read: acme-letters" in (
        caplog.text
    )
    assert len(service.jobs(foreign)) == 1, "it is left alone"
    assert await mail_variables(accounts) == {"complete": False, "kept": []}


async def test_an_undeclared_queue_that_is_damaged_is_named(
    accounts: Any, erasing: None, service: Kit
) -> None:
    await enqueue(service, "x", Letter(to="bob@example.org"))
    with redis.Redis.from_url(service.url) as store:
        store.set(f"{service.prefix}:acme-letters:completed", "no sorted set")
        found = await deleted(accounts)
        store.delete(f"{service.prefix}:acme-letters:completed")
    assert found["queuesUncleared"] == ["acme-letters"]
    assert (await mail_variables(accounts))["complete"] is False


async def test_without_the_plugin_of_exports_archives_may_be_left_and_the_mail_says_it(
    accounts: Any, erasing: None, service: Kit
) -> None:
    exports = Queue("data-exports", Letter)
    async with service.connect(exports) as jobs:
        await jobs.enqueue(exports, Letter(user_id="bob-1"))
    await service.drain(exports.processed_by(write))
    found = await deleted(accounts)
    assert (found["queuesUndeclared"], found["queuesUncleared"]) == (["data-exports"],) * 2
    assert (await mail_variables(accounts))["complete"] is False


async def test_without_undeclared_queues_nothing_is_said(
    accounts: Any, erasing: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "corral_account_deletions"):
        found = await deleted(accounts)
    assert (found["queuesUndeclared"], found["queuesUncleared"]) == ([], [])
    assert "declares" not in caplog.text


# what is kept


async def test_what_is_kept_is_in_receipt_result_and_mail(
    accounts: Any, taking_part: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "accounts.toml").write_text(
        '[tables.orders]\nuser_column = "user_id"\naction = "anonymize"\ncolumns = ["note", "user_id"]\n'
        '[tables.users]\nuser_column = "id"\naction = "keep"\nreason = "ten years, tax law"\n',
        "utf-8",
    )
    monkeypatch.setenv("CORRAL_ACCOUNT_DELETIONS_TABLES", str(tmp_path / "accounts.toml"))

    def erase() -> dict[str, int | Kept]:
        return {"posts": 4, "moderation": Kept(1, "a ban"), "warnings": Kept(0, "never needed")}

    taking_part(account_deletions_erase=erase)
    found = await deleted(accounts)
    assert found["rows"] == 6
    assert found["kept"] == [
        {"name": "moderation", "amount": 1, "reason": "a ban", "anonymized": False},
        {
            "name": "orders",
            "amount": 2,
            "reason": "anonymized: note, user_id",
            "anonymized": True,
        },
        {"name": "users", "amount": 1, "reason": "ten years, tax law", "anonymized": False},
        {"name": "warnings", "amount": 0, "reason": "never needed", "anonymized": False},
    ]
    assert await mail_variables(accounts) == {
        "complete": True,
        "kept": ["a ban", "ten years, tax law"],
    }
    stored = await accounts.rows("SELECT name, amount FROM account_deletion_kept ORDER BY name")
    assert stored == [("moderation", 1), ("orders", 2), ("users", 1), ("warnings", 0)]
    removed = await accounts.rows(
        "SELECT name, amount FROM account_deletion_receipts ORDER BY name"
    )
    assert removed == [("orders", 2), ("posts", 4)]


# what is outside of the database


async def test_files_are_purged_after_the_commit_and_again_until_it_succeeds(
    accounts: Any, taking_part: Any, erase_orders: Any
) -> None:
    seen: list[list[tuple[Any, ...]]] = []

    async def purge(user_id: str) -> dict[str, int]:
        assert user_id == "ada-4711"
        seen.append(await accounts.rows("SELECT id FROM users"))
        if len(seen) == 1:
            raise OSError(f"no storage for {ADA}")
        return {"avatars": 2, "orders": 1}

    taking_part(account_deletions_erase=erase_orders, account_deletions_purge=purge)
    request = await accounts.asked(grace=NOW)
    first, second = await accounts.drained(DAY)
    assert first[0] == "Retried"
    assert "account_deletions_purge" in first[1]
    assert ADA not in first[1]
    assert json.loads(second[1])["rows"] == 6
    assert seen == [[("bob-1",)], [("bob-1",)]], "what it may need is gone by then"
    done = await accounts.request(request.id)
    assert done.finished_at is not None
    receipts = await accounts.rows(
        "SELECT name, amount FROM account_deletion_receipts ORDER BY name"
    )
    assert receipts == [("avatars", 2), ("orders", 3), ("users", 1)]
    await accounts.relayed()
    assert len(accounts.kit.jobs("emails")) == 1


async def test_nothing_is_purged_while_a_job_about_the_user_runs_or_waits(
    accounts: Any, taking_part: Any, erase_orders: Any
) -> None:
    """An export that runs would leave an archive behind the purge."""
    calls: list[str] = []

    def purge(user_id: str) -> None:
        calls.append(user_id)

    taking_part(account_deletions_erase=erase_orders, account_deletions_purge=purge)
    await accounts.kit.enqueue("emails", {"to": ADA, "template": "welcome", "variables": {}})
    await accounts.asked(grace=NOW)
    assert [kind for kind, _ in await accounts.drained(NOW)] == ["Snoozed"]
    assert calls == []


def everything_in(url: str) -> str:
    """All values of hashes, and all events, in the store."""
    with redis.Redis.from_url(url, decode_responses=True, encoding_errors="replace") as store:
        found = [
            store.hgetall(key) if store.type(key) == "hash" else store.xrange(key)
            for key in store.scan_iter("*acme-letters*")
            if store.type(key) in {"hash", "stream"}
        ]
    return repr(found)
