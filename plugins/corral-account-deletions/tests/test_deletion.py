"""Carrying a deletion out, on SQLite and on PostgreSQL: all of it, once, or nothing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from corral_account_deletions import account_deletions, traces
from corral_account_deletions.deletion import Deletion
from corral_account_deletions.requests import DeletionRequest

pytestmark = pytest.mark.asyncio

DAY = timedelta(days=1)
ADA = "ada@example.org"


def result(outcome: str, rows: int = 0, scrubbed: int = 0, removed: int = 0) -> tuple[str, bytes]:
    message = {
        "outcome": outcome,
        "rows": rows,
        "jobsScrubbed": scrubbed,
        "jobsRemoved": removed,
        "jobsShared": 0,
        "queuesUndeclared": [],
        "queuesUncleared": [],
        "kept": [],
    }
    return "Completed", json.dumps(message, separators=(",", ":")).encode()


async def users(accounts: Any) -> list[str]:
    return [name for (name,) in await accounts.rows("SELECT id FROM users ORDER BY id")]


async def mails(accounts: Any) -> list[Any]:
    """The jobs of the queue `emails`, after the outbox was carried there."""
    await accounts.relayed()
    return accounts.kit.jobs("emails")


async def test_after_the_grace_period_everything_is_erased_and_confirmed(
    accounts: Any, erasing: None
) -> None:
    request = await accounts.asked(locale="de")
    assert await accounts.drained(for_=29 * DAY) == []
    assert await users(accounts) == ["ada-4711", "bob-1"]

    assert await accounts.drained(for_=2 * DAY) == [result("deleted", rows=3)]

    assert await users(accounts) == ["bob-1"]
    assert await accounts.rows("SELECT user_id FROM orders") == [("bob-1",)]
    (mail,) = await mails(accounts)
    assert mail.payload.to == ADA
    assert (mail.payload.template, mail.payload.variables, mail.payload.locale) == (
        "account-deleted",
        {"complete": True, "kept": []},
        "de",
    )
    done = await accounts.request(request.id)
    assert done.processed_at == done.finished_at
    assert timedelta(0) <= done.processed_at - request.due_at < timedelta(minutes=1), (
        "by the store's time"
    )
    assert (done.email, done.locale) == (None, None)
    receipts = await accounts.rows(
        "SELECT request_id, participant, name, amount FROM account_deletion_receipts"
    )
    assert sorted(receipts) == [
        (request.id, "acme_jobs", "orders", 2),
        (request.id, "acme_jobs", "users", 1),
    ]


async def test_cancelled_in_the_grace_period_nothing_is_erased(
    accounts: Any, erasing: None
) -> None:
    request = await accounts.asked()
    assert await accounts.drained(for_=29 * DAY) == []
    assert await accounts.cancelled()
    assert await accounts.drained(for_=2 * DAY) == [result("cancelled")]
    payload = {
        "userId": "ada-4711",
        "requestId": request.id,
        "requestedAt": request.requested_at.isoformat(),
    }
    await accounts.kit.enqueue(account_deletions, payload)
    assert await accounts.drained(for_=DAY) == [result("cancelled")], "whoever retries it"
    assert await users(accounts) == ["ada-4711", "bob-1"]
    assert await mails(accounts) == []
    assert await accounts.rows("SELECT * FROM account_deletion_receipts") == []


async def test_too_late_to_cancel(accounts: Any, erasing: None) -> None:
    await accounts.asked()
    await accounts.drained()
    assert not await accounts.cancelled()


async def test_a_participant_that_raises_stops_everything_and_the_job_is_tried_again(
    accounts: Any, erase_orders: Any, taking_part: Callable[..., None]
) -> None:
    tries = []

    async def refuse_twice(user_id: str, connection: Any) -> dict[str, int]:
        removed = await erase_orders(user_id, connection)
        tries.append(
            await accounts.dumped() if accounts.engine.dialect.name == "postgresql" else ""
        )
        if len(tries) < 3:
            raise LookupError(f"{ADA} has an open invoice")
        return removed

    taking_part(account_deletions_erase=refuse_twice)
    request = await accounts.asked()
    first, second, third = await accounts.drained()
    message = (
        "DeletionFailed: nothing was erased: account_deletions_erase of acme_jobs: LookupError: "
    )
    assert first == second == ("Retried", f"{message}[e-mail address] has an open invoice")
    assert third == result("deleted", rows=3)
    (job,) = accounts.kit.jobs(account_deletions)
    assert job.attempts_made == 3
    stored = await accounts.stored(account_deletions, f"deletion-{request.id}")
    assert len(stored.stacktrace) == 2
    assert "in refuse_twice" in stored.stacktrace[0], "it says where"
    assert ADA not in repr(stored), "and not whom"


async def test_nothing_is_erased_where_a_later_participant_raises(
    accounts: Any,
    erase_orders: Any,
    taking_part: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The plugin's own participant comes after the application's, and its file is broken."""
    taking_part(account_deletions_erase=erase_orders)
    request = await accounts.asked()
    before = await accounts.dumped()

    async def broken(*_: object) -> None:
        raise OSError("no such file")

    monkeypatch.setattr("corral_account_deletions.configured.erase_configured", broken)
    ended = await accounts.drained()
    assert {kind for kind, _ in ended[:-1]} == {"Retried"}
    assert ended[-1][0] == "Failed"
    assert ended[-1][1] == (
        "DeletionFailed: nothing was erased: account_deletions_erase of corral_account_deletions: OSError: no such file"
    )
    assert await accounts.dumped() == before
    assert await accounts.request(request.id) == request, "it is open, and `corral retry` goes on"


