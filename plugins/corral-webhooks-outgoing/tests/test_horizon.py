"""How long an endpoint may be away, and what its neighbours feel of that: the real processor against
receivers that are dead, hang and come back, in moved time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from corral import Fail, HookRaised, Snooze, hookimpl
from corral.outcome import Completed, Failed, Retried, Snoozed
from corral_webhooks_outgoing import HORIZON, WebhookDelivery, webhooks_outgoing
from corral_webhooks_outgoing.endpoints import Endpoint, disable_endpoint
from corral_webhooks_outgoing.processor import Deliveries, NotDelivered, deliver, open_deliveries

from .conftest import NO_CONTENT, added, answering, delivery

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
LONGEST_WAIT = webhooks_outgoing.options.backoff.max
PROCESSOR = webhooks_outgoing.processed_by(deliver, using=open_deliveries)

pytestmark = pytest.mark.asyncio


def event(number: int, endpoint: str) -> WebhookDelivery:
    return WebhookDelivery(
        endpoint_id=endpoint, event_id=f"evt_{number}", event_type="user.created", data={}
    )


async def enqueue(kit: Any, count: int, endpoint: str = "ep_1") -> None:
    async with kit.connect() as jobs:
        await jobs.enqueue_many(webhooks_outgoing, [event(n, endpoint) for n in range(count)])


def states(kit: Any) -> Counter[str]:
    return Counter(job.state for job in kit.jobs(webhooks_outgoing))


class Hanging:
    """A receiver's reply that comes when the test says so."""

    def __init__(self) -> None:
        self.released = asyncio.Event()

    async def __call__(self, writer: asyncio.StreamWriter) -> None:
        await self.released.wait()
        writer.write(NO_CONTENT)


@pytest.mark.parametrize("away", [1 * HOUR, HORIZON - LONGEST_WAIT - MINUTE], ids=str)
async def test_an_endpoint_that_is_back_within_three_days_has_lost_nothing(
    deliveries_with, serving, corral_kit, away
) -> None:
    """Nobody listens at its port, and then it does."""
    async with serving() as dead:
        pass
    await added(await deliveries_with(allow_private=1), dead.port)
    await enqueue(corral_kit, 3)
    while_away = await corral_kit.drain(PROCESSOR, for_=away)
    assert states(corral_kit) == {"delayed": 3}
    assert any(isinstance(run.outcome, Retried) for run in while_away)
    async with serving(port=dead.port) as receiver:
        await corral_kit.drain(PROCESSOR, for_=LONGEST_WAIT + 5 * MINUTE)
        assert states(corral_kit) == {"completed": 3}
        ids = sorted(request.headers["webhook-id"] for request in receiver.requests)
        assert ids == ["evt_0", "evt_1", "evt_2"]


async def test_after_three_days_it_is_given_up_with_the_reason_and_its_owner_has_heard_of_it(
    deliveries_with, serving, corral_kit
) -> None:
    heard: list[tuple[datetime, datetime]] = []

    @hookimpl
    def webhooks_outgoing_endpoint_failing(endpoint: Endpoint, since: datetime) -> None:
        heard.append((kit.now, since))

    kit = corral_kit(hooks=[webhooks_outgoing_endpoint_failing])
    async with serving() as dead:
        pass
    await added(await deliveries_with(allow_private=1), dead.port)
    start = kit.now
    await enqueue(kit, 3)
    drained = await kit.drain(PROCESSOR, for_=HORIZON + 3 * HOUR)
    ended = [run for run in drained if isinstance(run.outcome, Failed)]
    assert len(ended) == 3
    for run in ended:
        assert HORIZON <= run.job.processed_on - run.job.enqueued_at <= HORIZON + LONGEST_WAIT
        assert run.job.attempt <= webhooks_outgoing.options.attempts
        assert run.outcome.reason.startswith(
            "Fail: not delivered in 3 days: webhook endpoint 'ep_1' (127.0.0.1) did not answer:"
        )
        assert f"has accepted nothing since {start:%Y-%m-%d}" in run.outcome.reason
    ((when, since),) = heard
    assert timedelta(days=2) <= when - start <= timedelta(days=2) + LONGEST_WAIT
    assert abs(since - start) < MINUTE


async def test_a_receiver_that_says_try_in_a_second_has_three_days_as_well(
    opening, receiver, corral_kit
) -> None:
    await opening()
    receiver.replies += [answering(503, retry_after="1") for _ in range(1000)]
    await enqueue(corral_kit, 1)
    await corral_kit.drain(PROCESSOR, for_=HORIZON - HOUR)
    assert states(corral_kit) == {"delayed": 1}
    assert 40 < len(receiver.requests) < webhooks_outgoing.options.attempts
    receiver.replies.clear()
    await corral_kit.drain(PROCESSOR, for_=LONGEST_WAIT + 5 * MINUTE)
    assert states(corral_kit) == {"completed": 1}


