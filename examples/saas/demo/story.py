"""What happens: all six queues, driven over HTTP, and a check of every effect."""

from __future__ import annotations

import csv
import hashlib
import hmac
import io
import json
import time
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import redis.asyncio
from sqlalchemy import inspect, text

from corral import JobState
from examples.saas.demo.post_office import GREYLISTED, UNKNOWN, Mail
from examples.saas.demo.stage import GRACE_SECONDS, Stage, check

__all__ = ["Member", "all_six", "check_nothing_is_left"]

USED = (120, 80, 45)
"""Ada's requests in each of the hours that are over."""

FORMULA = '=HYPERLINK("https://evil.example","Ada\'s notes")'
"""What a spreadsheet would run."""


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody who has signed up."""

    id: str
    email: str
    headers: dict[str, str]


async def all_six(stage: Stage, *, chaos: bool) -> dict[str, Member]:
    """The whole story, with the worker killed in its middle if that is wanted.

    Returns:
        Who has signed up, by name.

    Raises:
        Missing: Something did not happen.
    """
    stage.screen.heading("people sign up: a mail for each, a webhook for the partner")
    await meet_partner(stage)
    if chaos:
        stage.partner.answers.clear()
    await refuse_what_is_wrong(stage)
    people = await sign_up_everybody(stage)
    await stage.start_worker()
    if chaos:
        await kill_it_in_the_middle(stage)
    await check_mail_and_webhooks(stage, people)
    stage.screen.heading("the payment provider says three times that Ada has paid")
    await bill(stage, people["ada"])
    stage.screen.heading("Ada's last three hours are closed, by a rollover out of turn")
    await meter(stage, people["ada"])
    stage.screen.heading("Ada wants everything that is kept about her")
    await export(stage, people["ada"])
    stage.screen.heading("Bob and Carol want to be forgotten; Bob thinks again")
    await forget(stage, people["bob"], people["carol"])
    return people


async def meet_partner(stage: Stage) -> None:
    """An operator adds the partner's endpoint; its secret is what the partner verifies with."""
    added = (
        await stage.call(
            "POST", "/endpoints", 201, json={"url": stage.partner.url}, headers=stage.admin
        )
    ).json()
    stage.partner.secret = added["secret"]
    stage.screen.print_lines("api", f"POST /endpoints -> {added['id']}")


async def refuse_what_is_wrong(stage: Stage) -> None:
    """An injected header, and a request that fails after it has enqueued: neither sends mail."""
    injected = {"email": "ada@example.org\r\nBcc: eve@example.org", "name": "Eve"}
    await stage.call("POST", "/signup", 422, json=injected)
    stage.screen.print_lines("api", "POST /signup with a header in the address -> 422")
    late = {"email": "eve@example.org", "name": "Eve", "invite": "spent"}
    await stage.call("POST", "/signup", 409, json=late)
    stage.screen.print_lines(
        "api", "POST /signup that fails after its listeners have enqueued -> 409"
    )
    check(await count_rows(stage, "corral_outbox") == 0, "an outbox without a row")
    stage.screen.print_lines("", "rolled back: the outbox is empty, and so is the store")
    check(
        not [key async for key in stage.store.scan_iter("bull:*")],
        "a store without a key of any queue",
    )


async def sign_up_everybody(stage: Stage) -> dict[str, Member]:
    """Five people; the mail server sends one of them away for now, and one for good."""
    people = {}
    for name, email in (
        ("ada", "ada@example.org"),
        ("bob", "bob@example.org"),
        ("carol", "carol@example.org"),
        ("grace", GREYLISTED),
        ("nobody", UNKNOWN),
    ):
        body: dict[str, str] = {"email": email, "name": f"{name.title()} <3"}
        if name == "ada":
            body["member_since"] = (
                datetime.now(UTC) - len(USED) * timedelta(hours=1, minutes=1)
            ).isoformat()
        made = (await stage.call("POST", "/signup", 201, json=body)).json()
        people[name] = Member(made["id"], email, {"Authorization": f"Bearer {made['token']}"})
        stage.screen.print_lines("api", f"POST /signup {email} -> {made['id']}")
    return people


