"""Dispatching: once for each event, all or nothing, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from corral import Fail, HookRaised, sql
from corral.errors import ConfigurationError, DatabaseUnavailable
from corral.sql import TransactionSpoilt
from corral_billing_webhooks_retry import BillingEvent, enqueue_event
from corral_billing_webhooks_retry.event_dispatcher import SCOPE
from corral_billing_webhooks_retry.processor import open_dispatcher
from corral_billing_webhooks_retry.settings import PREFIX

pytestmark = pytest.mark.asyncio


async def test_all_subscribers_are_called_and_the_event_is_recorded(payments_db: Any) -> None:
    received: list[BillingEvent] = []

    def receive(event: BillingEvent) -> None:
        received.append(event)

    assert await payments_db.run_job(payments_db.dispatcher(payments_db.pay, receive)) == "handled"
    assert received == [payments_db.event()]
    assert await payments_db.effects() == ["stripe evt_1"]
    assert await payments_db.count_rows() == (1, 1, 0)


async def test_a_second_run_has_no_second_effect(payments_db: Any) -> None:
    """Also the run after a crash between commit and completion: it finds what this one finds."""
    dispatcher = payments_db.dispatcher(payments_db.pay)
    assert [await payments_db.run_job(dispatcher, attempt=attempt) for attempt in (1, 2, 3)] == [
        "handled",
        "replayed",
        "replayed",
    ]
    assert await payments_db.count_rows() == (1, 1, 0)


async def test_a_replay_is_known_by_the_event_and_not_by_its_job(payments_db: Any) -> None:
    """A producer in another language may have given the job any id; and the body may have another
    order.
    """
    dispatcher = payments_db.dispatcher(payments_db.pay)
    assert await payments_db.run_job(dispatcher, id="stripe-evt_1") == "handled"
    again = payments_db.event().model_copy(update={"body": {"pending_webhooks": 0, "id": "evt_1"}})
    assert await payments_db.run_job(dispatcher, again, id="another") == "replayed"
    assert await payments_db.effects() == ["stripe evt_1"]


async def test_100_replays_8_at_a_time_have_one_effect(payments_db: Any) -> None:
    dispatcher, turn = payments_db.dispatcher(payments_db.pay), asyncio.Semaphore(8)

    async def run(number: int) -> str:
        async with turn:
            return await payments_db.run_job(dispatcher, id=f"job-{number}")

    statuses = await asyncio.gather(*(run(number) for number in range(100)))
    assert Counter(statuses) == {"handled": 1, "replayed": 99}
    assert await payments_db.count_rows() == (1, 1, 0)


async def test_events_of_one_id_from_two_providers_are_two(payments_db: Any) -> None:
    dispatcher = payments_db.dispatcher(payments_db.pay)
    alike = [
        payments_db.event("play-1", provider="stripe"),
        payments_db.event("1", provider="google-play"),
        payments_db.event("1"),
    ]
    assert [await payments_db.run_job(dispatcher, each) for each in alike] == ["handled"] * 3
    assert await payments_db.effects() == ["google-play 1", "stripe 1", "stripe play-1"]


async def test_a_replay_waits_for_the_first_to_end_and_takes_over_where_that_fails(
    payments_db: Any,
) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def first(event: BillingEvent, connection: Any) -> None:
        await payments_db.pay(event, connection)
        if not entered.is_set():
            entered.set()
            await leave.wait()
            raise LookupError("no such customer")

    dispatcher = payments_db.dispatcher(first)
    failing = asyncio.create_task(payments_db.run_job(dispatcher, id="first"))
    await asyncio.wait_for(entered.wait(), 30)
    replay = asyncio.create_task(payments_db.run_job(dispatcher, id="second"))
    leave.set()
    with pytest.raises(HookRaised):
        await failing
    assert await replay == "handled"
    assert await payments_db.count_rows() == (1, 1, 0)


class TestASubscriberThatFails:
    @pytest.mark.parametrize("awaited", [True, False])
    async def test_leaves_nothing_half_done_and_is_called_again(
        self, payments_db: Any, awaited: bool
    ) -> None:
        """Neither what others wrote before it, nor what was enqueued, nor the claim."""
        broken = True

        async def enqueue(jobs: Any) -> None:
            await jobs.enqueue("billing-webhooks-retry", payments_db.event("follow-up"))

        def refuse() -> None:
            if broken:
                raise ValueError("no price")

        async def refuse_later() -> None:
            refuse()

        dispatcher = payments_db.dispatcher(
            payments_db.pay, enqueue, refuse_later if awaited else refuse, payments_db.pay
        )
        for attempt in (1, 2):
            with pytest.raises(
                HookRaised,
                match=r"^acme_2 raised in billing_webhooks_retry_event: ValueError: no price$",
            ):
                await payments_db.run_job(dispatcher, attempt=attempt)
            assert await payments_db.count_rows() == (0, 0, 0)

        broken = False
        assert await payments_db.run_job(dispatcher, attempt=3) == "handled"
        assert await payments_db.count_rows() == (2, 1, 1)

    async def test_by_swallowing_the_database_s_refusal_does_not_make_it_look_handled(
        self, payments_db: Any
    ) -> None:
        """PostgreSQL answers COMMIT with ROLLBACK then, and without an error.

        To SQLite a refusal is no matter.
        """

        async def swallow(connection: Any) -> None:
            with contextlib.suppress(DBAPIError):
                await connection.execute(text("SELECT * FROM nowhere"))

        dispatcher = payments_db.dispatcher(payments_db.pay, swallow)
        if payments_db.on_postgresql:
            with pytest.raises(TransactionSpoilt, match="left the transaction unusable"):
                await payments_db.run_job(dispatcher)
            assert await payments_db.count_rows() == (0, 0, 0)
        else:
            assert await payments_db.run_job(dispatcher) == "handled"
            assert await payments_db.count_rows() == (1, 1, 0)

    async def test_in_a_savepoint_may_go_on(self, payments_db: Any) -> None:
        async def attempt(connection: Any) -> None:
            with contextlib.suppress(DBAPIError):
                async with connection.begin_nested():
                    await connection.execute(text("INSERT INTO payments VALUES ('half')"))
                    await connection.execute(text("SELECT * FROM nowhere"))

        assert (
            await payments_db.run_job(payments_db.dispatcher(attempt, payments_db.pay)) == "handled"
        )
        assert await payments_db.effects() == ["stripe evt_1"]

    async def test_by_ending_the_transaction_fails_the_job(self, payments_db: Any) -> None:
        async def roll_back(connection: Any) -> None:
            await connection.rollback()

        with pytest.raises(TransactionSpoilt):
            await payments_db.run_job(payments_db.dispatcher(payments_db.pay, roll_back))
        assert await payments_db.count_rows() == (0, 0, 0)


async def test_what_a_subscriber_enqueues_is_enqueued_with_the_rest(payments_db: Any) -> None:
    async def enqueue(event: BillingEvent, jobs: Any) -> None:
        await jobs.enqueue(
            "billing-webhooks-retry", payments_db.event("follow-up"), delay=timedelta(hours=1)
        )

    dispatcher = payments_db.dispatcher(payments_db.pay, enqueue)
    assert [await payments_db.run_job(dispatcher) for _ in range(2)] == ["handled", "replayed"]
    assert await payments_db.count_rows() == (1, 1, 1)


async def test_an_event_may_come_in_through_an_outbox(payments_db: Any) -> None:
    async with payments_db.engine.begin() as connection:
        enqueued = await enqueue_event(
            sql.Outbox(payments_db.jobs).within(connection), payments_db.event()
        )
    assert (enqueued.id, await payments_db.count_rows()) == ("stripe-evt_1", (0, 0, 1))


async def test_an_event_that_nobody_wanted_is_not_written_down_and_can_come_again(
    payments_db: Any,
) -> None:
    assert await payments_db.run_job(payments_db.dispatcher()) == "ignored"
    assert await payments_db.count_rows() == (0, 0, 0)
    assert await payments_db.run_job(payments_db.dispatcher(payments_db.pay)) == "handled"
    assert await payments_db.effects() == ["stripe evt_1"]


async def test_an_unknown_provider_fails_for_good(payments_db: Any) -> None:
    with pytest.raises(
        Fail,
        match=rf"^billing provider 'paddle' is not in {PREFIX}PROVIDERS, which has google-play, stripe$",
    ):
        await payments_db.run_job(
            payments_db.dispatcher(payments_db.pay), payments_db.event(provider="paddle")
        )
    assert await payments_db.count_rows() == (0, 0, 0)


async def test_a_claim_that_is_purged_makes_its_effect_possible_again(payments_db: Any) -> None:
    dispatcher = payments_db.dispatcher(payments_db.pay)
    await payments_db.run_job(dispatcher)
    async with payments_db.engine.begin() as connection:
        assert await sql.Ledger.purge(connection, SCOPE, timedelta(seconds=-1)) == 1
    assert await payments_db.run_job(dispatcher) == "handled"


class TestTheDispatcherOfAWorker:
    @pytest_asyncio.fixture
    async def resources(self) -> AsyncIterator[AsyncExitStack]:
        async with AsyncExitStack() as resources:
            yield resources

    @pytest.fixture
    def deps(self, resources: AsyncExitStack, payments_db: Any) -> Any:
        """`deps(subscriber, …)`: what a worker offers whose packages subscribe so."""
        return lambda *subscribers, **named: payments_db.deps(
            *subscribers, resources=resources, **named
        )

    async def test_is_on_its_database_and_for_the_providers_of_the_settings(
        self, deps: Any, payments_db: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(f"{PREFIX}PROVIDERS", "paddle")
        async with open_dispatcher(deps(payments_db.pay)) as dispatcher:
            assert (
                await payments_db.run_job(dispatcher, payments_db.event(provider="paddle"))
                == "handled"
            )
            with pytest.raises(Fail):
                await payments_db.run_job(dispatcher, payments_db.event(provider="stripe"))
        assert await payments_db.effects() == ["paddle evt_1"]

    async def test_asks_implementations_of_the_old_name_too(
        self, deps: Any, payments_db: Any
    ) -> None:
        async with open_dispatcher(
            deps(payments_db.pay, hook="corral_billing_event")
        ) as dispatcher:
            assert await payments_db.run_job(dispatcher) == "handled"
            assert await payments_db.run_job(dispatcher) == "replayed"
        assert len(await payments_db.effects()) == 1

    async def test_says_at_the_start_that_nobody_subscribes(
        self, deps: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with open_dispatcher(deps()):
            pass
        assert caplog.messages == [
            "nobody subscribes to billing_webhooks_retry_event: every event is ignored"
        ]

    async def test_is_not_opened_with_a_setting_that_cannot_be_used(
        self, deps: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(f"{PREFIX}PROVIDER", "stripe")
        with pytest.raises(ConfigurationError, match="PROVIDERS"):
            async with open_dispatcher(deps()):
                pass

    async def test_is_not_opened_on_a_database_without_a_ledger(
        self, deps: Any, payments_db: Any
    ) -> None:
        async with payments_db.engine.begin() as connection:
            await connection.execute(text("DROP TABLE corral_ledger"))
        with pytest.raises(ConfigurationError, match="lacks the table corral_ledger") as refused:
            async with open_dispatcher(deps(payments_db.pay)):
                pass
        assert refused.value.hint == "corral db create"

    async def test_is_opened_while_the_database_is_away_and_the_job_is_tried_again(
        self, deps: Any, payments_db: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CORRAL_DATABASE_URL", "postgresql+asyncpg://app@/app?host=/nowhere")
        async with open_dispatcher(deps(payments_db.pay)) as dispatcher:
            with pytest.raises(DatabaseUnavailable):
                await payments_db.run_job(dispatcher)


class TestOrder:
    """Events of one object come in any order."""

    @staticmethod
    def event(name: str, second: int, **fields: Any) -> BillingEvent:
        """An event of a subscription, by default `sub_1` of Stripe."""
        given = {
            "provider": "stripe",
            "body": {"data": {"object": {"id": "sub_1"}}},
            **fields,
        }
        occurred_at = datetime(2027, 1, 1, 10, 0, second, tzinfo=UTC)
        return BillingEvent(
            event_id=name, type="customer.subscription.updated", occurred_at=occurred_at, **given
        )

    @pytest.fixture
    def seen(self) -> list[tuple[str, bool]]:
        return []

    @pytest_asyncio.fixture
    async def dispatcher(self, payments_db: Any, seen: list[tuple[str, bool]]) -> Any:
        def see(event: BillingEvent, newer_seen: bool) -> None:
            seen.append((event.event_id, newer_seen))

        return payments_db.dispatcher(see)

    async def test_a_subscriber_learns_that_a_newer_event_was_handled(
        self, payments_db: Any, dispatcher: Any, seen: list[tuple[str, bool]]
    ) -> None:
        order = [("b", 2), ("a", 1), ("same-second", 2), ("d", 4), ("c", 3), ("e", 5)]
        statuses = [
            await payments_db.run_job(dispatcher, self.event(*each), id=each[0]) for each in order
        ]
        assert statuses == ["handled"] * 6
        assert [name for name, newer_seen in seen if newer_seen] == ["a", "c"]

    @pytest.mark.parametrize(
        "other",
        [
            {"body": {"data": {"object": {"id": "sub_2"}}}},
            {"body": {"data": {"object": {}}}},
            {"body": {"data": {"object": {"id": 7}}}},
            {"body": {"data": []}},
            {"body": {}},
            {"provider": "google-play"},
            {"provider": "google-play", "object_id": "sub_1"},
            {"object_id": "sub_2"},
        ],
        ids=repr,
    )
    async def test_events_of_another_object_or_of_none_are_not_newer(
        self, payments_db: Any, dispatcher: Any, seen: Any, other: dict[str, Any]
    ) -> None:
        await payments_db.run_job(dispatcher, self.event("newer", 9), id="newer")
        await payments_db.run_job(dispatcher, self.event("older", 1, **other), id="older")
        assert seen == [("newer", False), ("older", False)]

    async def test_another_provider_s_object_is_named_by_the_payload(
        self, payments_db: Any, dispatcher: Any, seen: Any
    ) -> None:
        named = {"provider": "google-play", "object_id": "sub ä" * 40}
        await payments_db.run_job(dispatcher, self.event("newer", 9, **named), id="newer")
        await payments_db.run_job(dispatcher, self.event("older", 1, **named), id="older")
        assert seen == [("newer", False), ("older", True)]

    async def test_an_event_whose_subscriber_raised_was_not_handled(
        self, payments_db: Any, dispatcher: Any, seen: Any
    ) -> None:
        def refuse(newer_seen: bool) -> None:
            raise LookupError(f"{newer_seen=}")

        with pytest.raises(HookRaised, match="newer_seen=False"):
            await payments_db.run_job(payments_db.dispatcher(refuse), self.event("newer", 9))
        await payments_db.run_job(dispatcher, self.event("older", 1))
        assert seen == [("older", False)]

    async def test_events_of_one_object_are_handled_one_after_the_other(
        self, payments_db: Any
    ) -> None:
        running = most = 0

        async def see() -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            for _ in range(20):
                await asyncio.sleep(0)
            running -= 1

        dispatcher = payments_db.dispatcher(see)
        events = [self.event(f"e{second}", second) for second in range(8)]
        await asyncio.gather(
            *(payments_db.run_job(dispatcher, event, id=event.event_id) for event in events)
        )
        assert most == 1

    async def test_an_event_that_all_subscribers_skip_is_stale(self, payments_db: Any) -> None:
        def skip(newer_seen: bool) -> str | None:
            return "stale" if newer_seen else None

        async def skip_later(newer_seen: bool) -> str | None:
            return skip(newer_seen)

        both = payments_db.dispatcher(skip, skip_later)
        assert await payments_db.run_job(both, self.event("b", 2)) == "handled"
        assert await payments_db.run_job(both, self.event("a", 1)) == "stale"
        assert await payments_db.run_job(both, self.event("a", 1)) == "replayed"
        one = payments_db.dispatcher(skip, payments_db.pay)
        assert await payments_db.run_job(one, self.event("0", 0)) == "handled"

    @pytest.mark.parametrize("answer", [{"paid": True}, ["stale"], 3, "handled"], ids=repr)
    async def test_any_other_answer_is_ignored(self, payments_db: Any, answer: object) -> None:
        """The transaction is committed by then: the job must not fail."""
        answering = payments_db.dispatcher(lambda: answer)
        assert await payments_db.run_job(answering, self.event("a", 1)) == "handled"