async def test_while_it_is_down_waiting_jobs_spend_no_attempt_and_are_sent_soon_after_it_is_back(
    opening, receiver, corral_kit, caplog
) -> None:
    await opening(breaker_failures=3)
    receiver.replies += [answering(503) for _ in range(1000)]
    await enqueue(corral_kit, 40)
    drained = await corral_kit.drain(PROCESSOR, for_=30 * MINUTE)
    (down,) = [message for message in caplog.messages if "is down" in message]
    assert down == (
        "webhook endpoint 'ep_1' is down: 3 deliveries in a row have failed, its jobs wait"
        " and one at a time is sent to test it"
    )
    # after the first three: tests after 10, 20, 40, 80, 160 s, and every five minutes
    assert 3 + 5 + 4 <= len(receiver.requests) <= 3 + 5 + 6
    outcomes = Counter(type(run.outcome) for run in drained)
    assert outcomes.keys() == {Retried, Snoozed}
    assert outcomes[Retried] == len(receiver.requests)
    assert sum(job.attempts_made for job in corral_kit.jobs(webhooks_outgoing)) == len(
        receiver.requests
    )
    receiver.replies.clear()
    await corral_kit.drain(PROCESSOR, for_=10 * MINUTE)
    assert states(corral_kit)["completed"] >= 36, "those that failed lately have a longer backoff"
    await corral_kit.drain(PROCESSOR, for_=20 * MINUTE)
    assert states(corral_kit) == {"completed": 40}


async def test_waiting_jobs_fail_within_minutes_where_their_endpoint_is_disabled(
    opening, receiver, corral_kit
) -> None:
    deliveries = await opening(breaker_failures=1)
    receiver.replies += [answering(503) for _ in range(1000)]
    await enqueue(corral_kit, 20)

    async def disable() -> None:
        async with deliveries.engine.begin() as connection:
            await disable_endpoint(connection, "ep_1")

    async def slow(job: Any, opened: Deliveries) -> Any:
        if len(receiver.requests) == 4:
            await disable()
        return await deliver(job, opened)

    drained = await corral_kit.drain(
        webhooks_outgoing.processed_by(slow, using=open_deliveries), for_=20 * MINUTE
    )
    assert len(receiver.requests) == 4
    failed = [run.outcome.reason for run in drained if isinstance(run.outcome, Failed)]
    assert failed == ["Fail: webhook endpoint 'ep_1' is disabled"] * 20


async def test_refusals_of_single_events_do_not_hold_the_others(
    opening, receiver, corral_kit
) -> None:
    await opening(breaker_failures=2)
    receiver.replies += [answering(status) for status in (400, 404, 409, 413, 422, 400, 400)]
    await enqueue(corral_kit, 12)
    drained = await corral_kit.drain(PROCESSOR, for_=20 * timedelta(seconds=1))
    outcomes = Counter(type(run.outcome) for run in drained)
    assert (outcomes[Retried], outcomes[Completed]) == (7, 12)


@pytest.mark.parametrize(("hanging", "each"), [(1, 60), (1, 1000), (2, 300)])
async def test_a_healthy_endpoint_is_served_while_others_hang(
    opening, serving, receiver, corral_kit, hanging, each
) -> None:
    """Nothing of theirs has ended yet: it does when the healthy one has its event."""
    deliveries = await opening()
    reply = Hanging()
    receiver.replies += [reply] * 10_000
    async with serving() as healthy:
        await added(deliveries, healthy.port, "healthy")

        async def released(writer: asyncio.StreamWriter) -> None:
            writer.write(NO_CONTENT)
            reply.released.set()

        healthy.replies.append(released)
        for number in range(hanging):
            if number:
                await added(deliveries, receiver.port, f"ep_{number + 1}")
            await enqueue(corral_kit, each, f"ep_{number + 1}")
        await corral_kit.enqueue(webhooks_outgoing, event(1, "healthy"))
        drained = await corral_kit.drain(PROCESSOR)
        outcomes = {run.job.payload.endpoint_id: run.outcome for run in drained}
        assert isinstance(outcomes["healthy"], Completed)
        assert len(healthy.requests) == 1
    assert not any(isinstance(run.outcome, Retried | Failed) for run in drained)
    waiting = [run.outcome for run in drained if isinstance(run.outcome, Snoozed)]
    assert len(waiting) >= hanging * (each - 10)
    assert min(outcome.delay_ms for outcome in waiting) >= 1000


