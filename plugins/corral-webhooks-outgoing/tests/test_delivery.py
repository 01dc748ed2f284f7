"""The processor with a real receiver and a real database: what is delivered, once, and what becomes
of every answer.
"""

from __future__ import annotations

import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
import redis
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from standardwebhooks import Webhook

from corral import Fail, HookRaised, JobScheduler, Payload, Queue, Retry, sql
from corral.errors import ConfigurationError, DatabaseUnavailable
from corral.outcome import Completed, Retried
from corral.sql import outbox
from corral_webhooks_outgoing import webhooks_outgoing
from corral_webhooks_outgoing.endpoints import (
    Endpoint,
    add_endpoint,
    disable_endpoint,
    find_endpoint,
    rotate_secret,
)
from corral_webhooks_outgoing.processor import (
    Deliveries,
    NotDelivered,
    SentWebhook,
    deliver,
    open_deliveries,
)
from corral_webhooks_outgoing.settings import PREFIX

from .conftest import SECRET, added, answering
from .conftest import delivery as job

SENT, BEFORE = (
    SentWebhook(webhook_id="evt_1", status=204),
    SentWebhook(webhook_id="evt_1", status=None),
)

pytestmark = pytest.mark.asyncio


class Notice(Payload):
    text: str


notices = Queue("notices", Notice)


async def is_enabled(deliveries: Deliveries) -> bool:
    async with deliveries.engine.connect() as connection:
        endpoint = await find_endpoint(connection, "ep_1")
    assert endpoint is not None
    return endpoint.enabled


async def test_a_delivery_is_verified_by_the_receivers_library(opening, receiver) -> None:
    assert await deliver(job(), await opening()) == SENT
    (request,) = receiver.requests
    assert request.line == "POST /t0ken HTTP/1.1"
    assert request.headers["webhook-id"] == "evt_1"
    assert Webhook(SECRET).verify(request.body, request.headers) == {
        "type": "user.created",
        "timestamp": "2030-01-01T00:00:00.000Z",
        "data": {"id": 7},
    }


async def test_while_a_secret_is_changed_receivers_of_both_verify_it(opening, receiver) -> None:
    deliveries = await opening()
    async with deliveries.engine.begin() as connection:
        endpoint = await rotate_secret(connection, "ep_1")
    await deliver(job(), deliveries)
    for secret in endpoint.secrets:
        Webhook(secret).verify(receiver.requests[0].body, receiver.requests[0].headers)


async def test_two_endpoints_hear_of_one_event_under_one_id(opening, receiver) -> None:
    deliveries = await opening()
    await added(deliveries, receiver.port, "ep_2")
    for endpoint_id in ("ep_1", "ep_2"):
        assert await deliver(job(f"evt_1.{endpoint_id}", endpoint=endpoint_id), deliveries) == SENT
    assert [request.headers["webhook-id"] for request in receiver.requests] == ["evt_1", "evt_1"]


async def test_a_second_run_after_the_row_sends_nothing(opening, receiver) -> None:
    """Also the run after a crash between the row and the job's completion: it finds what this one
    finds.
    """
    deliveries = await opening()
    assert [await deliver(job(attempt=attempt), deliveries) for attempt in (1, 2)] == [SENT, BEFORE]
    assert len(receiver.requests) == 1
    assert await deliver(job("another"), deliveries) == SENT


async def test_a_crash_between_the_answer_and_the_row_is_the_window_and_receivers_recognise_the_event(
    opening, receiver, monkeypatch
) -> None:
    deliveries = await opening()

    class Killed(BaseException):
        pass

    async def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(sql.Ledger, "claim", killed)
        with pytest.raises(Killed):
            await deliver(job(), deliveries)
    for attempt in (2, 3):
        await deliver(job(attempt=attempt), deliveries)
    first, second = receiver.requests
    assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)


@pytest.mark.parametrize(
    "error",
    [OSError("gone"), ProgrammingError("INSERT", {}, Exception("permission denied"))],
    ids=["away", "refused"],
)
async def test_an_acceptance_that_cannot_be_recorded_is_logged_and_the_job_completes(
    opening, monkeypatch, caplog, error
) -> None:
    deliveries = await opening()
    caplog.clear()

    async def claim(*_: object) -> bool:
        raise error

    monkeypatch.setattr(sql.Ledger, "claim", claim)
    assert await deliver(job(), deliveries) == SENT
    (warning,) = caplog.messages
    assert warning.startswith("a webhook was delivered, but this could not be recorded: ")