async def kill_it_in_the_middle(stage: Stage) -> None:
    """Kill the worker while the partner has a delivery and has not answered; start another one.

    Mail is let through first. A worker that dies between the mail server's answer and the ledger's
    row, some milliseconds later, sends that mail again: SMTP leaves no way to know.
    """

    async def in_the_middle() -> bool:
        mailed = await count_rows(stage, "corral_ledger") == 3
        refused = (await stage.inspector.counts("emails"))[JobState.FAILED] == 1
        return mailed and refused and stage.partner.reached.is_set()

    await stage.wait_until(in_the_middle, "three mails and the beginning of a delivery")
    await stage.kill_worker()
    stage.screen.print_lines("worker", "kill -9, while the partner was about to answer")
    stage.partner.answers.set()
    await stage.start_worker()


async def check_mail_and_webhooks(stage: Stage, people: dict[str, Member]) -> None:
    """Check that everybody who exists has one mail, whole, and the partner one event for each."""
    expected = {member.email for name, member in people.items() if name != "nobody"}
    events = {f"registered-{member.id}" for member in people.values()}

    async def has_everything() -> bool:
        mailed = {to for mail in stage.office.mails for to in mail.to}
        turned = {refusal.to for refusal in stage.office.refusals}
        return (
            mailed >= expected
            and turned >= {GREYLISTED, UNKNOWN}
            and stage.partner.events.keys() >= events
        )

    await stage.wait_until(
        has_everything, f"a mail for {len(expected)} people, a webhook for each of {len(events)}"
    )
    check(
        stage.partner.events.keys() == events,
        f"one event for each who signed up: {sorted(stage.partner.events)}",
    )
    check(
        {to for mail in stage.office.mails for to in mail.to} == expected,
        "no mail for anybody else",
    )
    for name, member in people.items():
        check(
            name == "nobody" or mail_to(stage, member, "Welcome"), f"one welcome to {member.email}"
        )
    welcome = mail_to(stage, people["ada"], "Welcome")
    check("Ada <3" in welcome.body("plain"), "the variable in the text, as it is")
    check("Ada &lt;3" in welcome.body("html"), "the variable in the HTML, escaped")
    check(
        [refusal.to for refusal in stage.office.refusals].count(UNKNOWN) == 1,
        "no second attempt after the 550",
    )


async def bill(stage: Stage, ada: Member) -> None:
    """One signed event three times, and a forged one: one payment."""
    invoice = {"client_reference_id": ada.id, "customer_email": ada.email, "amount_paid": 4900}
    created = int(time.time())
    event = {
        "id": "evt_ada_1",
        "type": "invoice.paid",
        "created": created,
        "data": {"object": invoice},
    }
    body = json.dumps(event).encode()
    for _ in range(3):
        await stage.call(
            "POST",
            "/webhooks/stripe",
            202,
            content=body,
            headers=sign_body(body, stage.stripe_secret),
        )
    await stage.call(
        "POST",
        "/webhooks/stripe",
        400,
        content=body,
        headers=sign_body(body, "whsec_somebody_elses"),
    )
    stage.screen.print_lines(
        "api", "POST /webhooks/stripe -> 202 three times, and 400 for a forged one"
    )

    async def has_paid_plan() -> bool:
        return bool(
            (await stage.call("GET", "/account", 200, headers=ada.headers)).json()["plan"] == "paid"
        )

    await stage.wait_until(has_paid_plan, "a paid plan for Ada")
    check(await count_rows(stage, "payments") == 1, "one payment for three events")
    stage.screen.print_lines("database", "one payment of 49.00, and a paid plan")


