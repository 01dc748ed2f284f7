"""Exports on both databases: for whom, how often, who gets the mail, and what a worker checks when it
starts.
"""

from __future__ import annotations

import json
import traceback
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from corral import Fail
from corral.errors import ConfigurationError
from corral_data_exports import Recipient
from corral_data_exports.links import verified
from corral_data_exports.processor import export_data
from corral_data_exports.storage import open_export

pytestmark = pytest.mark.asyncio

SECRET = "a secret of thirty-two bytes, or more"


# whose data


@pytest.mark.parametrize("user_id", ["99", "ada", "1 ", "1_0", "01x", "9" * 30, "3"])
async def test_an_unknown_user_fails_for_good(shop, user_id: str) -> None:
    """User 3 has no address: no mail could be sent."""
    async with shop.exports() as exports:
        with pytest.raises(Fail, match=f"user '{user_id}' is unknown, or has no address"):
            await export_data(shop.job(user_id), exports)
    assert shop.archives() == []
    assert shop.jobs.jobs == []


async def test_the_application_says_who_a_user_is_before_the_table_does(shop) -> None:
    async def data_exports_recipient(user_id: str) -> Recipient | None:
        return Recipient("Ada.Lovelace@example.org", locale="de-AT") if user_id == "1" else None

    async with shop.exports(data_exports_recipient=data_exports_recipient) as exports:
        await export_data(shop.job("1"), exports)
        await export_data(shop.job("2", id="other"), exports)
    assert [(job.payload.to, job.payload.locale) for job in shop.jobs.jobs] == [
        ("Ada.Lovelace@example.org", "de-AT"),
        ("bob@example.org", None),
    ]


async def test_a_hook_that_returns_no_recipient_fails_the_job_and_is_named(shop) -> None:
    async with shop.exports(data_exports_recipient=lambda user_id: "ada@example.org") as exports:
        with pytest.raises(
            TypeError, match="data_exports_recipient returned a str where a Recipient belongs"
        ):
            await export_data(shop.job(), exports)


async def test_an_id_may_be_a_uuid(shop) -> None:
    kind = "TEXT" if shop.url.startswith("sqlite") else "UUID"
    user = "8c9e1b0e-53f0-4f0e-9d1c-2a3d5f6a7b8c"
    await shop.run(
        f"DROP TABLE users; CREATE TABLE users (id {kind} PRIMARY KEY, email TEXT); DROP TABLE visits; "
        f"CREATE TABLE visits (at TEXT, visitor {kind}); INSERT INTO users VALUES ('{user}', 'u@example.org'); "
        f"INSERT INTO visits VALUES ('today', '{user}')"
    )
    async with shop.exports() as exports:
        made = await export_data(shop.job(user), exports)
        with pytest.raises(Fail):
            await export_data(shop.job("no uuid"), exports)
    read = shop.read(made.key)
    assert json.loads(read["visits.json"]) == [{"at": "today"}]
    assert json.loads(read["orders.json"]) == [], "a number is no UUID"


# once


async def test_the_same_export_again_is_one_archive_and_one_mail(shop) -> None:
    asked: list[str] = []

    def data_exports_records(user_id: str) -> None:
        asked.append(user_id)

    async with shop.exports(data_exports_records=data_exports_records) as exports:
        first = await export_data(shop.job(), exports)
        before = (shop.folder / first.key).stat()
        again = shop.job(attempt=2)
        second = await export_data(again, exports)

    assert second == first
    assert asked == ["1"]
    after = (shop.folder / first.key).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert shop.percents(again) == [100]
    (mail,) = shop.jobs.jobs
    assert mail.id == "data-exports.test-job.export-ready" == first.mail


async def test_an_export_id_that_two_users_share_gives_nobody_the_other_s_archive(shop) -> None:
    async with shop.exports() as exports:
        keys = {(await export_data(shop.job(user), exports)).key for user in ("1", "2")}
        keys.add((await export_data(shop.job("1", form="csv"), exports)).key)
    assert shop.archives() == sorted(keys)
    assert len(keys) == 3


async def test_progress_grows_to_a_hundred(shop) -> None:
    await shop.run("DELETE FROM orders")
    rows = [{"id": number} for number in range(5000)]
    await shop.run("INSERT INTO orders VALUES (:id, 1, 'x', 1, true)", rows)
    job = shop.job()
    async with shop.exports() as exports:
        made = await export_data(job, exports)
    assert shop.percents(job) == [0, 9, 19, 29, 39, 49, 59, 69, 79, 89, 98, 99, 100]
    assert [entry["rows"] for entry in shop.manifest(made.key)["entries"]] == [5000, 1]


