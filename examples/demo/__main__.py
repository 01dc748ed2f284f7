"""Starts a store, an SMTP server, a database and a worker; enqueues mail and a rollover; prints and checks the rest.

Ends with 0 only if all of it happened. It needs nothing that runs already, takes nothing from the caller's `CORRAL_*`
and `REDIS_URL`, and stops what it started.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import redis.asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

import corral
from corral import sql
from corral.store.embedded import embedded_store
from corral_emails import EmailJob, emails
from corral_usage_period_rollover import UsagePeriodRollover, usage_period_rollover
from examples.demo.metering import CUSTOMER, USED, begin_metering, closed_hours, open_hours
from examples.demo.post_office import GREYLISTED, UNKNOWN, Mail, PostOffice, Refusal, open_post_office

STARTED = time.monotonic()

WORK_SECONDS = 30.0
"""How long everything may take to arrive; it is a second or two on an idle machine."""

STOP_SECONDS = 15.0
"""How long the worker may take to end."""

QUEUES = (emails.name, usage_period_rollover.name)
"""What the worker serves."""

BACKOFF = corral.Fixed(timedelta(milliseconds=300))
"""A queue waits 5 s before a second attempt, unless its producer says otherwise; nobody wants to watch that."""


class Missing(Exception):
    """Something that should have happened did not."""


def say(what: str, *lines: str, at: float | None = None) -> None:
    """Print lines under a word and the seconds since the start, now or when it happened."""
    seconds = f"{(at or time.monotonic()) - STARTED:5.2f} s"
    for number, line in enumerate(lines):
        left = f"{what:>9}  {seconds}" if not number else ""
        print(f"{left:18}  {line}", flush=True)  # noqa: T201  # it is what a demo does


def check(happened: bool, what: str) -> None:
    """Go on only if something happened.

    Raises:
        Missing: It did not.
    """
    if not happened:
        raise Missing(what)


async def wait_until(happened: Callable[[], Awaitable[bool]], what: str, worker: asyncio.subprocess.Process) -> None:
    """Wait until something has happened, as long as the worker lives.

    Raises:
        Missing: It did not happen in `WORK_SECONDS`, or the worker ended before.
    """
    give_up = time.monotonic() + WORK_SECONDS
    while not await happened():
        check(worker.returncode is None, f"{what}: the worker ended with exit code {worker.returncode}")
        check(time.monotonic() < give_up, f"{what}: not within {WORK_SECONDS:.0f} s")
        await asyncio.sleep(0.02)


@asynccontextmanager
async def running_worker(folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """`corral worker` for both queues as a process of its own, its log in a file."""
    command = (sys.executable, "-m", "corral", "worker", *QUEUES)
    with (folder / "worker.log").open("wb") as log:
        worker = await asyncio.create_subprocess_exec(*command, cwd=folder, stdout=log, stderr=log)
    try:
        yield worker
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()


def own_environment(folder: Path, store: str, smtp_port: int) -> None:
    """Settings for this process and the worker: ours, and none of the caller's."""
    for name in list(os.environ):
        if name.startswith("CORRAL_") or name == "REDIS_URL":
            del os.environ[name]
    os.environ |= {
        "REDIS_URL": store,
        "CORRAL_ENV": "development",
        "CORRAL_DATA_DIR": str(folder / "data"),
        "CORRAL_DATABASE_URL": f"sqlite+aiosqlite:///{folder / 'demo.db'}",
        "CORRAL_EMAILS_HOST": "127.0.0.1",
        "CORRAL_EMAILS_PORT": str(smtp_port),
        "CORRAL_EMAILS_SENDER": "Acme <no-reply@acme.example>",
    }
    os.chdir(folder)  # a corral.lock of the caller's is not ours either


async def refuse_what_is_wrong(jobs: corral.JobScheduler, store: redis.asyncio.Redis) -> None:
    """A misspelt queue, a misspelt field and an injected header: refused, and nothing is written."""
    wrong: list[tuple[str, Mapping[str, object]]] = [
        ("emali", {"to": "ada@example.org", "template": "welcome", "variables": {}}),
        ("emails", {"to": "ada@example.org", "tempalte": "welcome", "variables": {}}),
        ("emails", {"to": "ada@example.org\r\nBcc: eve@example.org", "template": "welcome", "variables": {}}),
    ]
    for queue, payload in wrong:
        try:
            await jobs.enqueue(queue, payload)
        except corral.CorralError as refusal:
            say("refused", str(refusal), *([f"hint: {refusal.hint}"] if refusal.hint else []))
        else:
            raise Missing(f"a refusal of {payload} for the queue {queue!r}")
    written = [key async for key in store.scan_iter("bull:*")]
    check(not written, f"nothing in the store after a refusal, not {written}")
    say("", "nothing was written: the store has no key of any queue")