async def meter(stage: Stage, ada: Member) -> None:
    """Requests of the last hours, counted late; a rollover closes each hour with its own total."""
    account = ada.headers
    start = datetime.now(UTC) - len(USED) * timedelta(hours=1)
    for hour, requests in enumerate(USED):
        body = {"requests": requests, "at": (start + timedelta(hours=hour)).isoformat()}
        await stage.call("POST", "/usage", 201, json=body, headers=account)
    await stage.call("POST", "/rollover", 202, headers=stage.admin)
    stage.screen.print_lines(
        "api", f"POST /usage: {', '.join(map(str, USED))} requests; POST /rollover -> 202"
    )

    async def has_closed_hours() -> bool:
        return len((await stage.call("GET", "/usage", 200, headers=account)).json()) >= len(USED)

    await stage.wait_until(has_closed_hours, "three closed hours for Ada")
    hours = (await stage.call("GET", "/usage", 200, headers=account)).json()
    check(
        [hour["requests"] for hour in hours] == list(USED),
        f"hours with {USED} requests, not {hours}",
    )
    check(await count_rows(stage, "invoices") >= len(USED), "an invoice for each closed hour")
    invoiced = ", ".join(
        f"{datetime.fromisoformat(hour['hour']):%H:%M} {hour['requests']}" for hour in hours
    )
    stage.screen.print_lines("database", f"closed and invoiced: {invoiced}")


async def export(stage: Stage, ada: Member) -> None:
    """An archive: announced by mail, fetched by its link, with Ada's data and no other."""
    for note in ("Buy milk", FORMULA):
        await stage.call("POST", "/notes", 201, json={"text": note}, headers=ada.headers)
    made = (
        await stage.call("POST", "/exports", 202, json={"format": "csv"}, headers=ada.headers)
    ).json()
    stage.screen.print_lines("api", f"POST /exports -> {made['id']}")

    async def is_announced() -> bool:
        return has_mail(stage, ada, "ready")

    await stage.wait_until(is_announced, "a mail to Ada about her archive")
    link = mail_to(stage, ada, "ready").link
    archive = zipfile.ZipFile(io.BytesIO((await stage.call("GET", link, 200)).content))
    await stage.call("GET", link.replace("signature=", "signature=x"), 404)
    check(archive.testzip() is None, "an archive that is whole")
    content = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(content["manifest.json"])
    for entry in manifest["entries"]:
        found = hashlib.sha256(content[entry["name"]]).hexdigest()
        check(found == entry["sha256"], f"the digest of {entry['name']} in the manifest")
    notes = [
        row["text"] for row in csv.DictReader(io.StringIO(content["notes.csv"].decode("utf-8-sig")))
    ]
    check(notes == ["Buy milk", f"'{FORMULA}"], f"harmless notes, not {notes}")
    check(b"bob@" not in b"".join(content.values()), "nobody else's data")
    stage.screen.print_lines(
        "archive", ", ".join(f"{entry['name']} ({entry['rows']})" for entry in manifest["entries"])
    )
    stage.screen.print_lines("", f"a formula in a cell is text: {notes[1]}")


async def forget(stage: Stage, bob: Member, carol: Member) -> None:
    """Bob takes his deletion back and stays. Carol is gone, from the tables and from the store."""
    await stage.call("POST", "/notes", 201, json={"text": "my secret"}, headers=carol.headers)
    for member in (bob, carol):
        await stage.call("DELETE", "/account", 202, headers=member.headers)
        stage.screen.print_lines(
            "api", f"DELETE /account of {member.email} -> 202, to be erased after {GRACE_SECONDS} s"
        )
        if member is bob:
            await stage.call("POST", "/account/restore", 200, headers=bob.headers)
            stage.screen.print_lines("api", f"POST /account/restore of {bob.email} -> 200")

    async def is_confirmed() -> bool:
        return has_mail(stage, carol, "deleted")

    await stage.wait_until(is_confirmed, "a mail to Carol that her account is deleted")

    async def has_ended() -> bool:
        counts = await stage.inspector.counts("account-deletions")
        active = (await stage.inspector.counts("emails"))[JobState.ACTIVE]
        return counts[JobState.COMPLETED] >= 2 and active == 0

    await stage.wait_until(has_ended, "the end of both deletions")
    await stage.call("GET", "/account", 401, headers=carol.headers)
    await stage.call("GET", "/account", 200, headers=bob.headers)
    for where, content in {**await read_tables(stage), **await read_store(stage)}.items():
        check(carol.email not in content, f"no trace of {carol.email} in {where}")
    receipt = (await read_tables(stage))["account_deletion_receipts"]
    check("notes" in receipt, f"a receipt of what was erased, not {receipt}")
    stage.screen.print_lines(
        "database",
        f"{carol.email} is in no table and in no job of the store; {bob.email} is still there",
    )


