"""What lists of jobs and a job's page say about a job, and what its edit form does."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import html5lib
import pytest
import redis

from board.asking import HERE, Browser, form_in
from corral.board import Board, Identity, Role

ME = Identity("admin", Role.ADMIN)
KEY = "bull:letters:one"
JSON = {"content-type": "application/json", "accept": "application/json", **HERE}

pytestmark = pytest.mark.asyncio


def tree(page: str) -> Any:
    return html5lib.parse(page, namespaceHTMLElements=False)


def put(store: redis.Redis, data: str, state: str = "failed") -> None:
    """Store a job, as another client may have written it."""
    fields = {"name": "letters", "data": data, "opts": '{"attempts":3}', "timestamp": 1}
    store.hset(KEY, mapping={**fields, "failedReason": "no such street", "atm": 1})
    store.zadd(f"bull:letters:{state}", {"one": 2 << 45})


@pytest.mark.parametrize("address", ["?state=failed", "?state=delayed", "?q=ada@", None])
async def test_a_row_says_what_a_job_that_has_failed_was_about_and_no_secret(
    board: Board, store: redis.Redis, address: str | None
) -> None:
    put(
        store,
        json.dumps({"to": "ada@example.org", "pin": "4711-0815"}),
        "delayed" if address == "?state=delayed" else "failed",
    )
    target = f"/queues/letters{address}" if address else "/search?q=ada@"
    page = (await Browser(board, "viewer").see(target)).text
    rows = ["".join(row.itertext()) for row in tree(page).iter("tr")]
    (row,) = [row for row in rows if "no such street" in row]
    assert '"to": "ada@example.org"' in row
    assert "4711" not in page


async def test_every_time_on_a_job_s_page_becomes_one_of_the_browser_s_zone(
    board: Board, store: redis.Redis
) -> None:
    context = await board._contexts.open_context(ME)
    await context.jobs.enqueue("letters", {}, job_id="later", delay=timedelta(days=3))
    page = tree((await Browser(board, "viewer").see("/queues/letters/jobs/later")).text)
    timeline = next(each for each in page.iter("ol") if each.get("class") == "timeline")
    times = list(timeline.iter("time"))
    due = (await context.inspector.get("letters", "later")).due_at
    assert any(each.get("datetime") == due.isoformat(timespec="milliseconds") for each in times)
    for each in times:
        each.text = ""
    assert "UTC" not in "".join(timeline.itertext())


async def test_a_payload_that_is_no_object_is_only_replaced_if_something_is_typed(
    board: Board, store: redis.Redis
) -> None:
    for broken in ("[1]", '{"to": ', "null", '"text"'):
        put(store, broken)
        browser = Browser(board, "admin")
        page = (await browser.see("/queues/letters/jobs/one/edit")).text
        assert "what is typed here replaces all of it" in page
        form = form_in(page)
        token = form.fields.pop("csrf")
        got = await browser.send(form.target, token, **form.sent)
        assert "notice=unchanged" in (got.header("location") or "")
        assert store.hget(KEY, "data").decode() == broken
        got = await browser.send(form.target, token, **form.sent | {"data.to": "grace"})
        assert "notice=edited" in (got.header("location") or "")
        assert store.hget(KEY, "data") == b'{"to":"grace"}'


async def test_a_program_changes_the_fields_that_it_sends(board: Board, store: redis.Redis) -> None:
    put(store, '{"to" : "ada", "pages": 1.0, "pin": "4711-0815", "newer": null}')
    browser = Browser(board, "admin")

    async def send(**fields: Any) -> tuple[int, Any]:
        token = await browser.token()
        body = json.dumps({"csrf": token, **fields}).encode()
        got = await browser.ask("POST", "/queues/letters/jobs/one/edit", headers=JSON, body=body)
        return got.status, json.loads(got.text)

    assert await send() == (200, {"done": "unchanged", "id": "one"})
    assert await send(**{"data.to": "ada", "data.pin": ""}) == (
        200,
        {"done": "unchanged", "id": "one"},
    )
    assert await send(**{"data.to": "eve"}) == (200, {"done": "edited", "id": "one"})
    stored = '{"to" : "eve", "pages": 1.0, "pin": "4711-0815", "newer": null}'
    assert store.hget(KEY, "data").decode() == stored
    status, answer = await send(**{"data.pages": 0, "data.to": "bob"})
    errors = {field["name"]: field["error"] for field in answer["fields"] if field["error"]}
    assert (status, list(errors)) == (422, ["pages"])
    assert store.hget(KEY, "data").decode() == stored
    assert "4711" not in json.dumps(answer)


async def test_an_edit_that_comes_too_late_says_so_and_keeps_what_was_typed(
    board: Board, store: redis.Redis
) -> None:
    put(store, '{"to":"ada","text":"x"}')
    browser = Browser(board, "admin")
    form = form_in((await browser.see("/queues/letters/jobs/one/edit")).text)
    store.hset(KEY, "data", '{"to":"grace","text":"y"}')
    token = form.fields.pop("csrf")
    got = await browser.send(form.target, token, **form.sent | {"data.to": "eve"})
    assert got.status == 422
    assert "It is now: grace" in got.text
    again = form_in(got.text)
    assert (again.fields["data.to"], again.fields["data.text"]) == ("eve", "y")
    assert store.hget(KEY, "data") == b'{"to":"grace","text":"y"}'
    again.fields.pop("csrf")
    got = await browser.send(form.target, token, **again.sent)
    assert got.status == 303
    assert store.hget(KEY, "data") == b'{"to":"eve","text":"y"}'

    store.hset(KEY, "data", '{"to":"eve","text":"z"}')
    got = await browser.send(form.target, token, **again.sent | {"data.to": "bob"})
    assert got.status == 422, "the form that was sent before had shown another text"
    assert store.hget(KEY, "data") == b'{"to":"eve","text":"z"}'