async def test_a_participant_that_swallows_the_databases_refusal_erases_nothing_in_silence(
    accounts: Any, erase_orders: Any, taking_part: Callable[..., None]
) -> None:
    """PostgreSQL takes the whole transaction back then, and calls it a commit."""

    async def swallow(user_id: str, connection: Any) -> dict[str, int]:
        removed = await erase_orders(user_id, connection)
        with contextlib.suppress(DBAPIError):
            await connection.execute(text("INSERT INTO orders VALUES (9, 'nobody', '')"))
        return removed

    taking_part(account_deletions_erase=swallow)
    request = await accounts.asked()
    ended = await accounts.drained()
    done = await accounts.request(request.id)
    if accounts.engine.dialect.name == "sqlite":  # which takes back the statement only
        assert ended == [result("deleted", rows=3)]
        assert await users(accounts) == ["bob-1"]
    else:
        assert {kind for kind, _ in ended} == {"Retried", "Failed"}
        assert await users(accounts) == ["ada-4711", "bob-1"]
        assert done == request


async def test_a_recorder_that_swallows_the_databases_refusal_confirms_nothing(
    accounts: Any, erase_orders: Any, taking_part: Callable[..., None]
) -> None:
    async def swallow(connection: Any) -> None:
        with contextlib.suppress(DBAPIError):
            await connection.execute(text("INSERT INTO orders VALUES (9, 'nobody', '')"))

    taking_part(account_deletions_save_progress=swallow, account_deletions_erase=erase_orders)
    await accounts.asked()
    ended = await accounts.drained()
    confirmed = [mail.payload.to for mail in await mails(accounts)]
    if accounts.engine.dialect.name == "sqlite":
        assert (await users(accounts), confirmed) == (["bob-1"], [ADA])
    else:
        assert {kind for kind, _ in ended} == {"Retried", "Failed"}
        assert (await users(accounts), confirmed) == (["ada-4711", "bob-1"], [])


