"""Since when an endpoint has accepted nothing: recorded in the database, and announced once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from corral import Fail, JobScheduler, Payload, Queue, Retry
from corral.sql import outbox
from corral_webhooks_outgoing.endpoints import Endpoint, disable_endpoint, enable_endpoint
from corral_webhooks_outgoing.processor import Deliveries, NotDelivered, SentWebhook, deliver
from corral_webhooks_outgoing.tables import webhook_failing_endpoints

from .conftest import answering, delivery

START = datetime(2030, 1, 1, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)

pytestmark = pytest.mark.asyncio


class Notice(Payload):
    text: str


notices = Queue("notices", Notice)


class Owner:
    """Whom the hook tells.

    Attributes:
        heard: Its calls, each with the endpoint's id and since when.
        raising: Whether it raises.
    """

    def __init__(self) -> None:
        self.heard: list[tuple[str, datetime]] = []
        self.raising = False

    def hook(self) -> Callable[..., Any]:
        """The implementation."""

        async def tell(
            endpoint: Endpoint, since: datetime, connection: Any, jobs: JobScheduler
        ) -> None:
            await connection.execute(text("SELECT 1"))
            await jobs.enqueue(notices, Notice(text=endpoint.id))
            if self.raising:
                raise LookupError("no owner")
            self.heard.append((endpoint.id, since))

        return tell


@pytest.fixture
def owner() -> Owner:
    return Owner()


async def attempt(deliveries: Deliveries, after: timedelta) -> SentWebhook | None:
    """One attempt of a new event, so long after the start; None where it was not accepted."""
    moment = START + after
    job = delivery(f"job-{after}", enqueued_at=moment, processed_on=moment)
    with contextlib.suppress(NotDelivered, Retry):
        return await deliver(job, deliveries)
    return None


async def failing(deliveries: Deliveries) -> list[tuple[str, datetime, bool]]:
    """The rows of the table."""
    async with deliveries.engine.connect() as connection:
        rows = await connection.execute(select(webhook_failing_endpoints))
        return [tuple(row) for row in rows]


async def announced_jobs(deliveries: Deliveries) -> list[str]:
    """The queues of the jobs in the outbox."""
    async with deliveries.engine.connect() as connection:
        return list(await connection.scalars(select(outbox.c.queue)))


async def test_an_endpoint_that_is_well_has_no_row(opening, receiver) -> None:
    deliveries = await opening()
    assert await attempt(deliveries, DAY)
    assert await failing(deliveries) == []


@pytest.mark.parametrize("status", [301, 400, 404, 429, 500, 503])
async def test_the_first_failure_writes_a_row_further_ones_do_not_and_a_success_removes_it(
    opening, receiver, status
) -> None:
    deliveries = await opening()
    receiver.replies += [answering(status, retry_after="7") for _ in range(3)]
    for hours in (1, 2, 3):
        assert await attempt(deliveries, hours * HOUR) is None
    ((endpoint_id, since, announced),) = await failing(deliveries)
    assert (endpoint_id, announced) == ("ep_1", False)
    assert HOUR <= since - START < 2 * HOUR
    assert await attempt(deliveries, 4 * HOUR)
    assert await failing(deliveries) == []


async def test_after_days_it_is_announced_once_and_after_a_success_again(
    opening, receiver, owner, caplog
) -> None:
    deliveries = await opening(
        webhooks_outgoing_endpoint_failing=owner.hook(), failing_days=2, breaker_failures=99
    )
    caplog.clear()
    receiver.replies += [answering(500) for _ in range(6)]
    for days in (0, 1, 1.99):
        await attempt(deliveries, days * DAY)
    assert owner.heard == []
    for days in (2.01, 2.1, 3):
        await attempt(deliveries, days * DAY)
    ((endpoint_id, since),) = owner.heard
    assert endpoint_id == "ep_1"
    assert timedelta() <= since - START < HOUR
    assert since.tzinfo is not None
    assert caplog.messages == [
        f"webhook endpoint 'ep_1' has accepted nothing since {since.isoformat()}"
    ]
    assert await announced_jobs(deliveries) == ["notices"]

    assert await attempt(deliveries, 4 * DAY)
    receiver.replies += [answering(500) for _ in range(3)]
    for days in (5, 6.9, 7.1):
        await attempt(deliveries, days * DAY)
    assert len(owner.heard) == 2
    assert 5 * DAY <= owner.heard[1][1] - START < 5 * DAY + HOUR


async def test_what_is_known_survives_the_process(
    opening, deliveries_with, receiver, owner
) -> None:
    """The days count on, and what was announced is not announced again."""
    hooks = {"webhooks_outgoing_endpoint_failing": owner.hook(), "failing_days": 2}
    first = await opening(**hooks)
    receiver.replies += [answering(500) for _ in range(4)]
    await attempt(first, 0 * DAY)
    second = await deliveries_with(**hooks)
    await attempt(second, 2.1 * DAY)
    assert len(owner.heard) == 1
    third = await deliveries_with(**hooks)
    await attempt(third, 2.2 * DAY)
    await attempt(first, 2.3 * DAY)
    assert len(owner.heard) == 1


async def test_a_success_of_one_process_ends_it_for_all(opening, deliveries_with, receiver) -> None:
    first, second = await opening(), await deliveries_with()
    receiver.replies.append(answering(500))
    await attempt(first, 0 * DAY)
    assert await attempt(second, DAY)
    assert await failing(first) == []


async def test_of_processes_that_find_it_at_once_one_announces_it(
    opening, deliveries_with, receiver, owner
) -> None:
    hooks = {"webhooks_outgoing_endpoint_failing": owner.hook(), "failing_days": 2}
    processes = [await opening(**hooks), *[await deliveries_with(**hooks) for _ in range(3)]]
    receiver.replies += [answering(500) for _ in range(5)]
    await attempt(processes[0], 0 * DAY)
    await asyncio.gather(*(attempt(each, 2.5 * DAY) for each in processes))
    assert len(receiver.requests) == 5
    assert len(owner.heard) == 1


async def test_a_hook_that_raises_is_logged_leaves_nothing_and_is_called_again(
    opening, receiver, owner, caplog
) -> None:
    deliveries = await opening(webhooks_outgoing_endpoint_failing=owner.hook(), failing_days=2)
    caplog.clear()
    receiver.replies += [answering(500) for _ in range(3)]
    owner.raising = True
    await attempt(deliveries, 0 * DAY)
    await attempt(deliveries, 2.1 * DAY)
    (warning,) = caplog.messages
    assert warning.startswith("a failing webhook endpoint was not announced")
    assert "LookupError: no owner" in warning
    assert await announced_jobs(deliveries) == []
    owner.raising = False
    await attempt(deliveries, 2.2 * DAY)
    assert len(owner.heard) == 1
    assert await announced_jobs(deliveries) == ["notices"]


async def test_a_hook_that_swallows_the_database_s_refusal_is_called_again_or_is_done(
    opening, receiver, caplog
) -> None:
    """PostgreSQL keeps nothing of that transaction, SQLite all: in neither case it is half-done."""

    async def tell(connection: Any, jobs: JobScheduler) -> None:
        await jobs.enqueue(notices, Notice(text="down"))
        with pytest.raises(DBAPIError):
            await connection.execute(text("SELECT nothing FROM nowhere"))

    deliveries = await opening(webhooks_outgoing_endpoint_failing=tell, failing_days=2)
    receiver.replies += [answering(500) for _ in range(2)]
    await attempt(deliveries, 0 * DAY)
    await attempt(deliveries, 2.1 * DAY)
    ((_, _, announced),) = await failing(deliveries)
    assert (await announced_jobs(deliveries) == ["notices"]) is announced
    assert ("could not be recorded" in caplog.text) is (not announced)


async def test_an_owner_may_disable_it_and_a_new_outage_counts_anew(opening, receiver) -> None:
    async def disable(endpoint: Endpoint, connection: Any) -> None:
        await disable_endpoint(connection, endpoint.id)

    deliveries = await opening(webhooks_outgoing_endpoint_failing=disable, failing_days=2)
    receiver.replies += [answering(500) for _ in range(3)]
    await attempt(deliveries, 0 * DAY)
    await attempt(deliveries, 2.1 * DAY)
    with pytest.raises(Fail, match="webhook endpoint 'ep_1' is disabled"):
        await attempt(deliveries, 2.2 * DAY)
    async with deliveries.engine.begin() as connection:
        await enable_endpoint(connection, "ep_1")
    assert await failing(deliveries) == []
    await attempt(deliveries, 9 * DAY)
    ((_, since, announced),) = await failing(deliveries)
    assert (since - START >= 9 * DAY, announced) == (True, False)


async def test_a_failure_that_cannot_be_recorded_is_logged_and_the_job_is_tried_again(
    opening, receiver, caplog
) -> None:
    deliveries = await opening()
    async with deliveries.engine.begin() as connection:
        await connection.execute(text("DROP TABLE webhook_failing_endpoints"))
    caplog.clear()
    receiver.replies.append(answering(500, b"no"))
    with pytest.raises(NotDelivered, match=r"webhook endpoint 'ep_1' answered 500: no$"):
        await deliver(delivery(), deliveries)
    (warning,) = caplog.messages
    assert warning.startswith("the failure of a webhook endpoint could not be recorded: ")
