"""The kit for plugin authors: jobs without a worker, and a scheduler that refuses what the real one
refuses.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Annotated

import pytest
from pydantic import AfterValidator, Field

from corral import (
    CatalogError,
    Cron,
    Deps,
    Enqueued,
    Every,
    Fixed,
    JobOptions,
    JobState,
    Payload,
    PayloadRefused,
    Queue,
    hookimpl,
    hookspec,
)
from corral.errors import JobRefused, UnknownQueue
from corral.jobs import EnqueueOptions, JobScheduler
from corral.testing import RecordingJobScheduler, cancel, deps, job, log_of, progress_of


class Order(Payload):
    order_id: str


class Parcel(Payload):
    grams: int


class Shape(Payload):
    name: str


class Circle(Shape):
    radius: int


class Drawing(Payload):
    shape: Shape


class User(Payload):
    user_id: str = Field(validation_alias="uid")


class Labelled(Payload):
    label: Annotated[str, AfterValidator(lambda text: text if text == "a" else f"label {text}")]


orders = Queue("orders", Order, options=JobOptions(attempts=5))
parcels = Queue("parcels", Parcel)


class TestJob:
    def test_is_the_first_attempt_of_a_job_that_was_due_when_it_was_enqueued(self) -> None:
        first = job(orders, Order(order_id="a"))
        assert (first.queue, first.name, first.payload) == (orders, "orders", Order(order_id="a"))
        assert (first.attempt, first.max_attempts, first.starts) == (1, 5, 1)
        assert (
            first.enqueued_at
            == first.scheduled_for
            == first.processed_on
            == datetime(2030, 1, 1, tzinfo=UTC)
        )
        assert first.idempotency_key == "orders.test-job"

    def test_takes_a_mapping_and_refuses_a_wrong_one(self) -> None:
        assert job(orders, {"orderId": "a"}).payload == Order(order_id="a")
        with pytest.raises(PayloadRefused, match="orderId"):
            job(orders, {})

    def test_refuses_what_no_worker_would_be_given(self) -> None:
        shapes = Queue("shapes", Drawing)
        with pytest.raises(
            PayloadRefused, match="shape: is Circle here, and Shape where a worker reads it"
        ):
            job(shapes, Drawing(shape=Circle(name="c", radius=3)))
        with pytest.raises(
            PayloadRefused,
            match="userId: is written under this name, and read from 'uid', 'user_id'",
        ):
            job(Queue("users", User), {"uid": "x"})
        with pytest.raises(JobRefused, match="has 1048590 bytes, more than 1048576"):
            job(orders, {"orderId": "x" * 1024 * 1024})
        with pytest.raises(JobRefused, match="attempts -1 is negative"):
            job(Queue("orders", Order, options=JobOptions(attempts=-1)), {"orderId": "a"})

    def test_says_what_it_is_set_to_say(self) -> None:
        tick = datetime(2031, 5, 1, 12, 5, tzinfo=UTC)
        late = job(
            orders,
            Order(order_id="a"),
            id="x",
            attempt=3,
            starts=4,
            max_attempts=0,
            scheduled_for=tick,
        )
        assert (late.id, late.attempt, late.starts, late.max_attempts) == ("x", 3, 4, 1)
        assert late.scheduled_for == late.processed_on == tick
        assert late.fence == (int(late.enqueued_at.timestamp() * 1000), 4)

    def test_keeps_what_the_processor_reports(self) -> None:
        reporting = job(orders, Order(order_id="a"))
        reporting.progress(50)
        reporting.log("half way")
        reporting.progress({"done": 0.5})
        assert progress_of(reporting) == [50, {"done": 0.5}]
        assert log_of(reporting) == ["half way"]
        assert not reporting.cancelled
        cancel(reporting)
        assert reporting.cancelled


class TestRecordingJobScheduler:
    @pytest.mark.asyncio
    async def test_refuses_every_payload_that_a_worker_would_not_read_as_it_is_given(self) -> None:
        jobs, shapes = RecordingJobScheduler(), Queue("shapes", Labelled)
        await jobs.enqueue(shapes, Labelled(label="a"))
        with pytest.raises(
            PayloadRefused, match="label: has another value where a worker reads it"
        ) as refused:
            await jobs.enqueue(shapes, Labelled(label="b"))
        assert refused.value.hint
        with pytest.raises(PayloadRefused, match="label"):
            await jobs.schedule(shapes, Labelled(label="b"), Every(timedelta(hours=1)), id="x")
        with pytest.raises(PayloadRefused, match="userId: is written under this name"):
            await jobs.enqueue_many(Queue("users", User), [User(uid="x")])
        assert jobs.payloads(shapes) == [Labelled(label="a")]

    @pytest.mark.asyncio
    async def test_refuses_the_options_of_a_queue_that_the_catalog_refuses(self) -> None:
        wrong = Queue("orders", Order, options=JobOptions(backoff=Fixed(5)))
        with pytest.raises(JobRefused, match="the backoff's delay 5 is no timedelta"):
            await RecordingJobScheduler().enqueue(wrong, Order(order_id="a"))

    @pytest.mark.asyncio
    async def test_keeps_payload_options_and_json_text_of_each_job(self) -> None:
        jobs = RecordingJobScheduler()
        enqueued = await jobs.enqueue(
            orders, Order(order_id="a"), priority=2, delay=timedelta(seconds=1)
        )
        (kept,) = jobs.jobs
        assert enqueued == Enqueued(kept.id, created=True, state=JobState.DELAYED)
        assert (kept.queue, kept.payload, kept.raw) == (
            "orders",
            Order(order_id="a"),
            b'{"orderId":"a"}',
        )
        assert kept.overrides == {"priority": 2, "delay": timedelta(seconds=1)}
        assert kept.options == JobOptions(attempts=5, priority=2, delay=timedelta(seconds=1))

    @pytest.mark.asyncio
    async def test_takes_mappings_by_object_and_by_name(self) -> None:
        jobs = RecordingJobScheduler(orders)
        await jobs.enqueue(orders, {"orderId": "a"})
        await jobs.enqueue("orders", {"order_id": "b"})
        await jobs.enqueue(parcels, Parcel(grams=1))
        assert jobs.payloads(orders) == [Order(order_id="a"), Order(order_id="b")]
        assert jobs.payloads(parcels) == [Parcel(grams=1)]

    @pytest.mark.asyncio
    async def test_makes_an_id_for_each_job_and_one_job_for_each_id(self) -> None:
        jobs = RecordingJobScheduler()
        first, second = [await jobs.enqueue(parcels, Parcel(grams=n)) for n in (1, 2)]
        assert first.id != second.id
        assert await jobs.enqueue(parcels, Parcel(grams=3), job_id="mine") == Enqueued(
            "mine", created=True
        )
        assert await jobs.enqueue(parcels, Parcel(grams=4), job_id="mine") == Enqueued(
            "mine", created=False
        )
        assert await jobs.enqueue(orders, Order(order_id="a"), job_id="mine") == Enqueued(
            "mine", created=True
        )
        assert jobs.payloads(parcels) == [Parcel(grams=n) for n in (1, 2, 3)]

    @pytest.mark.asyncio
    async def test_reports_the_state_of_a_job_whose_id_exists(self) -> None:
        jobs = RecordingJobScheduler()
        for name, options in {
            "waiting": EnqueueOptions(),
            "prioritized": EnqueueOptions(priority=2),
            "delayed": EnqueueOptions(priority=2, delay=timedelta(seconds=1)),
        }.items():
            job_id, state = f"first-{name}", JobState(name)
            first = await jobs.enqueue(parcels, Parcel(grams=1), job_id=job_id, **options)
            again = await jobs.enqueue(parcels, Parcel(grams=2), job_id=job_id)
            assert first == Enqueued(job_id, created=True, state=state)
            assert again == Enqueued(job_id, created=False, state=state)

    @pytest.mark.asyncio
    async def test_refuses_as_the_real_one_and_keeps_nothing(self) -> None:
        jobs = RecordingJobScheduler(orders)
        with pytest.raises(UnknownQueue, match="'parcels'"):
            await jobs.enqueue("parcels", {"grams": 1})
        with pytest.raises(PayloadRefused, match="orderId: "):
            await jobs.enqueue("orders", {"orderId": 1})
        with pytest.raises(PayloadRefused, match="expected Order"):
            await jobs.enqueue(orders, Parcel(grams=1))  # type: ignore[misc]  # what is shown
        with pytest.raises(PayloadRefused, match="2\\^53"):
            await jobs.enqueue(parcels, Parcel(grams=2**60))
        with pytest.raises(JobRefused, match="priority -1"):
            await jobs.enqueue(orders, Order(order_id="a"), priority=-1)
        with pytest.raises(JobRefused, match="'prio'"):
            await jobs.enqueue(orders, Order(order_id="a"), prio=1)  # type: ignore[call-overload]  # what is shown
        with pytest.raises(JobRefused, match="jitter"):
            await jobs.enqueue(orders, Order(order_id="a"), backoff=Fixed(timedelta(0), jitter=2))
        for job_id in ("", "a:b", "7", "wait", "x" * 129):
            with pytest.raises(JobRefused, match=r"^job id "):
                await jobs.enqueue(orders, Order(order_id="a"), job_id=job_id)
        assert jobs.jobs == []

    @pytest.mark.asyncio
    async def test_many_are_all_recorded_or_none(self) -> None:
        jobs = RecordingJobScheduler()
        written = await jobs.enqueue_many(parcels, [Parcel(grams=1), Parcel(grams=2)], lifo=True)
        assert [one.id for one in written] == [one.id for one in jobs.jobs]
        assert all(one.options.lifo for one in jobs.jobs)
        with pytest.raises(PayloadRefused, match="grams"):
            await jobs.enqueue_many(parcels, [{"grams": 3}, {"grams": "x"}])
        with pytest.raises(JobRefused, match="job_id"):
            await jobs.enqueue_many(parcels, [{"grams": 3}], job_id="mine")
        assert jobs.payloads(parcels) == [Parcel(grams=1), Parcel(grams=2)]

    @pytest.mark.asyncio
    async def test_records_schedules_and_refuses_what_the_real_one_refuses(self) -> None:
        jobs = RecordingJobScheduler(orders)
        first = await jobs.schedule("orders", {"orderId": "a"}, Cron("5 * * * *"), id="ada")
        assert first == datetime(2030, 1, 1, 0, 5, tzinfo=UTC)
        assert await jobs.schedule(
            parcels, Parcel(grams=1), Every(timedelta(days=1)), id="bob"
        ) >= first - timedelta(hours=1)
        await jobs.schedule(orders, Order(order_id="b"), Cron("6 * * * *"), id="ada")
        assert [
            (each.id, each.queue, each.payload, each.raw, each.when) for each in jobs.schedules
        ] == [
            ("ada", "orders", Order(order_id="b"), b'{"orderId":"b"}', Cron("6 * * * *")),
            ("bob", "parcels", Parcel(grams=1), b'{"grams":1}', Every(timedelta(days=1))),
        ]
        for when, message in (
            (Every(timedelta(0)), "cannot be kept"),
            (Cron("61 * * * *"), "cannot be kept: '61"),
            (Cron("* * * * *", tz="Mars"), "no time zone"),
        ):
            with pytest.raises(JobRefused, match=message):
                await jobs.schedule(orders, Order(order_id="b"), when, id="eve")
        for schedule_id, message in (("orders", "is a queue's name"), ("a:b", "job id")):
            with pytest.raises(JobRefused, match=message):
                await jobs.schedule(orders, Order(order_id="b"), Cron("6 * * * *"), id=schedule_id)
        with pytest.raises(PayloadRefused):
            await jobs.schedule(orders, {}, Cron("6 * * * *"), id="eve")
        await jobs.schedule(parcels, Parcel(grams=1), Cron("6 * * * *"), id="ada")
        with pytest.raises(UnknownQueue) as unscheduling:
            await jobs.unschedule("parcels", "ada")  # not given to this scheduler by name
        with pytest.raises(UnknownQueue) as enqueueing:
            await jobs.enqueue("parcels", {"grams": 1})
        assert str(unscheduling.value) == str(enqueueing.value)
        assert await jobs.unschedule("orders", "ada")
        assert not await jobs.unschedule(orders, "ada")
        assert [(each.queue, each.id) for each in jobs.schedules] == [
            ("parcels", "bob"),
            ("parcels", "ada"),
        ]
        assert await jobs.unschedule(parcels, "ada")
        assert [each.id for each in jobs.schedules] == ["bob"]

    def test_is_a_job_scheduler_for_checkers(self) -> None:
        port: JobScheduler = RecordingJobScheduler(orders)
        assert port


class Box(Payload):
    shelf_number: int
    label: dict[str, str] = Field(default_factory=dict)


boxes = Queue("boxes", Box)


class TestExpectations:
    @pytest.fixture
    def jobs(self) -> RecordingJobScheduler:
        return RecordingJobScheduler(boxes)

    @pytest.mark.asyncio
    async def test_some_fields_are_enough_by_either_name_within_mappings_too(
        self, jobs: RecordingJobScheduler
    ) -> None:
        await jobs.enqueue(boxes, Box(shelf_number=1))
        await jobs.enqueue(boxes, Box(shelf_number=2, label={"to": "ada", "from": "bob"}))
        assert jobs.assert_enqueued(boxes) is jobs.jobs[0]
        second = jobs.jobs[1]
        for matching in (
            {"shelf_number": 2},
            {"shelfNumber": 2},
            {"label": {"to": "ada"}},
            lambda box: bool(box.label),
        ):
            assert jobs.assert_enqueued("boxes", matching) is second
        for matching in (
            {"shelf_number": 3},
            {"shelfNumber": 1, "label": {"to": "ada"}},
            {"label": {"too": "ada"}},
        ):
            jobs.refute_enqueued(boxes, matching)

    @pytest.mark.asyncio
    async def test_a_failure_lists_what_was_enqueued(self, jobs: RecordingJobScheduler) -> None:
        with pytest.raises(AssertionError) as message:
            jobs.assert_enqueued(boxes)
        assert str(message.value) == "no job of queue 'boxes'\nnothing was enqueued"
        await jobs.enqueue(boxes, Box(shelf_number=1))
        await jobs.enqueue(orders, Order(order_id="x" * 400))
        with pytest.raises(AssertionError) as message:
            jobs.assert_enqueued(boxes, {"shelf_number": 2})
        first, second, third, fourth = str(message.value).splitlines()
        assert (first, second) == (
            "no job of queue 'boxes' matches {'shelf_number': 2}",
            "enqueued were:",
        )
        assert third == '  boxes  job-1  {"shelfNumber":1,"label":{}}'
        assert fourth.startswith('  orders  job-2  {"orderId":"xxx')
        assert len(fourth) < 330
        with pytest.raises(
            AssertionError, match=r"jobs were enqueued: 1 of queue 'boxes' match .*lambda"
        ) as message:
            jobs.refute_enqueued(boxes, lambda box: True)
        assert "orders" not in str(message.value)

    @pytest.mark.asyncio
    async def test_many_jobs_do_not_hide_the_sentence(self, jobs: RecordingJobScheduler) -> None:
        await jobs.enqueue_many(boxes, [Box(shelf_number=n) for n in range(50)])
        with pytest.raises(AssertionError) as message:
            jobs.assert_enqueued(boxes, {"shelf_number": 50})
        assert str(message.value).splitlines()[-1] == "  and 30 more"

    def test_a_field_that_does_not_exist_would_match_nothing_for_ever(
        self, jobs: RecordingJobScheduler
    ) -> None:
        with pytest.raises(ValueError, match="no field 'shelf_numbr', did you mean 'shelf_number'"):
            jobs.refute_enqueued(boxes, {"shelf_numbr": 1})
        with pytest.raises(ValueError, match="no field 'x': it has label, shelf_number"):
            jobs.assert_enqueued(boxes, {"x": 1})
        with pytest.raises(UnknownQueue, match="'crates'"):
            jobs.assert_enqueued("crates")


@pytest.mark.parametrize(
    "statement",
    ["import corral.testing.plugin", "from corral.testing import job, RecordingJobScheduler"],
)
def test_loads_no_store_and_no_worker(statement: str) -> None:
    heavy = ("redis", "structlog", "click", "corral.worker")
    probe = f"import sys\n{statement}\nprint([name for name in {heavy} if name in sys.modules])"
    ended = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=30
    )
    assert ended.stdout.strip() == "[]"


def test_every_name_of_the_surface_is_configured() -> None:
    import corral.testing

    assert [name for name in corral.testing.__all__ if not hasattr(corral.testing, name)] == []
    assert set(corral.testing.__all__) <= set(dir(corral.testing))
    assert not hasattr(corral.testing, "no_such_name")


@hookspec
def acme_find_user(user_id: str) -> str | None:
    """Find the address of a user."""


@hookimpl
def corral_hookspecs() -> list[object]:
    return [SimpleNamespace(acme_find_user=acme_find_user)]


ACME = SimpleNamespace(corral_hookspecs=corral_hookspecs)


def users(address: str | None) -> SimpleNamespace:
    return SimpleNamespace(acme_find_user=hookimpl(lambda user_id: address and user_id + address))


@asynccontextmanager
async def open_inbox(_deps: Deps) -> AsyncIterator[list[str]]:
    letters = ["open"]
    yield letters
    letters.append("closed")


class TestDeps:
    @pytest.mark.asyncio
    async def test_asks_the_plugins_that_it_is_given_the_last_one_first(self) -> None:
        given = {"acme": ACME, "acme_crm": users("@crm.example"), "acme_ldap": users(None)}
        made = deps(plugins=given)
        assert await made.ask_first(acme_find_user, user_id="ada") == "ada@crm.example"
        assert made.implementers(acme_find_user) == ("acme_ldap", "acme_crm")
        with pytest.raises(LookupError, match="acme_find_user"):
            await deps().ask_first(acme_find_user, user_id="ada")

    @pytest.mark.asyncio
    async def test_enters_what_is_provided_and_the_stack_closes_the_rest(self) -> None:
        async with AsyncExitStack() as resources:
            inbox = await deps(resources=resources).enter(open_inbox)
            assert inbox == ["open"]
            assert await deps(provided={open_inbox: ["another"]}).enter(open_inbox) == ["another"]
        assert inbox == ["open", "closed"]

    @pytest.mark.asyncio
    async def test_enqueues_with_the_scheduler_that_it_is_given(self) -> None:
        jobs = RecordingJobScheduler(orders)
        await deps(jobs=jobs).jobs.enqueue(orders, Order(order_id="7"))
        jobs.assert_enqueued(orders, {"order_id": "7"})
        assert isinstance(deps().jobs, RecordingJobScheduler)

    @pytest.mark.asyncio
    async def test_refuses_a_hook_that_cannot_be_called(self) -> None:
        wrong = SimpleNamespace(acme_find_user=hookimpl(lambda name: name))
        with pytest.raises(CatalogError, match="acme_find_user"):
            deps(plugins={"acme": ACME, "acme_crm": wrong})