async def test_what_is_refused_at_the_commit_is_reported_without_the_address(
    accounts: Any, taking_part: Callable[..., None]
) -> None:
    """A deferred foreign key: nobody raises before the transaction ends."""
    if accounts.engine.dialect.name == "sqlite":
        deferred = "REFERENCES notes (email) DEFERRABLE INITIALLY DEFERRED"
    else:
        deferred = "REFERENCES notes (email) ON DELETE NO ACTION DEFERRABLE INITIALLY DEFERRED"
    await accounts.run(
        "CREATE TABLE notes (email VARCHAR(80) PRIMARY KEY)",
        f"CREATE TABLE answers (note VARCHAR(80) {deferred})",
        f"INSERT INTO notes VALUES ('{ADA}')",
        f"INSERT INTO answers VALUES ('{ADA}')",
    )

    async def erase_notes(connection: Any) -> None:
        await connection.execute(text("DELETE FROM notes"))

    taking_part(account_deletions_erase=erase_notes)
    await accounts.asked()
    ended = await accounts.drained()
    assert {kind for kind, _ in ended[:-1]} == {"Retried"}
    assert ended[-1][0] == "Failed"
    assert "IntegrityError" in ended[0][1]
    assert ADA not in repr(ended)


@pytest.mark.parametrize("answer", [3, {"orders": "many"}, ["orders"]])
async def test_a_participant_that_does_not_count_is_named(
    accounts: Any, taking_part: Callable[..., None], answer: object
) -> None:
    taking_part(account_deletions_erase=lambda: answer)
    await accounts.asked()
    assert (await accounts.drained())[0] == (
        "Retried",
        "DeletionFailed: nothing was erased: TypeError: account_deletions_erase of acme_jobs returned no counts by name",
    )


async def test_a_job_that_nobody_asked_for_is_failed_for_good(accounts: Any, erasing: None) -> None:
    """Forged, or stale: the request decides (S-26)."""
    request = await accounts.asked()
    payload = {"requestedAt": request.requested_at.isoformat()}
    await accounts.kit.enqueue(
        account_deletions, {**payload, "userId": "ada-4711", "requestId": "made-up"}
    )
    await accounts.kit.enqueue(
        account_deletions, {**payload, "userId": "bob-1", "requestId": request.id}
    )
    assert sorted(await accounts.drained(for_=DAY)) == [
        ("Failed", f"Fail: deletion request {request.id!r} is another user's"),
        ("Failed", "Fail: no deletion request 'made-up'"),
    ]
    assert await users(accounts) == ["ada-4711", "bob-1"]


async def test_a_job_that_comes_too_early_waits_for_the_day_that_the_user_was_given(
    accounts: Any, erasing: None
) -> None:
    """Forged, or promoted by an operator."""
    request = await accounts.asked()
    payload = {
        "userId": "ada-4711",
        "requestId": request.id,
        "requestedAt": request.requested_at.isoformat(),
    }
    await accounts.kit.enqueue(account_deletions, payload)
    ended = await accounts.drained(for_=29 * DAY)
    assert [kind for kind, _ in ended] == ["Snoozed"]
    assert await users(accounts) == ["ada-4711", "bob-1"]
    ended = await accounts.drained(for_=2 * DAY)
    assert sorted(ended) == [result("already-deleted"), result("deleted", rows=3)]


async def test_the_processor_twice_is_one_effect(accounts: Any, erasing: None) -> None:
    request = await accounts.asked()
    await accounts.drained()
    after = await accounts.dumped()
    payload = {
        "userId": "ada-4711",
        "requestId": request.id,
        "requestedAt": request.requested_at.isoformat(),
    }
    await accounts.kit.enqueue(account_deletions, payload)
    assert await accounts.drained() == [result("already-deleted")]
    assert await accounts.dumped() == after, "the mail included, which waits in the outbox"
    assert len(await mails(accounts)) == 1


class Killed(BaseException):
    """A worker that dies."""