@pytest.mark.parametrize("status", [301, 400, 401, 404, 409, 429, 500, 502, 503])
async def test_whatever_is_no_acceptance_is_tried_again_with_a_clear_reason(
    opening, receiver, status
) -> None:
    deliveries = await opening()
    receiver.replies.append(answering(status, b"<h1>not\r\nnow</h1>\x1b[2J"))
    with pytest.raises(NotDelivered) as refused:
        await deliver(job(), deliveries)
    assert str(refused.value).startswith(f"webhook endpoint 'ep_1' answered {status}")
    assert str(refused.value).endswith(": <h1>not now</h1>\ufffd[2J")
    assert await deliver(job(attempt=2), deliveries) == SENT
    assert len(receiver.requests) == 2
    assert await is_enabled(deliveries)


async def test_a_receiver_that_is_away_is_tried_again(opening, receiver, serving) -> None:
    deliveries = await opening()
    async with serving() as closed:
        pass
    async with deliveries.engine.begin() as connection:
        await add_endpoint(
            connection, f"http://127.0.0.1:{closed.port}/t0ken", endpoint_id="away", secret=SECRET
        )
    with pytest.raises(
        NotDelivered, match=r"webhook endpoint 'away' \(127\.0\.0\.1\) did not answer: ConnectError"
    ):
        await deliver(job(endpoint="away"), deliveries)


@pytest.mark.parametrize("status", [429, 503])
async def test_a_receiver_that_is_busy_says_when(opening, receiver, status) -> None:
    deliveries = await opening()
    receiver.replies.append(answering(status, b"busy", retry_after="7"))
    with pytest.raises(Retry, match=f"answered {status}: busy") as retry:
        await deliver(job(), deliveries)
    assert (retry.value.at_least, retry.value.after) == (timedelta(seconds=7), None)


@pytest.mark.parametrize(
    "asked", ["1", "0", "-7", "soon", "Wed, 01 Jan 2020 11:59:59 GMT"], ids=str
)
async def test_a_receiver_that_asks_for_less_than_the_backoff_does_not_spend_the_attempts(
    opening, receiver, corral_kit, asked
) -> None:
    """A receiver that is down for hours and answers `Retry-After: 1` used to spend all attempts in
    seconds.
    """
    await opening()
    receiver.replies += [answering(503, retry_after=asked) for _ in range(4)]
    await corral_kit.enqueue(webhooks_outgoing, job().payload)
    drained = await corral_kit.drain(
        webhooks_outgoing.processed_by(deliver, using=open_deliveries), for_=timedelta(minutes=20)
    )
    *failed, last = drained.outcomes(webhooks_outgoing)
    for outcome, minutes in zip(failed, (1, 2, 4, 8), strict=True):
        assert isinstance(outcome, Retried)
        assert 0.75 * 60_000 * minutes <= outcome.delay_ms <= 60_000 * minutes
    assert isinstance(last, Completed)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("as_date", [False, True], ids=["seconds", "date"])
