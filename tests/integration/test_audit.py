"""The audit on the real store.

Every change has an entry, a refused operation has none, and entries hold nothing else.
"""

from __future__ import annotations

import getpass
import json
import os
import pwd
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from corral import Fail, Job, Queue
from corral.errors import ConfigurationError, StoreUnavailable
from corral.inspector import AuditEntry, JobInspector, JobLocked, JobNotFound, WrongState
from corral.inspector.audit import Audit
from corral.inspector.bulk import BATCH
from corral.store.connection import Link
from corral.store.keys import FORMER_AUDIT
from corral.store.scripts import script
from logged import capture_logs

pytestmark = pytest.mark.asyncio

HOUR = timedelta(hours=1)
SECRET = "ada@example.org"
STREAM = "corral:bull:audit"


async def fail(job: Job[Any]) -> None:
    raise Fail(f"no such address {job.payload.text}")


async def say(job: Job[Any]) -> str:
    return job.payload.text


async def entries(inspector: JobInspector, **which: Any) -> list[tuple[Any, ...]]:
    """The entries of the audit, the oldest first, without ids and times."""
    found = await inspector.audit.read(**which)
    return [
        (each.what, each.queue, each.job_id, each.before, each.after, each.count)
        for each in reversed(found)
    ]


async def test_a_change_of_one_job_names_it_and_says_what_it_was(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    jobs, inspector = workshop.producer(letters), inspect()
    await jobs.enqueue(letters, {}, job_id="bad")
    await jobs.enqueue(letters, {}, job_id="urgent", priority=2)
    await workshop.burst(letters.processed_by(fail))
    await jobs.enqueue(letters, {}, job_id="later", delay=HOUR)
    before = datetime.now(UTC)
    await inspector.retry(letters, "bad")
    await inspector.retry(letters, "urgent")
    await inspector.promote(letters, "later")
    await inspector.remove(letters, "bad")
    assert await entries(inspector) == [
        ("retry", "letters", "bad", "failed", "waiting", None),
        ("retry", "letters", "urgent", "failed", "prioritized", None),
        ("promote", "letters", "later", "delayed", "waiting", None),
        ("remove", "letters", "bad", "waiting", None, None),
    ]
    newest = (await inspector.audit.read(limit=1))[0]
    assert timedelta(seconds=-1) < newest.at - before < timedelta(seconds=15)


async def test_a_change_of_a_queue_says_which_settings_changed(
    letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    inspector = inspect()
    await inspector.pause(letters)
    await inspector.resume(letters)
    await inspector.set_concurrency(letters, 5)
    await inspector.set_rate_limit(letters, 10, timedelta(seconds=2))
    await inspector.set_rate_limit(letters, None)
    assert await entries(inspector) == [
        ("pause", "letters", None, {"paused": False}, {"paused": True}, None),
        ("resume", "letters", None, {"paused": True}, {"paused": False}, None),
        ("set_concurrency", "letters", None, {"concurrency": None}, {"concurrency": 5}, None),
        (
            "set_rate_limit",
            "letters",
            None,
            {"max": None, "duration": None},
            {"max": 10, "duration": 2000},
            None,
        ),
        (
            "set_rate_limit",
            "letters",
            None,
            {"max": 10, "duration": 2000},
            {"max": None, "duration": None},
            None,
        ),
    ]


async def test_what_was_refused_or_changed_nothing_has_no_entry(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    inspector = inspect()
    locked: list[type[Exception]] = []

    async def remove_itself(job: Job[Any]) -> None:
        with pytest.raises(JobLocked) as caught:
            await inspector.remove(letters, job.id)
        locked.append(caught.type)

    await workshop.producer(letters).enqueue(letters, {}, job_id="mine")
    await workshop.burst(letters.processed_by(remove_itself))
    assert locked == [JobLocked]
    for refused, why in (
        (inspector.remove, JobNotFound),
        (inspector.retry, JobNotFound),
        (inspector.promote, JobNotFound),
    ):
        with pytest.raises(why):
            await refused(letters, "nobody")
    with pytest.raises(WrongState):
        await inspector.promote(letters, "mine")
    with pytest.raises(ConfigurationError):
        await inspector.set_concurrency(letters, 0)
    assert not await inspector.resume(letters)
    await inspector.set_concurrency(letters, None)
    assert await inspector.retry_all_failed(letters) == 0
    assert await inspector.promote_all(letters) == 0
    assert await inspector.drain(letters, delayed=True) == 0
    assert await inspector.clean(letters, "failed", timedelta(0)) == 0
    assert await inspector.scrub(letters, "nobody") == 0
    assert await inspector.scrub_events(letters, lambda _: False) == 0
    assert await inspector.audit.read() == []


async def test_an_operation_on_many_has_one_entry_over_all_of_its_batches(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    jobs, inspector = workshop.producer(letters), inspect()
    count = BATCH + 20
    await jobs.enqueue_many(letters, [{}] * count, attempts=1)
    await workshop.burst(letters.processed_by(fail))
    assert await inspector.retry_all_failed(letters) == count
    assert await inspector.drain(letters) == count
    await jobs.enqueue_many(letters, [{}] * count, delay=HOUR)
    assert await inspector.promote_all(letters) == count
    assert await inspector.clean(letters, "waiting", timedelta(0), limit=BATCH + 10) == BATCH + 10
    assert await entries(inspector) == [
        ("retry_all_failed", "letters", None, "failed", "waiting", count),
        ("drain", "letters", None, None, None, count),
        ("promote_all", "letters", None, "delayed", "waiting", count),
        ("clean", "letters", None, "waiting", None, BATCH + 10),
    ]


async def test_an_operation_that_ends_half_way_has_an_entry_that_counts_what_was_done(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    inspector = inspect()
    await workshop.producer(letters).enqueue_many(letters, [{}] * (BATCH + 20))

    def stop(_looked: int, _total: int) -> None:
        raise KeyboardInterrupt

    with capture_logs() as logged, pytest.raises(KeyboardInterrupt):
        await inspector.drain(letters, on_progress=stop)
    assert (await inspector.counts(letters))["waiting"] == 20
    assert await entries(inspector) == [("drain", "letters", None, None, None, BATCH)]
    assert [(line["what"], line["count"]) for line in logged] == [("drain", BATCH)]


async def test_nothing_of_what_a_job_carries_is_kept(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    """The audit holds nothing that `scrub` removes from jobs, nor the text that it searched for."""
    jobs, inspector = workshop.producer(letters), inspect()
    await jobs.enqueue(letters, {"text": SECRET}, job_id="bad", attempts=1)
    await workshop.burst(letters.processed_by(fail))
    await inspector.retry(letters, "bad")
    await workshop.burst(letters.processed_by(fail))
    await inspector.retry_refused(letters)
    assert await inspector.scrub(letters, SECRET) == 1
    await jobs.enqueue(letters, {"text": SECRET})
    await workshop.burst(letters.processed_by(say))
    assert await inspector.scrub_events(letters, lambda text: SECRET in text) == 1
    with capture_logs() as logged:
        assert await inspector.scrub(letters, lambda job: SECRET in json.dumps(job.data)) == 1
    assert await entries(inspector) == [
        ("retry", "letters", "bad", "failed", "waiting", None),
        ("scrub", "letters", None, None, None, 1),
        ("scrub_events", "letters", None, None, None, 1),
        ("scrub", "letters", None, None, None, 1),
    ]
    assert SECRET not in json.dumps(await workshop.raw.xrange(STREAM))
    assert SECRET not in json.dumps(logged)
    assert [line["what"] for line in logged] == ["scrub"]


async def test_a_scrub_that_finds_events_only_is_recorded_too(
    workshop: Any, letters: Queue[Any], inspect: Callable[..., JobInspector]
) -> None:
    inspector = inspect()
    await workshop.producer(letters).enqueue(letters, {"text": SECRET}, job_id="gone")
    await workshop.burst(letters.processed_by(say))
    await inspector.remove(letters, "gone")
    assert await inspector.scrub(letters, SECRET) == 0
    assert await entries(inspector, limit=1) == [("scrub", "letters", None, None, None, 0)]


class TestWho:
    async def test_each_change_is_recorded_with_the_name_it_was_made_in(
        self, letters: Queue[Any], inspect: Callable[..., JobInspector]
    ) -> None:
        inspector = inspect()
        await inspector.acting_as("ada").pause(letters)
        await inspector.resume(letters)
        await inspector.acting_as("x" * 1000).pause(letters)
        await inspector.acting_as("").resume(letters)
        process = f"process:{pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()}"
        assert [each.who for each in await inspector.audit.read()] == [
            "nobody",
            "x" * 200,
            process,
            "ada",
        ]

    async def test_a_process_is_named_by_its_account_whatever_the_environment_says(
        self,
        monkeypatch: pytest.MonkeyPatch,
        letters: Queue[Any],
        inspect: Callable[..., JobInspector],
    ) -> None:
        monkeypatch.setenv("LOGNAME", "somebody-else")
        assert getpass.getuser() == "somebody-else"
        await inspect().pause(letters)
        assert "somebody-else" not in (await inspect().audit.read())[0].who
        monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)  # a user id without an account
        await inspect().resume(letters)
        assert (await inspect().audit.read())[
            0
        ].who == f"process:{os.getuid()}@{socket.gethostname()}"


class TestWrittenByOthers:
    """Entries that no inspector writes: logins, and jobs that the board adds."""

    async def test_it_is_read_as_it_was_written(self, inspect: Callable[..., JobInspector]) -> None:
        audit = inspect().audit
        await audit.write("ada", "login")
        await audit.write(
            "ada", "edit", queue="letters", job_id="one", before=["text"], after=["text"], count=0
        )
        edit, login = await audit.read()
        assert login == AuditEntry(login.id, login.at, "ada", "login", None, None, None, None, None)
        assert edit == AuditEntry(
            edit.id, edit.at, "ada", "edit", "letters", "one", ["text"], ["text"], 0
        )

    async def test_pages_follow_each_other_into_the_former_stream_and_other_prefixes_are_left_out(
        self, workshop: Any, inspect: Callable[..., JobInspector]
    ) -> None:
        audit, link = inspect().audit, Link(workshop.url)
        for number in range(7):
            if number < 4:
                await workshop.raw.xadd(
                    FORMER_AUDIT, {"prefix": "bull", "who": "ada", "what": f"change-{number}"}
                )
            else:
                await audit.write("ada", f"change-{number}")
            for _ in range(400):
                await workshop.raw.xadd(
                    FORMER_AUDIT, {"prefix": "other", "who": "eve", "what": "drain"}
                )
        first = await audit.read(limit=3)
        second = await audit.read(limit=3, before_id=first[-1].id)
        third = await audit.read(limit=3, before_id=second[-1].id)
        names = [[each.what for each in page] for page in (first, second, third)]
        assert names == [
            ["change-6", "change-5", "change-4"],
            ["change-3", "change-2", "change-1"],
            ["change-0"],
        ]
        assert await audit.read(limit=3, before_id=third[-1].id) == []
        assert len(await Audit(link, "other").read(limit=500)) == 500
        await link.close()

    @pytest.mark.parametrize(
        "which", [{"limit": 0}, {"limit": 501}, {"before_id": "no-id"}, {"before_id": "1-1\n"}]
    )
    async def test_a_page_that_cannot_be_is_refused(
        self, inspect: Callable[..., JobInspector], which: dict[str, Any]
    ) -> None:
        with pytest.raises(ConfigurationError):
            await inspect().audit.read(**which)

    async def test_the_stream_is_capped(
        self, workshop: Any, letters: Queue[Any], inspect: Any
    ) -> None:
        inspector = inspect()
        async with workshop.raw.pipeline() as many:
            for _ in range(11_000):
                many.xadd(STREAM, {"prefix": "bull", "who": "ada", "what": "login"})
            await many.execute()
        await inspector.pause(letters)
        assert 10_000 <= await workshop.raw.xlen(STREAM) < 10_200
        await inspector.audit.write("ada", "login")
        assert 10_000 <= await workshop.raw.xlen(STREAM) < 10_200

    async def test_a_former_stream_that_is_damaged_hides_nothing(
        self, workshop: Any, inspect: Any
    ) -> None:
        await workshop.raw.set(FORMER_AUDIT, "of somebody else")
        await inspect().audit.write("ada", "login")
        assert [each.what for each in await inspect().audit.read()] == ["login"]

    async def test_an_entry_that_somebody_damaged_is_shown(
        self, workshop: Any, inspect: Any
    ) -> None:
        await workshop.raw.xadd(
            STREAM, {"prefix": "bull", "before": "{", "count": "many", "more": "x"}
        )
        (found,) = await inspect().audit.read()
        assert (found.who, found.what, found.before, found.count) == ("", "", "{", None)


class TestLog:
    async def test_every_entry_is_a_line_of_the_log(
        self, letters: Queue[Any], inspect: Any
    ) -> None:
        inspector = inspect().acting_as("ada")
        with capture_logs() as logged:
            await inspector.pause(letters)
            assert not await inspector.pause(letters)
            await inspector.audit.write("eve", "login refused")
        assert logged == [
            {
                "event": "audit",
                "log_level": "info",
                "who": "ada",
                "what": "pause",
                "queue": "letters",
                "before": {"paused": False},
                "after": {"paused": True},
            },
            {"event": "audit", "log_level": "info", "who": "eve", "what": "login refused"},
        ]

    async def test_a_change_whose_answer_was_lost_is_recorded_as_unknown(
        self, monkeypatch: pytest.MonkeyPatch, letters: Queue[Any], inspect: Any
    ) -> None:
        """The stream shows it: the entry is written together with the change."""
        inspector = inspect()
        call, pausing = Link.call, script("pause", "corral.inspector")

        async def lose_the_reply(link: Link, *command: Any, **how: Any) -> Any:
            reply = await call(link, *command, **how)
            if not {pausing.source, pausing.digest}.intersection(
                command
            ):  # this call is made before anything is changed
                return reply
            raise StoreUnavailable("the store is unavailable", outcome="unknown")

        await inspector.resume(letters)  # loads nothing that the next call needs
        monkeypatch.setattr(Link, "call", lose_the_reply)
        with capture_logs() as logged, pytest.raises(StoreUnavailable):
            await inspector.pause(letters)
        monkeypatch.undo()
        assert [(line["what"], line["queue"], line["outcome"]) for line in logged] == [
            ("pause", "letters", "unknown")
        ]
        assert await inspector.is_paused(letters)
        assert [each.what for each in await inspector.audit.read()] == ["pause"]

    async def test_a_change_that_was_not_sent_is_refused_and_not_recorded(
        self, monkeypatch: pytest.MonkeyPatch, letters: Queue[Any], inspect: Any
    ) -> None:
        inspector = inspect()

        async def lose(_link: Link, *_command: Any, **_how: Any) -> Any:
            raise StoreUnavailable("the store is unavailable", outcome="unknown")

        monkeypatch.setattr(Link, "call", lose)
        with capture_logs() as logged, pytest.raises(StoreUnavailable) as failed:
            await inspector.pause(letters)
        monkeypatch.undo()
        assert (failed.value.outcome, logged) == ("refused", [])
        assert not await inspector.is_paused(letters)


class TestProcesses:
    """The names under which Corral's own processes record their changes."""

    async def audited(self, command: Any, *arguments: str) -> Any:
        """The output of `corral audit --json` after a command that must succeed."""
        ran = command(*arguments)
        assert ran.wait() == 0, ran.said
        listing = command("audit", "--json")
        assert listing.wait() == 0, listing.said
        return json.loads(listing.result), ran

    async def test_a_command_is_recorded_as_the_account_that_ran_it(self, command: Any) -> None:
        """The log line goes to stderr, so that it does not mix with the command's result."""
        (entry,), ran = await self.audited(command, "pause", "acme-threads", "--json")
        who = f"cli:{pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()}"
        assert (entry["who"], entry["what"], entry["queue"], entry["job_id"]) == (
            who,
            "pause",
            "acme-threads",
            None,
        )
        assert (entry["before"], entry["after"], entry["count"]) == (
            {"paused": False},
            {"paused": True},
            None,
        )
        assert datetime.fromisoformat(entry["at"]).tzinfo is not None
        assert json.loads(ran.result) == {"queue": "acme-threads", "paused": True, "changed": True}
        line = json.loads(ran.said)
        assert (line["logger"], line["event"], line["who"], line["what"]) == (
            "corral.audit",
            "audit",
            who,
            "pause",
        )
        assert command("resume", "acme-threads", CORRAL_LOG_LEVEL="WARNING").wait() == 0
        shown = command("audit")
        assert shown.wait() == 0
        rows = [line.split() for line in shown.result.splitlines()]
        assert rows[0] == ["WHEN", "WHO", "WHAT", "QUEUE", "JOB", "CHANGED"]
        assert [row[3] for row in rows[1:]] == ["resume", "pause"]
        assert shown.result.rstrip().endswith("paused false -> paused true")

    async def test_a_processor_is_recorded_as_its_worker(self, command: Any) -> None:
        assert command("enqueue", "acme-letters", '{"text": "pause acme-threads"}').wait() == 0
        (entry, added), ran = await self.audited(command, "worker", "acme-letters", "--burst")
        lines = [json.loads(line) for line in ran.said.splitlines()]
        (worker,) = {line["worker"] for line in lines if "worker" in line}
        assert (entry["who"], entry["what"], entry["queue"]) == (
            f"worker:{worker}",
            "pause",
            "acme-threads",
        )
        assert (added["what"], added["queue"]) == ("add", "acme-letters")
        assert added["who"].startswith("cli:"), "a user who enqueues by hand is recorded, too"
        assert added["job_id"]

    async def test_nothing_changed_yet(self, command: Any) -> None:
        asked = command("audit")
        assert (asked.wait(), asked.result, asked.said) == (0, "", "no changes are recorded\n")
