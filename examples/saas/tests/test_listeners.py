"""What follows from what happens: with a scheduler that records calls, and no store anywhere."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from corral.outcome import Completed
from corral.testing import Kit, RecordingJobScheduler
from corral_account_deletions import account_deletions
from corral_billing_webhooks_retry import BillingEvent, billing_webhooks_retry
from corral_billing_webhooks_retry.processor import dispatch_event, open_dispatcher
from corral_data_exports import data_exports
from corral_emails import emails
from corral_usage_period_rollover import usage_period_rollover
from corral_webhooks_outgoing import webhooks_outgoing
from corral_webhooks_outgoing.endpoints import add_endpoint, disable_endpoint
from examples.saas import accounts, listeners
from examples.saas.accounts import Refused, User
from examples.saas.events import Event
from examples.saas.tables import invites, users
from examples.saas.work import Work

pytestmark = pytest.mark.asyncio

BILLING = billing_webhooks_retry.processed_by(dispatch_event, using=open_dispatcher)

ADA = User("usr_ada", "ada@example.org", "Ada", "free")


@pytest.fixture
def jobs() -> RecordingJobScheduler:
    return RecordingJobScheduler()


async def test_whoever_signs_up_is_welcomed(
    engine: AsyncEngine, jobs: RecordingJobScheduler
) -> None:
    async with engine.begin() as connection:
        made = await accounts.sign_up(Work(connection, jobs), email="ada@example.org", name="Ada")
        assert await accounts.authenticate(connection, made.token) == User(
            made.user_id, "ada@example.org", "Ada", "free"
        )
        assert await accounts.authenticate(connection, "guessed") is None
    jobs.assert_enqueued(emails, {"to": "ada@example.org", "template": "welcome"})
    assert len(jobs.jobs) == 1


async def test_every_enabled_endpoint_hears_of_a_user_and_not_of_the_address(engine, jobs) -> None:
    async with engine.begin() as connection:
        for number in (1, 2, 3):
            await add_endpoint(
                connection, f"https://partner.example/{number}", endpoint_id=f"ep_{number}"
            )
        await disable_endpoint(connection, "ep_2")
        made = await accounts.sign_up(Work(connection, jobs), email="ada@example.org", name="Ada")
    deliveries = jobs.payloads(webhooks_outgoing)
    assert [each.endpoint_id for each in deliveries] == ["ep_1", "ep_3"]
    assert {each.event_id for each in deliveries} == {f"registered-{made.user_id}"}
    assert not any(b"ada@" in job.raw for job in jobs.jobs if job.queue == webhooks_outgoing.name)


async def test_an_export_is_one_job_of_its_own_id(engine, jobs) -> None:
    async with engine.begin() as connection:
        export_id = await accounts.order_export(Work(connection, jobs), ADA, "csv")
    job = jobs.assert_enqueued(
        data_exports, {"user_id": "usr_ada", "export_id": export_id, "format": "csv"}
    )
    assert job.id == export_id


async def test_a_deletion_waits_for_its_grace_period_and_can_be_taken_back(engine, jobs) -> None:
    async with engine.begin() as connection:
        await accounts.delete_account(Work(connection, jobs), ADA)
        assert await accounts.restore_account(Work(connection, jobs), ADA)
        assert not await accounts.restore_account(Work(connection, jobs), ADA)
    job = jobs.assert_enqueued(account_deletions, {"user_id": "usr_ada"})
    assert job.options.delay == timedelta(days=30)


async def test_a_billing_event_is_one_job_however_often_it_comes(engine, jobs) -> None:
    event = BillingEvent(
        provider="stripe",
        event_id="evt_1",
        type="invoice.paid",
        occurred_at=datetime.now(UTC),
        body={},
    )
    async with engine.begin() as connection:
        for _ in range(3):
            await accounts.receive_billing_event(Work(connection, jobs), event)
    assert [job.id for job in jobs.jobs] == ["stripe-evt_1"]
    jobs.assert_enqueued(billing_webhooks_retry, {"event_id": "evt_1"})


async def test_a_rollover_out_of_turn(engine, jobs) -> None:
    async with engine.begin() as connection:
        await accounts.order_rollover(Work(connection, jobs))
    jobs.assert_enqueued(usage_period_rollover)


async def test_an_invite_is_redeemed_once(engine, jobs) -> None:
    async with engine.begin() as connection:
        await connection.execute(insert(invites).values(code="welcome-2027"))
        await accounts.sign_up(
            Work(connection, jobs), email="ada@example.org", name="Ada", invite="welcome-2027"
        )
    with pytest.raises(Refused, match="this invite is unknown or was redeemed"):
        async with engine.begin() as connection:
            await accounts.sign_up(
                Work(connection, jobs), email="bob@example.org", name="Bob", invite="welcome-2027"
            )
    async with engine.connect() as connection:
        assert list(await connection.scalars(select(users.c.email))) == ["ada@example.org"]


async def test_every_event_has_a_listener() -> None:
    assert set(listeners.LISTENERS) == set(Event.__args__)
    assert all(listeners.LISTENERS.values())


async def test_nobody_else_enqueues() -> None:
    """`enqueue_event` and `request_deletion` of the plugins are handed the scheduler by listeners,
    too.
    """
    folder = Path(listeners.__file__).parent
    calls = re.compile(r"\b(enqueue\w*|schedule|request_deletion)\(")
    found = {path.name for path in folder.glob("*.py") if calls.search(path.read_text("utf-8"))}
    assert found == {"listeners.py"}


async def test_a_plan_follows_the_newest_event_of_its_subscription(
    engine: AsyncEngine, corral_kit: Kit
) -> None:
    """Its end is handled first, and the event of its beginning is late."""
    async with engine.begin() as connection:
        jobs = RecordingJobScheduler()
        made = await accounts.sign_up(Work(connection, jobs), email="ada@example.org", name="Ada")
    events = []
    for second, status in ((1, "active"), (2, "canceled"), (3, "active")):
        subscription = {"id": "sub_1", "status": status, "client_reference_id": made.user_id}
        events.append(
            BillingEvent(
                provider="stripe",
                event_id=f"evt_{second}",
                type="customer.subscription.updated",
                occurred_at=datetime(2027, 1, 1, 10, 0, second, tzinfo=UTC),
                body={"data": {"object": subscription}},
            )
        )
    first, second, third = events
    plans = []
    for event in (second, first, third):
        await corral_kit.enqueue(billing_webhooks_retry, event)
        (run,) = await corral_kit.drain(BILLING)
        async with engine.connect() as connection:
            plan = await connection.scalar(select(users.c.plan))
        plans.append((run.outcome, plan))
    handled, stale = (Completed(b'{"status":"%s"}' % each) for each in (b"handled", b"stale"))
    assert plans == [(handled, "free"), (stale, "free"), (handled, "paid")]