async def enqueue_mail(jobs: corral.JobScheduler) -> dict[str, str]:
    """Good mail in four ways; returns the job's id for each recipient."""
    ids = {}

    async def told(to: str, how: str, enqueued: corral.Enqueued) -> None:
        ids[to] = enqueued.id
        say("enqueued", f"{to:<19} {how}", f"{'':<19} job {enqueued.id}")

    ada = EmailJob(
        to="ada@example.org", template="welcome", variables={"name": "Ada <3", "url": "https://acme.example/?a=1&b=2"}
    )
    await told(ada.to, "by object: enqueue(emails, EmailJob(...))", await jobs.enqueue(emails, ada))
    bob = {
        "to": "bob@example.org",
        "template": "password-reset",
        "variables": {"url": "https://acme.example/r/1", "expires": "noon"},
    }
    await told(
        "bob@example.org",
        'by name: enqueue("emails", {...}, job_id=...)',
        await jobs.enqueue("emails", bob, job_id="reset-bob-1"),
    )
    again = await jobs.enqueue("emails", bob, job_id="reset-bob-1")
    check(not again.created, "a second job of the same id is not made")
    say("", f"{'':<19} the same again: created={again.created}")
    grace = EmailJob(to=GREYLISTED, template="account-deleted", variables={})
    await told(grace.to, "tried again 0.3 s after a failure", await jobs.enqueue(emails, grace, backoff=BACKOFF))
    nobody = EmailJob(to=UNKNOWN, template="account-deleted", variables={})
    await told(nobody.to, "an address that nobody has", await jobs.enqueue(emails, nobody, backoff=BACKOFF))
    return ids


async def create_tables() -> None:
    """`corral db create`: the tables of every plugin, in a SQLite file of the demo's folder."""
    command = (sys.executable, "-m", "corral", "db", "create", "--json")
    creating = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    told, _ = await creating.communicate()
    check(creating.returncode == 0, f"corral db create that ends with 0, not {creating.returncode}")
    made = sorted(table["table"] for table in json.loads(told) if table["made"])
    check(
        {"corral_ledger", "usage_periods"} <= {*made}, f"a ledger and periods among the tables that were made: {made}"
    )
    say("database", f"corral db create made {len(made)} tables in demo.db")


async def enqueue_rollover(jobs: corral.JobScheduler, engine: AsyncEngine) -> str:
    """Usage of three hours that nobody has closed, and the job that does; returns its id."""
    start = await begin_metering(engine)
    say("metered", f"{CUSTOMER:<19} by the hour since {start:%H:%M} UTC: requests {', '.join(map(str, USED))}")
    enqueued = await jobs.enqueue(usage_period_rollover, UsagePeriodRollover())
    say(
        "enqueued",
        f"{CUSTOMER:<19} a rollover by hand, as if three ticks had been missed",
        f"{'':<19} job {enqueued.id}",
    )
    return enqueued.id


async def check_periods(store: redis.asyncio.Redis, engine: AsyncEngine, job_id: str) -> None:
    """Three hours are closed, each with its own total, and the one that runs is open."""
    closed, opened = await closed_hours(engine), await open_hours(engine)
    for hour in closed:
        say("closed", f"{CUSTOMER:<19} the hour from {hour.started_at:%H:%M} UTC: {hour.requests} requests")
    check(tuple(hour.requests for hour in closed) == USED, f"three closed hours with {USED} requests, not {closed}")
    check(len(opened) == 1 and opened[0] > closed[-1].started_at, f"one open hour after those, not {opened}")
    job = await told_by_store(store, usage_period_rollover.name, job_id)
    check("periods" in job.get("returnvalue", ""), f"a job that says how many periods it closed, not {job}")
    say("", f"{'':<19} the hour from {opened[0]:%H:%M} UTC is open")


async def told_by_store(store: redis.asyncio.Redis, queue: str, job_id: str) -> dict[str, str]:
    """What the store keeps of a job: the hash that every BullMQ client and Bull Board read."""
    return {str(name): str(value) for name, value in (await store.hgetall(f"bull:{queue}:{job_id}")).items()}


def check_post_office(office: PostOffice, ids: Mapping[str, str]) -> None:
    """Everybody got one mail, whole, under the id that follows from the job's; and nobody else got any."""
    events: list[Mail | Refusal] = [*office.mails, *office.refusals]
    for event in sorted(events, key=lambda event: event.at):
        if isinstance(event, Mail):
            to = ", ".join(event.to)
            say(
                "arrived",
                f"{to:<19} {event.message['Subject']}",
                f"{'':<19} {event.message['Message-ID']}",
                at=event.at,
            )
        else:
            say("turned", f"{event.to:<19} away: {event.reply}", at=event.at)
    expected = sorted(to for to in ids if to != UNKNOWN)
    check(sorted(to for mail in office.mails for to in mail.to) == expected, f"one mail each for {', '.join(expected)}")
    for mail in office.mails:
        (to,) = mail.to
        check(mail.message["To"] == to, f"the mail for {to} in the name of {to}")
        check(mail.message["Message-ID"] == f"<emails.{ids[to]}@acme.example>", f"a Message-ID made from {to}'s job")
        check(len(mail.body("plain")) > 50 and "<p>" in mail.body("html"), f"text and HTML for {to}")
    welcome = next(mail for mail in office.mails if mail.to == ("ada@example.org",))
    check("Ada <3" in welcome.body("plain"), "the variable in the text, as it is")
    check("Ada &lt;3" in welcome.body("html"), "the variable in the HTML, escaped")
    turned_away = sorted(refusal.to for refusal in office.refusals)
    check(turned_away == [GREYLISTED, UNKNOWN], f"one 451 and one 550, and no attempt after the 550: {turned_away}")


