"""Whatever another client wrote into the store as a job, the worker ends it or drops it.

It goes on with the other jobs.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from corral import Fixed, Job, JobOptions, Payload, Queue
from logged import capture_logs

pytestmark = pytest.mark.asyncio


class Letter(Payload):
    text: str = ""


letters = Queue(
    "letters", Letter, options=JobOptions(attempts=5, backoff=Fixed(timedelta(milliseconds=5)))
)


@pytest.fixture
def write(workshop: Any) -> Any:
    """`await write("a", data="{}", …)`: a waiting job, as another client writes it."""

    async def write(job_id: str, /, **fields: Any) -> None:
        if fields:
            await workshop.raw.hset(f"bull:letters:{job_id}", mapping=fields)
        await workshop.raw.lpush("bull:letters:wait", job_id)
        await workshop.raw.zadd("bull:letters:marker", {"0": 0})

    return write


async def seen(job: Job[Letter]) -> dict[str, Any]:
    return {
        "text": job.payload.text,
        "name": job.name,
        "attempt": job.attempt,
        "of": job.max_attempts,
    }


async def test_a_job_without_any_options_has_one_attempt_and_the_queues_retention(
    workshop: Any, write: Any
) -> None:
    async def process(_job: Job[Letter]) -> None:
        raise ValueError("no")

    await write("a", name="__default__", data='{"text":"hi"}')
    await workshop.burst(letters.processed_by(process))
    assert await workshop.state(letters, "a") == "failed"
    job = await workshop.hash(letters, "a")
    assert (job["atm"], job["failedReason"], len(json.loads(job["stacktrace"]))) == (
        "1",
        "ValueError: no",
        1,
    )


async def test_a_jobs_name_is_passed_on_and_has_no_effect(workshop: Any, write: Any) -> None:
    await write("a", name="send:größe", data='{"text":"hi"}', opts='{"attempts":4}')
    await workshop.burst(letters.processed_by(seen))
    result = json.loads((await workshop.hash(letters, "a"))["returnvalue"])
    assert result == {"text": "hi", "name": "send:größe", "attempt": 1, "of": 4}


@pytest.mark.trap(3)
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ('{"text":7}', "payload refused: text: Input should be a valid string"),
        ("[]", "payload refused: Input should be an object"),
        ("not json", "payload refused: Invalid JSON: "),
        ('{"text":"' + "x" * 3000, "payload refused: Invalid JSON: "),
    ],
)
async def test_a_payload_that_does_not_fit_fails_at_once_for_good(
    workshop: Any, write: Any, data: str, reason: str
) -> None:
    ran: list[str] = []

    async def process(job: Job[Letter]) -> None:
        ran.append(job.id)

    await write("a", name="letters", data=data, opts='{"attempts":5}')
    await workshop.burst(letters.processed_by(process))
    assert ran == []
    job = await workshop.hash(letters, "a")
    assert (job["atm"], job["ats"]) == ("1", "1")
    assert job["failedReason"].startswith(reason)
    assert [event["event"] for event in await workshop.events(letters, "a")] == ["active", "failed"]


async def test_half_a_surrogate_pair_becomes_a_replacement_character(
    workshop: Any, write: Any
) -> None:
    await write("a", name="letters", data='{"text":"cut \\ud83d"}', opts="{}")
    await workshop.burst(letters.processed_by(seen))
    assert json.loads((await workshop.hash(letters, "a"))["returnvalue"])["text"] == "cut \ufffd"


async def test_unknown_fields_are_ignored_and_logged_once(workshop: Any, write: Any) -> None:
    for number in range(3):
        await write(
            f"a{number}", name="letters", data='{"text":"hi","colour":"crimson"}', opts="{}"
        )
    with capture_logs() as logged:
        await workshop.burst(letters.processed_by(seen))
    assert [await workshop.state(letters, f"a{number}") for number in range(3)] == ["completed"] * 3
    lines = [line for line in logged if line["event"] == "payload fields ignored"]
    assert [(line["queue"], line["names"], line["log_level"]) for line in lines] == [
        ("letters", ["colour"], "warning")
    ]
    assert not any("crimson" in str(line) for line in logged), "never what is in a payload"


@pytest.mark.trap(3)
@pytest.mark.parametrize("opts", ["{", "[]", "7", '"text"'])
async def test_options_that_are_no_json_object_fail_the_job_for_good(
    workshop: Any, write: Any, opts: str
) -> None:
    await write("a", name="letters", data="{}", opts=opts)
    await write("b", name="letters", data="{}", opts="{}")
    await workshop.burst(letters.processed_by(seen))
    assert (await workshop.hash(letters, "a"))[
        "failedReason"
    ] == "job refused: opts is not a JSON object"
    assert await workshop.state(letters, "b") == "completed"


async def test_options_beyond_any_number_do_not_stop_the_worker(workshop: Any, write: Any) -> None:
    async def process(_job: Job[Letter]) -> None:
        raise ValueError

    odd = [
        '{"attempts":2,"backoff":1e300}',
        '{"attempts":2,"backoff":{"type":"exponential","delay":1e400,"jitter":NaN}}',
        '{"attempts":1e400,"removeOnFail":1e400}',
        '{"removeOnFail":{"age":NaN,"count":-1e400,"limit":1e400}}',
    ]
    for number, opts in enumerate(odd):
        await write(f"a{number}", name="letters", data="{}", opts=opts, atm="1" * number)
    await workshop.burst(letters.processed_by(process))
    states = [await workshop.state(letters, f"a{number}") for number in range(len(odd))]
    assert states == ["delayed", "failed", "gone", "gone"], (
        "as written, or as if nothing were written there"
    )


async def test_an_unknown_backoff_type_is_the_queues_own_and_logged_once(
    workshop: Any, write: Any
) -> None:
    async def process(job: Job[Letter]) -> None:
        if job.attempt < 4:
            raise ValueError

    for job_id in "ab":
        await write(
            job_id, data="{}", opts='{"attempts":4,"backoff":{"type":"fibonacci","delay":3600000}}'
        )
    with capture_logs() as logged:
        async with workshop.working(letters.processed_by(process)):
            for job_id in "ab":
                await workshop.until(letters, job_id, "completed")
    lines = [line["names"] for line in logged if line["event"].startswith("backoff types unknown")]
    assert lines == [["fibonacci"]]


@pytest.mark.trap(14)
async def test_an_id_without_a_job_is_dropped_and_leaves_nothing(workshop: Any, write: Any) -> None:
    await write("ghost")
    await write("a", name="letters", data="{}", opts="{}")
    await workshop.burst(letters.processed_by(seen))
    assert await workshop.state(letters, "a") == "completed"
    assert await workshop.raw.keys("bull:letters:ghost*") == []


async def test_a_job_that_must_fail_is_failed_without_being_run(workshop: Any, write: Any) -> None:
    ran: list[str] = []

    async def process(job: Job[Letter]) -> None:
        ran.append(job.id)

    reason = "job stalled more than allowable limit"
    await write("a", name="letters", data="{}", opts='{"attempts":5}', defa=reason)
    await workshop.burst(letters.processed_by(process))
    assert ran == []
    assert await workshop.state(letters, "a") == "failed"
    job = await workshop.hash(letters, "a")
    assert (job["failedReason"], job["atm"]) == (reason, "1")
    assert "defa" not in job


async def test_a_job_removed_while_it_ran_leaves_nothing(workshop: Any, write: Any) -> None:
    async def process(job: Job[Letter]) -> None:
        async with workshop.raw.pipeline(transaction=True) as removing:
            removing.delete(f"bull:letters:{job.id}", f"bull:letters:{job.id}:lock")
            removing.lrem("bull:letters:active", 1, job.id)
            await removing.execute()
        job.log("still here")
        job.progress(99)

    await write("x", name="letters", data="{}", opts="{}")
    with capture_logs() as logged:
        await workshop.burst(letters.processed_by(process))
    assert [line["job_id"] for line in logged if line["event"].startswith("job was removed")] == [
        "x"
    ]
    assert await workshop.raw.keys("bull:letters:x*") == []


async def test_stack_traces_keep_their_limit_and_replace_a_text_that_is_no_list(
    workshop: Any, write: Any
) -> None:
    async def process(job: Job[Letter]) -> None:
        raise ValueError(f"attempt {job.attempt}")

    await write("a", data="{}", opts='{"stackTraceLimit":2}', atm="2", stacktrace='["one","two"]')
    await write("b", data="{}", opts="{}", stacktrace="not json")
    await write("c", data="{}", opts='{"stackTraceLimit":0}')
    await workshop.burst(letters.processed_by(process))
    kept = [json.loads((await workshop.hash(letters, job_id))["stacktrace"]) for job_id in "abc"]
    assert [len(traces) for traces in kept] == [2, 1, 0]
    assert kept[0][0] == "two"
    assert kept[0][1].endswith("ValueError: attempt 3\n")
