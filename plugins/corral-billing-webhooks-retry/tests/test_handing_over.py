"""Handing over: once for each event, all or nothing, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from corral import Fail, HookRaised, sql
from corral.errors import ConfigurationError, DatabaseUnavailable
from corral.sql import TransactionSpoilt
from corral_billing_webhooks_retry import BillingEvent, enqueue_event
from corral_billing_webhooks_retry.desk import SCOPE
from corral_billing_webhooks_retry.processor import open_desk
from corral_billing_webhooks_retry.settings import PREFIX

pytestmark = pytest.mark.asyncio


async def test_everybody_is_told_and_it_is_written_down(till: Any) -> None:
    told: list[BillingEvent] = []

    def count(event: BillingEvent) -> None:
        told.append(event)

    assert await till.hand_over(till.desk(till.pay, count)) == "handled"
    assert told == [till.event()]
    assert await till.effects() == ["stripe evt_1"]
    assert await till.left() == (1, 1, 0)


async def test_a_second_run_has_no_second_effect(till: Any) -> None:
    """Also the run after a crash between commit and completion: it finds what this one finds."""
    desk = till.desk(till.pay)
    assert [await till.hand_over(desk, attempt=attempt) for attempt in (1, 2, 3)] == [
        "handled",
        "replayed",
        "replayed",
    ]
    assert await till.left() == (1, 1, 0)


async def test_a_replay_is_known_by_the_event_and_not_by_its_job(till: Any) -> None:
    """A producer in another language may have given the job any id; and the body may have another
    order.
    """
    desk = till.desk(till.pay)
    assert await till.hand_over(desk, id="stripe-evt_1") == "handled"
    again = till.event().model_copy(update={"body": {"pending_webhooks": 0, "id": "evt_1"}})
    assert await till.hand_over(desk, again, id="another") == "replayed"
    assert await till.effects() == ["stripe evt_1"]


async def test_100_replays_8_at_a_time_have_one_effect(till: Any) -> None:
    desk, turn = till.desk(till.pay), asyncio.Semaphore(8)

    async def run(number: int) -> str:
        async with turn:
            return await till.hand_over(desk, id=f"job-{number}")

    statuses = await asyncio.gather(*(run(number) for number in range(100)))
    assert Counter(statuses) == {"handled": 1, "replayed": 99}
    assert await till.left() == (1, 1, 0)


async def test_events_of_one_id_from_two_providers_are_two(till: Any) -> None:
    desk = till.desk(till.pay)
    alike = [
        till.event("play-1", provider="stripe"),
        till.event("1", provider="google-play"),
        till.event("1"),
    ]
    assert [await till.hand_over(desk, each) for each in alike] == ["handled"] * 3
    assert await till.effects() == ["google-play 1", "stripe 1", "stripe play-1"]


async def test_a_replay_waits_for_the_first_to_end_and_takes_over_where_that_fails(
    till: Any,
) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def first(event: BillingEvent, connection: Any) -> None:
        await till.pay(event, connection)
        if not entered.is_set():
            entered.set()
            await leave.wait()
            raise LookupError("no such customer")

    desk = till.desk(first)
    failing = asyncio.create_task(till.hand_over(desk, id="first"))
    await asyncio.wait_for(entered.wait(), 30)
    replay = asyncio.create_task(till.hand_over(desk, id="second"))
    leave.set()
    with pytest.raises(HookRaised):
        await failing
    assert await replay == "handled"
    assert await till.left() == (1, 1, 0)


class TestASubscriberThatFails:
    @pytest.mark.parametrize("awaited", [True, False])
    async def test_leaves_nothing_half_done_and_is_told_again(
        self, till: Any, awaited: bool
    ) -> None:
        """Neither what others wrote before it, nor what was enqueued, nor the claim."""
        broken = True

        async def enqueue(jobs: Any) -> None:
            await jobs.enqueue("billing-webhooks-retry", till.event("follow-up"))

        def refuse() -> None:
            if broken:
                raise ValueError("no price")

        async def refuse_later() -> None:
            refuse()

        desk = till.desk(till.pay, enqueue, refuse_later if awaited else refuse, till.pay)
        for attempt in (1, 2):
            with pytest.raises(
                HookRaised,
                match=r"^acme_2 raised in billing_webhooks_retry_event: ValueError: no price$",
            ):
                await till.hand_over(desk, attempt=attempt)
            assert await till.left() == (0, 0, 0)

        broken = False
        assert await till.hand_over(desk, attempt=3) == "handled"
        assert await till.left() == (2, 1, 1)

    async def test_by_swallowing_the_database_s_refusal_does_not_make_it_look_handled(
        self, till: Any
    ) -> None:
        """PostgreSQL answers COMMIT with ROLLBACK then, and without an error.

        To SQLite a refusal is no matter.
        """

        async def swallow(connection: Any) -> None:
            with contextlib.suppress(DBAPIError):
                await connection.execute(text("SELECT * FROM nowhere"))

        desk = till.desk(till.pay, swallow)
        if till.on_postgresql:
            with pytest.raises(TransactionSpoilt, match="left the transaction unusable"):
                await till.hand_over(desk)
            assert await till.left() == (0, 0, 0)
        else:
            assert await till.hand_over(desk) == "handled"
            assert await till.left() == (1, 1, 0)

    async def test_in_a_savepoint_may_go_on(self, till: Any) -> None:
        async def attempt(connection: Any) -> None:
            with contextlib.suppress(DBAPIError):
                async with connection.begin_nested():
                    await connection.execute(text("INSERT INTO payments VALUES ('half')"))
                    await connection.execute(text("SELECT * FROM nowhere"))

        assert await till.hand_over(till.desk(attempt, till.pay)) == "handled"
        assert await till.effects() == ["stripe evt_1"]

    async def test_by_ending_the_transaction_is_told(self, till: Any) -> None:
        async def roll_back(connection: Any) -> None:
            await connection.rollback()

        with pytest.raises(TransactionSpoilt):
            await till.hand_over(till.desk(till.pay, roll_back))
        assert await till.left() == (0, 0, 0)


async def test_what_a_subscriber_enqueues_is_enqueued_with_the_rest(till: Any) -> None:
    async def enqueue(event: BillingEvent, jobs: Any) -> None:
        await jobs.enqueue(
            "billing-webhooks-retry", till.event("follow-up"), delay=timedelta(hours=1)
        )

    desk = till.desk(till.pay, enqueue)
    assert [await till.hand_over(desk) for _ in range(2)] == ["handled", "replayed"]
    assert await till.left() == (1, 1, 1)


async def test_an_event_may_come_in_through_an_outbox(till: Any) -> None:
    async with till.engine.begin() as connection:
        enqueued = await enqueue_event(sql.Outbox(till.jobs).within(connection), till.event())
    assert (enqueued.id, await till.left()) == ("stripe-evt_1", (0, 0, 1))


async def test_an_event_that_nobody_wanted_is_not_written_down_and_can_come_again(
    till: Any,
) -> None:
    assert await till.hand_over(till.desk()) == "ignored"
    assert await till.left() == (0, 0, 0)
    assert await till.hand_over(till.desk(till.pay)) == "handled"
    assert await till.effects() == ["stripe evt_1"]


async def test_an_unknown_provider_fails_for_good(till: Any) -> None:
    with pytest.raises(
        Fail,
        match=rf"^billing provider 'paddle' is not in {PREFIX}PROVIDERS, which has google-play, stripe$",
    ):
        await till.hand_over(till.desk(till.pay), till.event(provider="paddle"))
    assert await till.left() == (0, 0, 0)


async def test_a_claim_that_is_purged_makes_its_effect_possible_again(till: Any) -> None:
    desk = till.desk(till.pay)
    await till.hand_over(desk)
    async with till.engine.begin() as connection:
        assert await sql.Ledger.purge(connection, SCOPE, timedelta(seconds=-1)) == 1
    assert await till.hand_over(desk) == "handled"


class TestTheDeskOfAWorker:
    @pytest_asyncio.fixture
    async def resources(self) -> AsyncIterator[AsyncExitStack]:
        async with AsyncExitStack() as resources:
            yield resources

    @pytest.fixture
    def deps(self, resources: AsyncExitStack, till: Any) -> Any:
        """`deps(subscriber, …)`: what a worker offers whose packages subscribe so."""
        return lambda *subscribers, **named: till.deps(*subscribers, resources=resources, **named)

    async def test_is_on_its_database_and_for_the_providers_of_the_settings(
        self, deps: Any, till: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(f"{PREFIX}PROVIDERS", "paddle")
        async with open_desk(deps(till.pay)) as desk:
            assert await till.hand_over(desk, till.event(provider="paddle")) == "handled"
            with pytest.raises(Fail):
                await till.hand_over(desk, till.event(provider="stripe"))
        assert await till.effects() == ["paddle evt_1"]

    async def test_asks_implementations_of_the_old_name_too(self, deps: Any, till: Any) -> None:
        async with open_desk(deps(till.pay, hook="corral_billing_event")) as desk:
            assert await till.hand_over(desk) == "handled"
            assert await till.hand_over(desk) == "replayed"
        assert len(await till.effects()) == 1

    async def test_says_at_the_start_that_nobody_subscribes(
        self, deps: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with open_desk(deps()):
            pass
        assert caplog.messages == [
            "nobody subscribes to billing_webhooks_retry_event: every event is ignored"
        ]

    async def test_is_not_opened_with_a_setting_that_cannot_be_used(
        self, deps: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(f"{PREFIX}PROVIDER", "stripe")
        with pytest.raises(ConfigurationError, match="PROVIDERS"):
            async with open_desk(deps()):
                pass

    async def test_is_not_opened_on_a_database_without_a_ledger(self, deps: Any, till: Any) -> None:
        async with till.engine.begin() as connection:
            await connection.execute(text("DROP TABLE corral_ledger"))
        with pytest.raises(ConfigurationError, match="lacks the table corral_ledger") as refused:
            async with open_desk(deps(till.pay)):
                pass
        assert refused.value.hint == "corral db create"

    async def test_is_opened_while_the_database_is_away_and_the_job_is_tried_again(
        self, deps: Any, till: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CORRAL_DATABASE_URL", "postgresql+asyncpg://app@/app?host=/nowhere")
        async with open_desk(deps(till.pay)) as desk:
            with pytest.raises(DatabaseUnavailable):
                await till.hand_over(desk)