async def check_ledger(engine: AsyncEngine, ids: Mapping[str, str]) -> None:
    """The worker remembers each mail that was taken, so that no later run of its job would send it again."""
    async with engine.begin() as connection:
        taken = [to for to, job in ids.items() if await sql.Ledger.claimed(connection, emails.name, f"emails.{job}")]
    check(taken == [to for to in ids if to != UNKNOWN], f"a ledger of the mails that were taken, not {taken}")
    say("ledger", f"remembers {len(taken)} mails that were taken: if their jobs ran again, none would be sent twice")


async def check_store(store: redis.asyncio.Redis, ids: Mapping[str, str]) -> None:
    """One job needed two attempts, one failed at its first with the server's words, and none is left."""
    retried = await told_by_store(store, emails.name, ids[GREYLISTED])
    check(retried.get("atm") == "2", f"a second attempt after the 451, not {retried.get('atm')} in all")
    say("retried", f"{GREYLISTED:<19} completed on attempt {retried['atm']}")
    failed = await told_by_store(store, emails.name, ids[UNKNOWN])
    reason = failed.get("failedReason", "")
    check(failed.get("atm") == "1" and "550 5.1.1" in reason, f"a failed job that says why, not {reason!r}")
    say("failed", f"{UNKNOWN:<19} for good, on attempt 1: {reason}")
    left = [await store.llen(f"bull:emails:{state}") for state in ("wait", "active")]
    check(left == [0, 0], f"an empty queue, not {left[0]} jobs waiting and {left[1]} active")


async def demo(folder: Path) -> None:
    """The whole story.

    Raises:
        Missing: Something did not happen.
    """
    if story := asyncio.current_task():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, story.cancel)
    async with open_post_office() as office, AsyncExitStack() as opened:
        url = opened.enter_context(embedded_store(folder / "data"))
        say("store", f"embedded Valkey, {url}")
        say("smtp", f"127.0.0.1:{office.port}; answers 451 to {GREYLISTED} once, 550 to {UNKNOWN}")
        own_environment(folder, url, office.port)
        await create_tables()
        engine = sql.create_engine()
        opened.push_async_callback(engine.dispose)
        say("producer", "corral.connect(); it warns that nobody serves the queues, for the worker comes last")
        jobs = await opened.enter_async_context(corral.connect())
        store = await opened.enter_async_context(redis.asyncio.Redis.from_url(url, decode_responses=True))
        await refuse_what_is_wrong(jobs, store)
        ids = await enqueue_mail(jobs)
        rollover = await enqueue_rollover(jobs, engine)
        async with running_worker(folder) as worker:
            say("worker", f"corral worker {' '.join(QUEUES)}, process {worker.pid}")
            await work_is_done(office, len(ids), store, rollover, worker)
            check_post_office(office, ids)
            await check_periods(store, engine, rollover)
            await stop(worker)
        await check_store(store, ids)
        await check_ledger(engine, ids)


async def work_is_done(
    office: PostOffice, mails: int, store: redis.asyncio.Redis, rollover: str, worker: asyncio.subprocess.Process
) -> None:
    """Wait for every mail but one, for both refusals, and for the rollover."""

    async def done() -> bool:
        arrived = (len(office.mails), len(office.refusals)) >= (mails - 1, 2)
        return arrived and "finishedOn" in await told_by_store(store, usage_period_rollover.name, rollover)

    await wait_until(done, "mail for everybody, and the end of the rollover", worker)


async def stop(worker: asyncio.subprocess.Process) -> None:
    """End the worker as an orchestrator does; what it runs, it finishes."""
    asked = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    async with asyncio.timeout(STOP_SECONDS):
        code = await worker.wait()
    check(code == 0, f"a worker that ends with 0, not {code}")
    say("stopped", f"the worker, {time.monotonic() - asked:.2f} s after SIGTERM, exit code 0")


def main() -> int:
    """Run the demo in a folder of its own, gone afterwards; tell what is missing, and the worker's last words."""
    with tempfile.TemporaryDirectory(prefix="corral-demo-") as name:
        log = Path(name) / "worker.log"
        try:
            asyncio.run(demo(Path(name)))
        except (Missing, TimeoutError, corral.CorralError) as error:
            say("MISSING", str(error) or type(error).__name__)
            if log.exists():
                say("log", "of the worker:", *log.read_text("utf-8", "replace").splitlines()[-30:])
            return 1
        except asyncio.CancelledError:
            return 128 + signal.SIGTERM
        except KeyboardInterrupt:
            return 128 + signal.SIGINT
        finally:
            os.chdir(Path(__file__).parent)  # out of the folder that is about to be removed
    say(
        "ok",
        "3 mails arrived, 1 of them on the second attempt; 1 job failed for good; 3 refused before they were jobs;",
        "3 metered hours were closed by one rollover",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