async def check_nothing_is_left(stage: Stage) -> None:
    """Check that nothing waits or runs, and that the one job that failed says why."""
    for queue in (
        "emails",
        "webhooks-outgoing",
        "billing-webhooks-retry",
        "account-deletions",
        "data-exports",
    ):
        counts = await stage.inspector.counts(queue)
        left = {
            state.value: counts[state]
            for state in (
                JobState.WAITING,
                JobState.ACTIVE,
                JobState.DELAYED,
                JobState.PRIORITIZED,
            )
            if counts[state]
        }
        check(not left, f"nothing left to do in {queue}, not {left}")
        check(
            counts[JobState.FAILED] == (queue == "emails"),
            f"no failed job in {queue} but the mail for {UNKNOWN}",
        )
    (failed,) = (await stage.inspector.list("emails", JobState.FAILED)).jobs
    check(
        "550 5.1.1" in str(failed.failed_reason),
        f"a failed job that says why, not {failed.failed_reason}",
    )
    stage.screen.print_lines("store", f"one job has failed: {failed.failed_reason}")


def has_mail(stage: Stage, member: Member, subject: str) -> bool:
    """Whether a member has a mail whose subject has a word."""
    return any(
        mail.to == (member.email,) and subject in mail.message["Subject"]
        for mail in stage.office.mails
    )


def mail_to(stage: Stage, member: Member, subject: str) -> Mail:
    """The mail to a member whose subject has a word."""
    found = [
        mail
        for mail in stage.office.mails
        if mail.to == (member.email,) and subject in mail.message["Subject"]
    ]
    check(len(found) == 1, f"one mail to {member.email}: {subject}; not {len(found)}")
    return found[0]


def sign_body(body: bytes, secret: str) -> dict[str, str]:
    """Sign a body now, and return the header that the payment provider sends."""
    moment = str(int(time.time()))
    digest = hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    return {"Stripe-Signature": f"t={moment},v1={digest}"}


async def count_rows(stage: Stage, table: str) -> int:
    """Count the rows of a table."""
    async with stage.engine.connect() as connection:
        return int(await connection.scalar(text(f"SELECT COUNT(*) FROM {table}")))  # noqa: S608  # names of our own


async def read_tables(stage: Stage) -> dict[str, str]:
    """Read the contents of every table, as text."""
    async with stage.engine.connect() as connection:
        names = await connection.run_sync(lambda own: inspect(own).get_table_names())
        rows: dict[str, str] = {}
        for name in names:
            every = text(f"SELECT * FROM {name}")  # noqa: S608  # the name is the database's own
            rows[name] = str((await connection.execute(every)).all())
        return rows


async def read_store(stage: Stage) -> dict[str, str]:
    """Read the contents of every key of the store, as text."""
    return {
        str(key): str(await read_key(stage.store, key)) async for key in stage.store.scan_iter("*")
    }


async def read_key(store: redis.asyncio.Redis, key: bytes) -> object:
    """Read whatever is under a key."""
    match await store.type(key):
        case b"string":
            return await store.get(key)
        case b"hash":
            return await store.hgetall(key)
        case b"list":
            return await store.lrange(key, 0, -1)
        case b"set":
            return await store.smembers(key)
        case b"zset":
            return await store.zrange(key, 0, -1)
        case b"stream":
            return await store.xrange(key)
        case kind:
            raise ValueError(f"{key!r} is a {kind!r}, which nobody reads")