async def test_the_store_has_the_job_due_when_the_receiver_said(
    opening, receiver, corral_kit, status, as_date
) -> None:
    await opening()
    due = datetime.now(UTC).replace(microsecond=0) + timedelta(
        seconds=98
    )  # a date has whole seconds
    receiver.replies.append(
        answering(status, retry_after=format_datetime(due, usegmt=True) if as_date else "97")
    )
    enqueued = await corral_kit.enqueue(webhooks_outgoing, job().payload)
    before = datetime.now(UTC)
    await corral_kit.drain(webhooks_outgoing.processed_by(deliver, using=open_deliveries))
    after = datetime.now(UTC)
    (found,) = corral_kit.jobs(webhooks_outgoing)
    assert (found.state, found.attempts_made) == ("delayed", 1)
    with redis.Redis.from_url(corral_kit.url, decode_responses=True) as store:
        score = store.zscore("bull:webhooks-outgoing:delayed", enqueued.id)
        stored = store.hgetall(f"bull:webhooks-outgoing:{enqueued.id}")
    assert f"answered {status}" in stored["stacktrace"]
    if as_date:
        assert due - after <= timedelta(milliseconds=int(stored["delay"]) + 1)
        assert timedelta(milliseconds=int(stored["delay"])) <= due - before
    else:
        assert int(stored["delay"]) == 97_000
    due_at = datetime.fromtimestamp(int(score) // 4096 / 1000, UTC)
    wait = timedelta(milliseconds=int(stored["delay"]))
    assert before + wait - timedelta(milliseconds=1) <= due_at <= after + wait
    await corral_kit.drain(
        webhooks_outgoing.processed_by(deliver, using=open_deliveries), for_=timedelta(seconds=99)
    )
    assert corral_kit.jobs(webhooks_outgoing)[0].state == "completed"


async def test_a_receiver_that_answers_410_is_disabled(opening, receiver, caplog) -> None:
    deliveries = await opening()
    caplog.clear()
    receiver.replies.append(answering(410, b"moved away"))
    with pytest.raises(Fail) as failed:
        await deliver(job(), deliveries)
    assert (
        str(failed.value)
        == "webhook endpoint 'ep_1' answered 410: moved away (it wants no more events)"
    )
    assert caplog.messages == ["webhook endpoint 'ep_1' wants no more events"]
    assert not await is_enabled(deliveries)
    for attempt in (2, 3):
        with pytest.raises(Fail, match="webhook endpoint 'ep_1' is disabled"):
            await deliver(job(attempt=attempt), deliveries)
    assert len(receiver.requests) == 1


async def test_one_that_is_disabled_or_unknown_fails_for_good(opening, receiver) -> None:
    deliveries = await opening()
    with pytest.raises(Fail, match="no webhook endpoint has the id 'nobody'"):
        await deliver(job(endpoint="nobody"), deliveries)
    async with deliveries.engine.begin() as connection:
        await disable_endpoint(connection, "ep_1")
    with pytest.raises(Fail, match="webhook endpoint 'ep_1' is disabled"):
        await deliver(job(), deliveries)
    assert receiver.requests == []


async def test_an_address_that_is_not_public_fails_for_good_though_it_was_stored_in_development(
    opening, receiver, monkeypatch, deliveries_with
) -> None:
    await opening()
    monkeypatch.delenv(f"{PREFIX}ALLOW_PRIVATE")
    with pytest.raises(
        Fail,
        match="webhook endpoint 'ep_1' cannot be used: a webhook's URL does not begin with https",
    ):
        await deliver(job(), await deliveries_with())
    assert receiver.connections == 0


async def test_the_application_s_own_endpoints_come_first_and_ours_after_them(
    opening, receiver
) -> None:
    url = f"http://127.0.0.1:{receiver.port}/of-the-application"

    async def own(endpoint_id: str, connection: Any) -> Endpoint | None:
        await connection.execute(text("SELECT 1"))
        return Endpoint("own", url, (SECRET,)) if endpoint_id == "own" else None

    deliveries = await opening(webhooks_outgoing_endpoint=own)
    for endpoint_id in ("own", "ep_1"):
        await deliver(job(endpoint_id, endpoint=endpoint_id), deliveries)
    assert [request.line.split()[1] for request in receiver.requests] == [
        "/of-the-application",
        "/t0ken",
    ]


async def test_an_application_that_cannot_say_has_the_job_tried_again(opening, receiver) -> None:
    def own() -> Endpoint:
        raise LookupError("the vault is sealed")

    with pytest.raises(HookRaised, match="LookupError: the vault is sealed"):
        await deliver(job(), await opening(webhooks_outgoing_endpoint=own))
    assert receiver.requests == []


async def test_a_hook_that_returns_something_else_fails_the_job_and_is_named(
    opening, receiver
) -> None:
    with pytest.raises(TypeError, match="webhooks_outgoing_endpoint returned str, not an Endpoint"):
        await deliver(
            job(), await opening(webhooks_outgoing_endpoint=lambda: "https://example.org/")
        )
    assert receiver.requests == []


async def test_a_410_is_announced_to_all_and_the_table_is_changed_all_the_same(
    opening, receiver
) -> None:
    async def gone(endpoint: Endpoint, jobs: JobScheduler) -> str:
        await jobs.enqueue(notices, Notice(text=endpoint.id))
        return "enough"  # it is no answer that would keep others from being called

    deliveries = await opening(webhooks_outgoing_endpoint_gone=gone)
    receiver.replies.append(answering(410))
    with pytest.raises(Fail, match="wants no more events"):
        await deliver(job(), deliveries)
    assert [notice.text for notice in deliveries.deps.jobs.payloads(notices)] == ["ep_1"]
    async with deliveries.engine.connect() as connection:
        assert list(await connection.scalars(select(outbox.c.queue))) == ["notices"]
    assert not await is_enabled(deliveries)


async def test_if_somebody_cannot_act_on_a_410_nothing_is_changed_and_the_next_attempt_asks_again(
    opening, receiver
) -> None:
    raising = True

    async def gone() -> None:
        if raising:
            raise LookupError("no owner")

    deliveries = await opening(webhooks_outgoing_endpoint_gone=gone)
    receiver.replies += [answering(410), answering(410)]
    with pytest.raises(HookRaised, match="LookupError: no owner"):
        await deliver(job(), deliveries)
    assert await is_enabled(deliveries)
    raising = False
    with pytest.raises(Fail, match="wants no more events"):
        await deliver(job(attempt=2), deliveries)
    assert not await is_enabled(deliveries)


async def test_somebody_who_swallows_the_database_s_refusal_cannot_make_an_endpoint_look_disabled(
    opening, receiver
) -> None:
    async def gone(connection: Any) -> None:
        with pytest.raises(DBAPIError):
            await connection.execute(text("SELECT nothing FROM nowhere"))

    deliveries = await opening(webhooks_outgoing_endpoint_gone=gone)
    receiver.replies.append(answering(410))
    with pytest.raises(Exception) as ended:  # noqa: PT011  # PostgreSQL's own, or Fail where SQLite went on
        await deliver(job(), deliveries)
    assert isinstance(ended.value, Fail) is (not await is_enabled(deliveries))


async def test_while_the_database_is_away_a_worker_starts_and_sends_nothing(
    deliveries_with, receiver, monkeypatch
) -> None:
    monkeypatch.setenv("CORRAL_DATABASE_URL", "postgresql+asyncpg://app@/app?host=/nowhere")
    deliveries = await deliveries_with(allow_private=1)
    with pytest.raises(DatabaseUnavailable):
        await deliver(job(), deliveries)
    assert receiver.requests == []


@pytest.mark.parametrize(
    "table", ["webhook_endpoints", "webhook_failing_endpoints", "corral_ledger"]
)
async def test_a_database_without_the_tables_refuses_the_start(
    opening, deliveries_with, table
) -> None:
    deliveries = await opening()
    async with deliveries.engine.begin() as connection:
        await connection.execute(text(f"DROP TABLE {table}"))
    with pytest.raises(ConfigurationError, match=f"lacks the table {table}") as refused:
        await deliveries_with()
    assert refused.value.hint == "corral db create"


async def test_a_worker_that_may_reach_private_addresses_says_so(deliveries_with, caplog) -> None:
    await deliveries_with()
    assert caplog.messages == []
    await deliveries_with(allow_private=1)
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [
        (
            "WARNING",
            "webhooks may reach addresses that are not public: CORRAL_WEBHOOKS_OUTGOING_ALLOW_PRIVATE is set",
        )
    ]


async def test_neither_secrets_nor_what_is_in_the_address_appear_anywhere(
    opening, receiver, corral_kit, caplog
) -> None:
    deliveries = await opening()
    caplog.set_level("INFO")
    replies: list[Any] = [
        *(answering(204), answering(500, b"no"), answering(302, location="/"), answering(410)),
        *(answering(429, retry_after="7"), b"nonsense\r\n\r\n"),
    ]
    texts: list[str] = []
    for number, reply in enumerate(replies):
        receiver.replies.append(reply)
        try:
            texts.append(repr(await deliver(job(f"job-{number}"), deliveries)))
        except Exception:  # noqa: BLE001  # each of them is looked through
            texts.append(traceback.format_exc())
    receiver.replies.append(answering(500))
    await corral_kit.enqueue(webhooks_outgoing, job().payload)
    await corral_kit.drain(webhooks_outgoing.processed_by(deliver, using=open_deliveries))
    with redis.Redis.from_url(corral_kit.url, decode_responses=True) as store:
        for key in store.scan_iter("*"):
            kind = store.type(key)
            texts.append(
                str(
                    store.hgetall(key)
                    if kind == "hash"
                    else store.xrange(key)
                    if kind == "stream"
                    else key
                )
            )
    everything = "\n".join([*texts, caplog.text])
    assert "answered 500: no" in everything
    assert "ep_1" in everything
    found = [
        canary
        for canary in (SECRET, SECRET.removeprefix("whsec_"), "t0ken")
        if canary in everything
    ]
    assert found == []