@pytest.mark.parametrize("where", ["before the scrub", "after the scrub", "after everything"])
async def test_a_deletion_that_is_cut_off_goes_on_where_it_was(
    accounts: Any, erasing: None, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    target, name = {
        "before the scrub": (traces.Traces, "erase"),
        "after the scrub": (Deletion, "finish"),
        "after everything": (Deletion, "finish"),
    }[where]
    whole = getattr(target, name)

    async def cut_off(*arguments: Any, **named: Any) -> None:
        monkeypatch.setattr(target, name, whole)
        if where == "after everything":
            await whole(*arguments, **named)
        raise Killed

    monkeypatch.setattr(target, name, cut_off)
    request = await accounts.asked()
    await accounts.kit.enqueue(
        "emails", {"to": ADA, "template": "welcome", "variables": {}}, delay=300 * DAY
    )
    first, second = await accounts.drained()
    assert (first[0], "Killed" in first[1]) == ("Retried", True)
    if where == "after everything":
        assert second == result("already-deleted")
    else:
        assert second[1].startswith(b'{"outcome":"deleted","rows":3,')
    assert await users(accounts) == ["bob-1"]
    assert len(await mails(accounts)) == 1, "the confirmation; what was to be sent is not"
    assert (await accounts.request(request.id)).email is None
    assert len(await accounts.rows("SELECT * FROM account_deletion_receipts")) == 2


async def test_an_application_may_keep_the_requests(
    accounts: Any, erase_orders: Any, taking_part: Callable[..., None]
) -> None:
    await accounts.run(
        "CREATE TABLE farewells (id VARCHAR(40) PRIMARY KEY, done INTEGER, email VARCHAR(80))"
    )
    await accounts.run(f"INSERT INTO farewells VALUES ('f1', 0, '{ADA}')")
    now = accounts.kit.now

    async def find(request_id: str, connection: Any) -> DeletionRequest | None:
        found = await connection.execute(
            text("SELECT done, email FROM farewells WHERE id = :id"), {"id": request_id}
        )
        row = found.one_or_none()
        if row is None:
            return None
        done = [now if row.done > step else None for step in (0, 1)]
        return DeletionRequest(
            request_id,
            "ada-4711",
            row.email,
            None,
            now,
            now,
            processed_at=done[0],
            finished_at=done[1],
        )

    async def record(request: DeletionRequest, connection: Any) -> bool:
        values = {"id": request.id, "email": request.email, "done": 2 if request.finished_at else 1}
        change = text("UPDATE farewells SET done = :done, email = :email WHERE id = :id")
        return (await connection.execute(change, values)).rowcount == 1

    taking_part(
        account_deletions_find_request=find,
        account_deletions_save_progress=record,
        account_deletions_erase=erase_orders,
    )
    payload = {"userId": "ada-4711", "requestedAt": now.isoformat()}
    await accounts.kit.enqueue(account_deletions, {**payload, "requestId": "f1"})
    ours = await accounts.asked("bob-1", "bob@example.org", grace=timedelta(0))
    assert len(await accounts.drained()) == 2
    assert await accounts.rows("SELECT * FROM farewells") == [("f1", 2, None)]
    assert (await accounts.request(ours.id)).finished_at, (
        "what is not the application's is still ours"
    )
    assert await users(accounts) == []
    assert {mail.payload.to for mail in await mails(accounts)} == {ADA, "bob@example.org"}


async def test_a_request_that_nobody_records_is_not_carried_out(
    accounts: Any, erase_orders: Any, taking_part: Callable[..., None]
) -> None:
    now = accounts.kit.now
    found = DeletionRequest("f1", "ada-4711", ADA, None, now, now)
    taking_part(account_deletions_find_request=lambda: found, account_deletions_erase=erase_orders)
    await accounts.kit.enqueue(
        account_deletions, {"userId": "ada-4711", "requestId": "f1", "requestedAt": now.isoformat()}
    )
    (kind, message), *_ = await accounts.drained()
    assert kind == "Retried"
    assert (
        "nobody has recorded deletion request 'f1': see account_deletions_save_progress" in message
    )
    assert await users(accounts) == ["ada-4711", "bob-1"]


async def test_an_address_that_the_mail_queue_refuses_does_not_keep_the_deletion_open(
    accounts: Any, erasing: None, caplog: pytest.LogCaptureFixture
) -> None:
    request = await accounts.asked(email="ada at example.org")
    assert await accounts.drained() == [result("deleted", rows=3)]
    (message,) = [
        each
        for each in caplog.messages
        if each.startswith("the mail that confirms a deletion cannot be sent, ")
    ]
    assert "[e-mail address] is no address" in message
    assert "ada at" not in caplog.text
    assert (await accounts.request(request.id)).email is None
    assert await mails(accounts) == []
