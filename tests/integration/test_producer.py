"""What a producer writes, what it refuses without writing anything, and what it costs."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

import corral
from corral import (
    Enqueued,
    Entry,
    Exponential,
    Fixed,
    JobOptions,
    JobState,
    Payload,
    PayloadRefused,
    Queue,
    Retention,
    StoreUnavailable,
)
from corral.embedded.server import embedded_store
from corral.errors import JobRefused, UnknownQueue
from corral.options import check_job_id
from logged import capture_logs
from machine import slowness

pytestmark = pytest.mark.asyncio


class Letter(Payload):
    to_user: str = ""
    copies: int = 1


class Other(Payload):
    to_user: str = ""


letters = Queue("letters", Letter)
FAR = timedelta(hours=1)


class TestWriting:
    @pytest.mark.parametrize("queue", [letters, "letters"], ids=["by object", "by name"])
    @pytest.mark.parametrize(
        "payload",
        [Letter(to_user="ada"), {"toUser": "ada"}, {"to_user": "ada"}],
        ids=["an instance", "JSON names", "Python names"],
    )
    async def test_a_job_is_written_as_bullmq_has_it(
        self, workshop: Any, queue: Any, payload: Any
    ) -> None:
        enqueued = await workshop.producer(letters).enqueue(queue, payload)
        assert enqueued.created
        check_job_id(enqueued.id)
        job = await workshop.hash(letters, enqueued.id)
        opts = json.loads(job.pop("opts"))
        assert int(job.pop("timestamp")) == pytest.approx(time.time() * 1000, abs=5000)
        assert job == {
            "name": "letters",
            "data": '{"toUser":"ada","copies":1}',
            "delay": "0",
            "priority": "0",
        }
        assert opts == {"attempts": 3, "backoff": {"type": "exponential", "delay": 5000}}
        assert await workshop.state(letters, enqueued.id) == "wait"
        events = await workshop.events(letters)
        assert events == [
            {"event": "added", "jobId": enqueued.id, "name": "letters"},
            {"event": "waiting", "jobId": enqueued.id},
        ]

    async def test_a_queues_options_hold_and_a_calls_own_come_first(self, workshop: Any) -> None:
        declared = JobOptions(
            attempts=7, backoff=Fixed(timedelta(seconds=2), jitter=0.5), keep_failed=Retention()
        )
        queue = Queue("letters", Letter, options=declared)
        jobs = workshop.producer(queue)
        plain = await jobs.enqueue(queue, Letter())
        own = await jobs.enqueue(
            queue,
            Letter(),
            attempts=1,
            backoff=Exponential(timedelta(milliseconds=1)),
            delay=FAR,
            priority=5,
            lifo=True,
            keep_completed=Retention(count=0),
            keep_failed=Retention(age=timedelta(seconds=90)),
        )
        assert json.loads((await workshop.hash(queue, plain.id))["opts"]) == {
            "attempts": 7,
            "backoff": {"type": "fixed", "delay": 2000, "jitter": 0.5},
            "removeOnFail": False,
        }
        job = await workshop.hash(queue, own.id)
        assert json.loads(job["opts"]) == {
            "attempts": 1,
            "backoff": {"type": "exponential", "delay": 1},
            "delay": 3_600_000,
            "priority": 5,
            "lifo": True,
            "removeOnComplete": {"count": 0},
            "removeOnFail": {"age": 90},
        }
        assert (job["delay"], job["priority"]) == ("3600000", "5")
        assert await workshop.state(queue, own.id) == "delayed"

    async def test_many_are_written_in_order_and_validated_before_the_first(
        self, workshop: Any
    ) -> None:
        jobs = workshop.producer(letters)
        made = await jobs.enqueue_many(
            "letters", [{"copies": number} for number in range(1200)], priority=3
        )
        assert [each.created for each in made] == [True] * 1200
        assert await workshop.raw.zrange("bull:letters:prioritized", 0, -1) == [
            each.id for each in made
        ]
        before = await workshop.raw.dbsize()
        with pytest.raises(PayloadRefused, match="copies"):
            await jobs.enqueue_many(letters, [{"copies": 1}, {"copies": "many"}])
        with pytest.raises(JobRefused, match="job_id names one job"):
            await jobs.enqueue_many(letters, [{}], job_id="a")
        assert await jobs.enqueue_many(letters, []) == []
        assert await workshop.raw.dbsize() == before

    async def test_ids_made_one_after_another_sort_so(self, workshop: Any) -> None:
        jobs = workshop.producer(letters)
        made = []
        for _ in range(5):
            made.append((await jobs.enqueue(letters, Letter())).id)
            await asyncio.sleep(0.002)
        assert made == sorted(made)
        assert {len(job_id) for job_id in made} == {26}


class TestRefusals:
    @pytest.mark.parametrize(
        ("queue", "payload", "options", "error", "message"),
        [
            ("leters", {}, {}, UnknownQueue, "no queue is named 'leters'"),
            (Queue("other", Other), Other(), {}, UnknownQueue, "no queue is named 'other'"),
            (
                Queue("letters", Letter),
                Letter(),
                {},
                JobRefused,
                "not the one that acme 1.0 declares",
            ),
            (
                letters,
                {"toUser": 7},
                {},
                PayloadRefused,
                "payload of queue 'letters' refused: toUser: ",
            ),
            (letters, {"colour": "red"}, {}, PayloadRefused, "colour: Extra inputs"),
            (letters, Other(), {}, PayloadRefused, "expected Letter or a mapping, not Other"),
            (letters, {"copies": 2**53}, {}, PayloadRefused, "copies: an integer beyond"),
            (letters, Letter(to_user="x" * 2000), {}, JobRefused, "has 2024 bytes, more than 1000"),
            (letters, Letter(), {"job_id": "42"}, JobRefused, "is an integer"),
            (letters, Letter(), {"job_id": "delayed"}, JobRefused, "a key of the queue"),
            (letters, Letter(), {"job_id": "a:b"}, JobRefused, "1 to 128 characters"),
            (letters, Letter(), {"job_id": "x" * 129}, JobRefused, "1 to 128 characters"),
            (letters, Letter(), {"priority": -1}, JobRefused, "priority -1"),
            (letters, Letter(), {"attempts": -1}, JobRefused, "attempts -1"),
            (letters, Letter(), {"delay": -FAR}, JobRefused, "is negative"),
            (letters, Letter(), {"retries": 1}, JobRefused, "no enqueue option is named 'retries'"),
        ],
    )
    async def test_a_refusal_writes_nothing_and_asks_no_hook(
        self,
        workshop: Any,
        queue: Any,
        payload: Any,
        options: Any,
        error: type[Exception],
        message: str,
    ) -> None:
        asked: list[Any] = []

        @corral.hookimpl
        def corral_enqueuing(queue: Any) -> None:
            asked.append(queue)

        workshop.load(corral_enqueuing=corral_enqueuing)
        jobs = workshop.producer(letters, max_payload_bytes=1000)
        await jobs.enqueue(letters, Letter())
        before = await workshop.raw.dbsize()
        with pytest.raises(error, match=message) as refused:
            await jobs.enqueue(queue, payload, **options)
        assert refused.value.exit_code == 2
        assert await workshop.raw.dbsize() == before
        assert len(asked) == 1

    async def test_an_unknown_name_has_a_hint(self, workshop: Any) -> None:
        with pytest.raises(UnknownQueue) as refused:
            await workshop.producer(letters).enqueue("leters", {})
        assert refused.value.hint == "did you mean 'letters'?"

    async def test_a_large_payload_is_written_with_a_warning(self, workshop: Any) -> None:
        with capture_logs() as logged:
            enqueued = await workshop.producer(letters).enqueue(
                letters, Letter(to_user="x" * 65536)
            )
        assert enqueued.created
        assert [(line["event"], line["queue"], line["bytes"]) for line in logged] == [
            ("large payload", "letters", 65560)
        ]


class TestIds:
    async def test_the_same_id_again_makes_no_second_job_and_an_event_says_so(
        self, workshop: Any
    ) -> None:
        first, second = workshop.producer(letters), workshop.producer(letters)
        assert await first.enqueue(
            letters, Letter(to_user="ada"), job_id="welcome-ada"
        ) == Enqueued("welcome-ada")
        for jobs in (first, second):
            again = await jobs.enqueue(
                letters, Letter(to_user="bob"), job_id="welcome-ada", delay=FAR
            )
            assert again == Enqueued("welcome-ada", created=False)
        assert json.loads((await workshop.hash(letters, "welcome-ada"))["data"])["toUser"] == "ada"
        events = [event["event"] for event in await workshop.events(letters, "welcome-ada")]
        assert events == ["added", "waiting", "duplicated", "duplicated"]
        assert await workshop.state(letters, "welcome-ada") == "wait"

    @pytest.mark.usefixtures("path")
    async def test_a_new_job_s_state_is_the_one_that_it_is_put_into(self, workshop: Any) -> None:
        jobs = workshop.producer(letters)
        states = {
            JobState.WAITING: [{}, {"lifo": True}, {"delay": timedelta(microseconds=999)}],
            JobState.PRIORITIZED: [{"priority": 1}],
            JobState.DELAYED: [{"delay": FAR}, {"delay": FAR, "priority": 1}],
        }
        for state, calls in states.items():
            for number, options in enumerate(calls):
                for name in ({}, {"job_id": f"{state}-{number}"}):
                    enqueued = await jobs.enqueue(letters, Letter(), **options, **name)
                    assert (enqueued.created, enqueued.state) == (True, state)
                    found = await workshop.state(letters, enqueued.id)
                    assert found == ("wait" if state is JobState.WAITING else state)

    @pytest.mark.usefixtures("path")
    async def test_the_state_of_an_existing_job_is_looked_up(self, workshop: Any) -> None:
        jobs = workshop.producer(letters)

        async def process(job: Any) -> None:
            if job.payload.to_user == "nobody":
                raise corral.Fail("there is nobody")

        await jobs.enqueue(letters, Letter(), job_id="1-completed")
        await jobs.enqueue(letters, Letter(to_user="nobody"), job_id="1-failed")
        await workshop.burst(letters.processed_by(process))
        await jobs.enqueue(letters, Letter(), job_id="1-waiting")
        await jobs.enqueue(letters, Letter(), job_id="1-prioritized", priority=1)
        await jobs.enqueue(letters, Letter(), job_id="1-delayed", delay=FAR)
        for name in ("completed", "failed", "waiting", "prioritized", "delayed"):
            job_id, new_id = f"1-{name}", f"2-{name}"
            existing = Enqueued(job_id, created=False, state=JobState(name))
            assert await jobs.enqueue(letters, Letter(), job_id=job_id) == existing
            entries = [Entry(Letter(), job_id=job_id), Entry(Letter(), job_id=new_id)]
            assert await jobs.enqueue_many(letters, entries, delay=FAR) == [
                existing,
                Enqueued(new_id, created=True, state=JobState.DELAYED),
            ]

    async def test_a_failed_job_runs_again_where_the_call_asks_for_it(self, workshop: Any) -> None:
        """It keeps its payload and options, and counts attempts from zero."""
        jobs = workshop.producer(letters)
        runs: list[tuple[str, int]] = []

        async def process(job: Any) -> None:
            runs.append((job.payload.to_user, job.attempt))
            raise corral.Fail("there is nobody") if len(runs) == 1 else corral.Snooze(after=FAR)

        await jobs.enqueue(letters, Letter(to_user="nobody"), job_id="a", priority=7, attempts=2)
        await workshop.burst(letters.processed_by(process))
        failed = Enqueued("a", created=False, state=JobState.FAILED)
        assert await jobs.enqueue(letters, Letter(), job_id="a") == failed
        assert await workshop.state(letters, "a") == "failed"

        assert await jobs.enqueue(letters, Letter(), job_id="a", if_failed="retry") == failed
        assert await workshop.state(letters, "a") == "prioritized"
        waits = Enqueued("a", created=False, state=JobState.PRIORITIZED)
        assert await jobs.enqueue(letters, Letter(), job_id="a", if_failed="retry") == waits
        assert not {"finishedOn", "failedReason", "atm"} & set(await workshop.hash(letters, "a"))
        await workshop.burst(letters.processed_by(process))
        assert runs == [("nobody", 1), ("nobody", 1)]

    async def test_if_failed_changes_no_job_that_has_not_failed(self, workshop: Any) -> None:
        jobs = workshop.producer(letters)

        async def process(job: Any) -> None:
            if job.id.startswith("failed"):
                raise corral.Fail("there is nobody")

        for job_id in ("1-completed", "failed-1", "failed-2"):
            await jobs.enqueue(letters, Letter(), job_id=job_id)
        await workshop.burst(letters.processed_by(process))
        await jobs.enqueue(letters, Letter(), job_id="1-waiting")
        await jobs.enqueue(letters, Letter(), job_id="1-prioritized", priority=1)
        await jobs.enqueue(letters, Letter(), job_id="1-delayed", delay=FAR)
        names = ["1-completed", "1-waiting", "1-prioritized", "1-delayed", "failed-1", "new"]
        entries = [Entry(Letter(), job_id=name) for name in names]
        entries.append(Entry(Letter(), job_id="failed-2", if_failed="retry"))
        before = {name: await workshop.hash(letters, name) for name in names[:4]}
        made = await jobs.enqueue_many(letters, entries)
        assert [each.state for each in made] == [
            *map(JobState, ("completed", "waiting", "prioritized", "delayed", "failed", "waiting")),
            JobState.FAILED,
        ]
        assert await workshop.state(letters, "failed-1") == "failed", "its entry did not ask for it"
        assert await workshop.state(letters, "failed-2") == "wait"
        assert {name: await workshop.hash(letters, name) for name in before} == before
        again = await jobs.enqueue_many(letters, entries, if_failed="retry")
        assert [each.state for each in again[-3:]] == [
            JobState.FAILED,
            JobState.WAITING,
            JobState.WAITING,
        ]
        assert await workshop.state(letters, "failed-1") == "wait"

    @pytest.mark.corral_untidy("a key of its parent is damaged")
    async def test_a_failed_job_that_cannot_run_again_has_no_state(self, workshop: Any) -> None:
        jobs = workshop.producer(letters)

        async def refuse(job: Any) -> None:
            raise corral.Fail(job.id)

        for job_id in ("well", "damaged"):
            await jobs.enqueue(letters, Letter(), job_id=job_id)
        await workshop.burst(letters.processed_by(refuse))
        await workshop.raw.hset("bull:letters:damaged", "parentKey", "bull:letters:parent")
        await workshop.raw.set("bull:letters:parent:dependencies", "no set")
        entries = [Entry(Letter(), job_id=job_id) for job_id in ("damaged", "well")]
        made = await jobs.enqueue_many(letters, entries, if_failed="retry")
        assert [each.state for each in made] == [None, JobState.FAILED]
        assert await workshop.state(letters, "well") == "wait"
        assert await workshop.state(letters, "damaged") == "failed"

    async def test_a_paused_queue_s_failed_job_waits_again(self, workshop: Any) -> None:
        jobs = workshop.producer(letters)

        async def refuse(job: Any) -> None:
            raise corral.Fail(job.id)

        await jobs.enqueue(letters, Letter(), job_id="a")
        await workshop.burst(letters.processed_by(refuse))
        await workshop.raw.hset("bull:letters:meta", "paused", "1")
        await workshop.raw.unlink("bull:letters:marker")
        await jobs.enqueue(letters, Letter(), job_id="a", if_failed="retry")
        assert await workshop.state(letters, "a") == "wait"
        assert not await workshop.raw.exists("bull:letters:marker")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"if_failed": "retry"}, "if_failed needs a job_id: a job without one is always new"),
            ({"job_id": "a", "if_failed": "again"}, "if_failed 'again' does not exist"),
            ({"job_id": "a", "if_failed": True}, "if_failed True does not exist"),
        ],
    )
    async def test_if_failed_without_an_id_or_with_another_value_is_refused(
        self, workshop: Any, options: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(JobRefused, match=message) as refused:
            await workshop.producer(letters).enqueue(letters, Letter(), **options)
        assert refused.value.hint
        assert await workshop.raw.dbsize() == 0

    async def test_of_one_call_that_names_an_id_twice_the_second_has_the_first_one_s_state(
        self, workshop: Any
    ) -> None:
        for state, options in {
            JobState.WAITING: {},
            JobState.PRIORITIZED: {"priority": 1},
            JobState.DELAYED: {"delay": FAR},
        }.items():
            job_id = f"twice-{state}"
            entries = [Entry(Letter(), job_id=job_id), Entry(Letter(), job_id=job_id)]
            made = await workshop.producer(letters).enqueue_many(letters, entries, **options)
            assert made == [
                Enqueued(job_id, created=True, state=state),
                Enqueued(job_id, created=False, state=state),
            ]

    async def test_an_active_job_is_found_with_and_without_its_lock(self, workshop: Any) -> None:
        jobs = workshop.producer(letters)
        active = Enqueued("busy", created=False, state=JobState.ACTIVE)

        async def process(_job: Any) -> None:
            assert await jobs.enqueue(letters, Letter(), job_id="busy") == active
            lock = await workshop.raw.getdel("bull:letters:busy:lock")
            assert await jobs.enqueue(letters, Letter(), job_id="busy") == active
            await workshop.raw.set("bull:letters:busy:lock", lock)

        await jobs.enqueue(letters, Letter(), job_id="busy")
        await workshop.burst(letters.processed_by(process))
        assert await workshop.state(letters, "busy") == "completed"

    async def test_a_job_in_the_middle_of_a_long_list_waits(self, workshop: Any) -> None:
        """The script compares some ids at each end of a list, and not all of a long one."""
        jobs = workshop.producer(letters)
        entries = [Entry(Letter(), job_id=f"n{number}") for number in range(500)]
        await jobs.enqueue_many(letters, entries)
        again = await jobs.enqueue_many(letters, entries)
        assert {(each.created, each.state) for each in again} == {(False, JobState.WAITING)}

    @pytest.mark.corral_untidy("a job is in no container on purpose")
    async def test_a_job_that_no_container_holds_has_no_state(self, workshop: Any) -> None:
        jobs = workshop.producer(letters)
        await jobs.enqueue(letters, Letter(), job_id="lost")
        await workshop.raw.lrem("bull:letters:wait", 0, "lost")
        existing = Enqueued("lost", created=False, state=None)
        assert await jobs.enqueue(letters, Letter(), job_id="lost") == existing

    @pytest.mark.corral_untidy("`completed` is damaged on purpose")
    async def test_a_container_that_cannot_be_read_leaves_the_state_open(
        self, workshop: Any
    ) -> None:
        """The call itself is not refused, and the damaged key is left to those that mend it."""
        jobs = workshop.producer(letters)
        await jobs.enqueue(letters, Letter(), job_id="later", delay=FAR)
        await jobs.enqueue(letters, Letter(), job_id="lost")
        await workshop.raw.lrem("bull:letters:wait", 0, "lost")
        await workshop.raw.set("bull:letters:completed", "no sorted set")
        entries = [Entry(Letter(), job_id=job_id) for job_id in ("later", "lost", "new")]
        assert await jobs.enqueue_many(letters, entries) == [
            Enqueued("later", created=False, state=JobState.DELAYED),
            Enqueued("lost", created=False, state=None),
            Enqueued("new", created=True, state=JobState.WAITING),
        ]
        assert await workshop.raw.get("bull:letters:completed") == "no sorted set"

    async def test_of_fifty_that_race_for_one_id_exactly_one_makes_the_job(
        self, workshop: Any
    ) -> None:
        producers = [workshop.producer(letters) for _ in range(5)]
        racing = [
            jobs.enqueue(letters, Letter(), job_id="once") for _ in range(10) for jobs in producers
        ]
        created = [each.created for each in await asyncio.gather(*racing)]
        assert created.count(True) == 1
        assert await workshop.raw.llen("bull:letters:wait") == 1
        events = [event["event"] for event in await workshop.events(letters, "once")]
        assert (events.count("added"), events.count("duplicated")) == (1, 49)

    async def test_a_name_is_free_again_when_its_job_is_gone(self, workshop: Any) -> None:
        jobs = workshop.producer(letters)

        async def nothing(_job: Any) -> None:
            pass

        for _ in range(2):
            once = await jobs.enqueue(
                letters, Letter(), job_id="once", keep_completed=Retention(count=0)
            )
            assert once.created
            await workshop.burst(letters.processed_by(nothing))


async def test_calls_that_overlap_cost_few_scripts(workshop: Any) -> None:
    jobs = workshop.producer(letters)
    await jobs.enqueue(letters, Letter())

    async def scripts() -> int:
        return int((await workshop.raw.info("commandstats"))["cmdstat_evalsha"]["calls"])

    before = await scripts()
    made = await asyncio.gather(
        *(jobs.enqueue(letters, Letter(copies=number)) for number in range(1000))
    )
    assert await scripts() - before <= 4
    waiting = await workshop.raw.lrange("bull:letters:wait", 0, -1)
    assert waiting[:-1] == [each.id for each in reversed(made)], "in the order of the calls"


@asynccontextmanager
async def deaf(folder: Path) -> AsyncIterator[str]:
    """A store that takes connections and never answers."""
    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_unix_server(
        lambda _, writer: held.append(writer), folder / "deaf.sock"
    )
    try:
        yield f"unix://{folder}/deaf.sock"
    finally:
        server.close()
        for writer in held:
            writer.close()


class TestOutages:
    @pytest.mark.timing
    async def test_a_store_that_is_down_is_an_error_within_about_a_second(
        self, workshop: Any, tmp_path: Path
    ) -> None:
        jobs = workshop.producer(letters, url=f"unix://{tmp_path}/nobody.sock")
        took, errors = await failing(jobs, [{"job_id": "a"}, {}])
        print(f"refused after {took:.2f} s")
        assert took <= 1.2
        assert [(error.outcome, error.exit_code) for error in errors] == [("refused", 4)] * 2
        assert errors[0].job_id == "a"
        assert len(errors[1].job_id or "") == 26
        assert "nobody.sock is unavailable" in str(errors[0])

    @pytest.mark.timing
    async def test_so_is_one_that_does_not_answer_and_a_crowd_waits_no_longer_than_one(
        self, workshop: Any
    ) -> None:
        with tempfile.TemporaryDirectory(
            prefix="corral-deaf-"
        ) as folder:  # short enough for a socket
            async with deaf(Path(folder)) as url:
                jobs = workshop.producer(letters, url=url)
                took, errors = await failing(jobs, [{}] * 10_000)
                print(f"10,000 calls failed after {took:.2f} s, where the store does not answer")
                assert (
                    took <= 1.0 + 0.2 * slowness()
                )  # a second of waiting, and the work of 10,000 errors
                assert {error.outcome for error in errors} <= {"refused", "unknown"}
                assert len({error.job_id for error in errors}) == 10_000

    @pytest.mark.timing
    async def test_so_is_a_crowd_where_the_store_is_down(
        self, workshop: Any, tmp_path: Path
    ) -> None:
        jobs = workshop.producer(letters, url=f"unix://{tmp_path}/nobody.sock")
        took, errors = await failing(jobs, [{}] * 10_000)
        print(f"10,000 calls failed after {took:.2f} s, where the store is down")
        assert took <= 1.0 + 0.2 * slowness()
        assert {error.outcome for error in errors} == {"refused"}
        assert len({error.job_id for error in errors}) == 10_000

    async def test_the_next_call_after_an_outage_succeeds(
        self, workshop: Any, data_dir: Path
    ) -> None:
        with embedded_store(data_dir) as url:
            jobs = workshop.producer(letters, url=url)
            first = await jobs.enqueue(letters, Letter())
            with redis.Redis.from_url(url) as client:
                client.client_kill_filter(skipme=True, _type="normal")
            second = await jobs.enqueue(letters, Letter())
            with redis.Redis.from_url(url, decode_responses=True) as client:
                assert client.lrange("bull:letters:wait", 0, -1) == [second.id, first.id]
                client.config_set("maxmemory", 1)
                with pytest.raises(StoreUnavailable) as refused:
                    await jobs.enqueue(letters, Letter())
                assert refused.value.outcome == "refused"
                assert client.llen("bull:letters:wait") == 2
                client.config_set("maxmemory", 0)
            assert (await jobs.enqueue(letters, Letter())).created
            await jobs.close()


async def failing(jobs: Any, options: list[dict[str, Any]]) -> tuple[float, list[StoreUnavailable]]:
    started = time.monotonic()
    calls = (jobs.enqueue(letters, Letter(), **each) for each in options)
    errors = await asyncio.gather(*calls, return_exceptions=True)
    took = time.monotonic() - started
    assert all(isinstance(error, StoreUnavailable) for error in errors), errors
    return took, [error for error in errors if isinstance(error, StoreUnavailable)]
