"""Asking for a deletion, and taking it back, in the caller's transaction."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from corral.errors import ConfigurationError
from corral.sql import Outbox
from corral.testing import RecordingJobScheduler
from corral_account_deletions import account_deletions
from corral_account_deletions.requests import request_deletion

pytestmark = pytest.mark.asyncio


async def test_a_request_is_stored_and_its_job_comes_after_the_grace_period(accounts: Any) -> None:
    request = await accounts.asked(locale="de", grace=timedelta(days=14))
    assert request.due_at - request.requested_at == timedelta(days=14)
    assert await accounts.request(request.id) == request
    job = accounts.kit.assert_enqueued(
        account_deletions,
        {"user_id": "ada-4711", "request_id": request.id, "requested_at": request.requested_at},
    )
    assert (job.id, job.state) == (f"deletion-{request.id}", "delayed")
    stored = await accounts.stored(account_deletions, job.id)
    assert timedelta(days=13) < stored.due_at - request.requested_at < timedelta(days=15)


async def test_code_that_asks_is_tested_without_a_store(accounts: Any) -> None:
    jobs = RecordingJobScheduler()
    async with AsyncSession(accounts.engine) as session, session.begin():
        request = await request_deletion(session, jobs, "ada-4711", email="ada@example.org")
    jobs.assert_enqueued(account_deletions, {"request_id": request.id})


async def test_the_grace_period_is_a_setting(
    accounts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await accounts.asked()
    assert first.due_at - first.requested_at == timedelta(days=30)
    monkeypatch.setenv("CORRAL_ACCOUNT_DELETIONS_GRACE_DAYS", "0.5")
    other = await accounts.asked("bob-1", "bob@example.org")
    assert other.due_at - other.requested_at == timedelta(hours=12)
    monkeypatch.setenv("CORRAL_ACCOUNT_DELETIONS_GRACE_DAYS", "-1")
    with pytest.raises(ConfigurationError, match="CORRAL_ACCOUNT_DELETIONS_GRACE_DAYS"):
        await accounts.asked("eve-2", "eve@example.org")


async def test_asking_twice_is_asking_once(accounts: Any) -> None:
    first = await accounts.asked()
    assert await accounts.asked(email="other@example.org", grace=timedelta(0)) == first
    both = await asyncio.gather(*(accounts.asked("bob-1", "bob@example.org") for _ in range(4)))
    assert len(set(both)) == 1
    assert len(accounts.kit.jobs(account_deletions)) == 2


async def test_a_request_that_is_rolled_back_was_never_made(accounts: Any) -> None:
    async with accounts.kit.connect() as jobs, accounts.engine.connect() as connection:
        await request_deletion(
            connection, Outbox(jobs).within(connection), "ada-4711", email="ada@example.org"
        )
        await connection.rollback()
    assert await accounts.relayed() == 0
    assert await accounts.rows("SELECT * FROM account_deletion_requests") == []


async def test_a_request_can_be_cancelled_once_and_asked_for_again(accounts: Any) -> None:
    first = await accounts.asked()
    assert await accounts.cancelled("bob-1") is False
    assert await accounts.cancelled() is True
    assert await accounts.cancelled() is False
    cancelled = await accounts.request(first.id)
    assert cancelled.cancelled_at is not None
    assert cancelled.email is None, "nobody needs it any longer"
    assert (await accounts.asked()).id != first.id


async def test_an_id_that_is_the_address_is_refused(accounts: Any) -> None:
    with pytest.raises(ValueError, match="could not be forgotten"):
        await accounts.asked("Ada@example.org")