# the mail to the user


async def test_the_mail_has_a_link_that_opens_the_archive_until_it_expires(shop, setting) -> None:
    setting(LINK_SECONDS="3600")
    async with shop.exports() as exports:
        made = await export_data(shop.job(), exports)
    (mail,) = shop.jobs.jobs
    assert (mail.queue, mail.payload.to, mail.payload.template) == (
        "emails",
        "ada@example.org",
        "export-ready",
    )
    assert mail.payload.locale is None
    until = datetime.strptime(mail.payload.variables["expires"], "%Y-%m-%d %H:%M UTC").replace(
        tzinfo=UTC
    )
    assert timedelta(minutes=58) < until - datetime.now(UTC) <= timedelta(hours=1)

    split = urlsplit(mail.payload.variables["url"])
    assert (
        f"{split.scheme}://{split.netloc}{split.path}" == f"https://app.example/exports/{made.key}"
    )
    given = {name: value for name, (value,) in parse_qs(split.query).items()}
    opened = await open_export(verified(made.key, **given, secret=SECRET))
    assert opened.size == made.size
    assert (
        b"".join([chunk async for chunk in opened.chunks]) == (shop.folder / made.key).read_bytes()
    )


async def test_without_a_link_there_is_an_archive_and_no_mail(shop, setting) -> None:
    setting(BASE_URL="", LINK_SECRET="")
    async with shop.exports() as exports:
        made = await export_data(shop.job(), exports)
    assert made.mail is None
    assert shop.archives() == [made.key]
    assert shop.jobs.jobs == []


async def test_without_a_queue_for_mail_there_is_an_archive(shop) -> None:
    shop.without_mail()
    async with shop.exports() as exports:
        made = await export_data(shop.job(), exports)
    assert made.mail is None
    assert shop.archives() == [made.key]


async def test_an_address_that_mail_refuses_fails_for_good_and_is_not_repeated(shop) -> None:
    async with shop.exports(
        data_exports_recipient=lambda user_id: Recipient("ada at home")
    ) as exports:
        with pytest.raises(
            Fail, match=r"is there, but the queue emails refused the mail's to$"
        ) as refused:
            await export_data(shop.job(), exports)
    assert "at home" not in "".join(traceback.format_exception(refused.value))


# at the start of a worker


def started(shop: Any, **subscribers: Any) -> Any:
    async def start() -> None:
        async with shop.exports(**subscribers):
            pass

    return start()


WRONG = """
[users]
table = "people"
id_column = "id"
email_column = "email"
[tables.orders]
user_column = "customer"
export = ["id", "totals"]
[tables.prices]
user_column = "amount"
export = ["amount"]
"""


async def test_a_file_that_does_not_fit_the_database_refuses_the_start_and_names_all_of_it(
    shop,
) -> None:
    await shop.run("CREATE TABLE prices (amount NUMERIC(10, 2))")
    (shop.folder.parent / "tables.toml").write_text(WRONG, "utf-8")
    with pytest.raises(ConfigurationError) as refused:
        await started(shop)
    assert str(refused.value).splitlines() == [
        "the tables file 'tables.toml' was refused:",
        "  [users]: the database has no table 'people'",
        "  table 'orders': there is no column 'customer'",
        "  table 'orders': there is no column 'totals'",
        "  table 'prices': column 'amount' is NUMERIC(10, 2): not text, a whole number or a UUID",
    ]


async def test_a_worker_starts_while_its_database_is_away(shop, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("CORRAL_DATABASE_URL", f"postgresql+asyncpg://corral@/none?host={tmp_path}")
    await started(shop)


async def test_what_is_not_set_up_is_said_at_the_start_and_what_comes_of_it(
    shop, setting, caplog
) -> None:
    setting(TABLES="", BASE_URL="", LINK_SECRET="")
    await started(shop)
    message = caplog.text
    assert "every export will fail" in message
    assert "archives will hold a manifest alone" in message
    assert "there is no link to send" in message

    caplog.clear()
    setting(TABLES="tables.toml", BASE_URL="https://app.example", LINK_SECRET=SECRET)
    shop.without_mail()
    await started(shop)
    message = caplog.text
    assert "no queue emails is installed" in message
    assert "export will fail" not in message
    assert "manifest" not in message


async def test_where_everything_is_set_up_nothing_is_said(shop, caplog) -> None:
    await started(shop)
    assert caplog.text == ""


async def test_without_anybody_who_knows_users_an_export_fails_for_good(shop, setting) -> None:
    setting(TABLES="")
    async with shop.exports() as exports:
        with pytest.raises(Fail, match="user '1' is unknown"):
            await export_data(shop.job(), exports)