async def test_two_at_once_reach_an_endpoint_or_as_many_as_the_setting_says(
    opening, receiver, corral_kit
) -> None:
    await opening(endpoint_concurrency=3)
    most = 0
    reply = Hanging()

    async def counted(writer: asyncio.StreamWriter) -> None:
        nonlocal most
        under_way.add(writer)
        most = max(most, len(under_way))
        if most == 3:
            reply.released.set()
        await reply(writer)
        under_way.discard(writer)

    under_way: set[asyncio.StreamWriter] = set()
    receiver.replies += [counted] * 30
    await enqueue(corral_kit, 30)
    drained = await corral_kit.drain(PROCESSOR, for_=MINUTE)
    assert most == 3
    assert states(corral_kit) == {"completed": 30}
    snoozed = [run.outcome for run in drained if isinstance(run.outcome, Snoozed)]
    assert snoozed
    assert all("has 3 under way" in outcome.reason for outcome in snoozed)


def overdue(number: int = 1) -> Any:
    """A job that was due three days before it is started."""
    start = datetime(2030, 1, 1, tzinfo=UTC)
    return delivery(f"job-{number}", enqueued_at=start, processed_on=start + HORIZON)


async def test_a_delivery_that_waited_too_long_for_us_is_sent_all_the_same(
    opening, receiver
) -> None:
    """Our own workers were away: its endpoint is not known to fail."""
    assert (await deliver(overdue(), await opening())).status == 204


@pytest.mark.parametrize(
    ("status", "known"), [(503, " (it has accepted nothing since 2030-01-04 00:00 UTC)"), (400, "")]
)
async def test_one_that_is_overdue_is_sent_once_more_and_its_reason_says_what_was_answered(
    opening, receiver, status, known
) -> None:
    deliveries = await opening()
    receiver.replies.append(answering(status, b"busy", retry_after="7"))
    with pytest.raises(Fail) as failed:
        await deliver(overdue(), deliveries)
    assert (
        str(failed.value)
        == f"not delivered in 3 days: webhook endpoint 'ep_1' answered {status}: busy{known}"
    )


async def test_one_that_is_overdue_does_not_wait_for_an_endpoint_that_is_down(
    opening, receiver
) -> None:
    deliveries = await opening(breaker_failures=1)
    receiver.replies.append(answering(500))
    with pytest.raises(Fail):
        await deliver(overdue(1), deliveries)
    with pytest.raises(Fail, match=r"^not delivered in 3 days: webhook endpoint 'ep_1' answered 5"):
        await deliver(overdue(2), deliveries)
    assert len(receiver.requests) == 1


async def test_the_days_count_from_when_a_delivery_was_due_and_are_a_setting(
    opening, receiver
) -> None:
    deliveries = await opening(horizon_days=7)
    receiver.replies += [answering(500)] * 3
    start = datetime(2030, 1, 1, tzinfo=UTC)
    moments = {"enqueued_at": start, "scheduled_for": start + 5 * HOUR}
    for after in (HORIZON, timedelta(days=7, hours=4)):
        with pytest.raises(NotDelivered):
            await deliver(delivery(processed_on=start + after, **moments), deliveries)
    with pytest.raises(Fail, match="not delivered in 7 days"):
        await deliver(
            delivery(processed_on=start + timedelta(days=7, hours=5), **moments), deliveries
        )


async def test_a_job_that_could_not_be_looked_up_leaves_the_test_to_the_next(
    opening, receiver
) -> None:
    """The database is away, or a hook raises, while the endpoint is tested."""
    raising = False

    async def own() -> None:
        if raising:
            raise LookupError("the vault is sealed")

    deliveries = await opening(breaker_failures=1, webhooks_outgoing_endpoint=own)
    receiver.replies.append(answering(500))
    start = datetime(2030, 1, 1, tzinfo=UTC)
    with pytest.raises(NotDelivered):
        await deliver(delivery(processed_on=start), deliveries)
    with pytest.raises(Snooze) as snoozed:
        await deliver(delivery(processed_on=start), deliveries)
    assert timedelta(seconds=10) <= snoozed.value.after <= timedelta(seconds=13)
    raising = True
    with pytest.raises(HookRaised):
        await deliver(delivery(processed_on=start + MINUTE), deliveries)
    raising = False
    assert (await deliver(delivery(processed_on=start + MINUTE), deliveries)).status == 204
    assert len(deliveries.breakers) == 0
