"""An id that names another key of the queue is not a job: nothing is shown or changed (S-21)."""

from __future__ import annotations

from datetime import timedelta

import pytest
import redis

from board.asking import HERE, PAGE, Browser, changed, dumped
from corral.board import Board, Identity, Role
from corral.board.request_guard import csrf_token

ME = Identity("admin", Role.ADMIN)
KEYS = [
    "meta",
    "events",
    "id",
    "wait",
    "active",
    "delayed",
    "failed",
    "completed",
    "prioritized",
    "marker",
    "pc",
    "repeat",
]
IDS = [
    *KEYS,
    "one:logs",
    "one:lock",
    "repeat:daily",
    "de:x",
    "../one",
    "one/../one",
    " one",
    "one ",
    "ONE",
    "*",
    "",
    "\x00",
]


@pytest.mark.asyncio
async def test_no_key_of_the_queue_is_a_job(board: Board, store: redis.Redis) -> None:
    context = await board._contexts.open_context(ME)
    await context.jobs.enqueue("letters", {}, job_id="one")
    await context.jobs.enqueue("letters", {}, job_id="later", delay=timedelta(hours=1))
    await context.jobs.enqueue("letters", {}, job_id="soon", priority=3)
    await context.inspector.pause("letters")
    store.rpush("bull:letters:one:logs", "a line")
    browser = Browser(board, "admin")
    browser.cookies["corral_board_form"] = "secret"
    token = csrf_token("secret", ME)
    before = dumped(store)
    for job_id in IDS:
        path = "/queues/letters/jobs/" + "".join(f"%{byte:02x}" for byte in job_id.encode())
        for page in ("", "/logs", "/edit"):
            got = await browser.ask("GET", f"{path}{page}", headers=PAGE)
            assert got.status in {400, 404, 409}, (job_id, page, got.status)
        for verb in ("retry", "promote", "remove", "edit"):
            fields = {"confirmed": "on", "data.to": "x", "data.pages": "1", "csrf": token}
            got = await browser.ask("POST", f"{path}/{verb}", headers={**PAGE, **HERE}, body=fields)
            assert got.status in {400, 404, 405, 409, 422}, (job_id, verb, got.status)
        for verb in ("retry", "promote", "remove"):
            got = await browser.send(f"/queues/letters/{verb}", token, confirmed="on", id=job_id)
            assert got.status < 500, (job_id, verb, got.text)
        assert changed(before, dumped(store)) == [], job_id
    await context.inspector.resume("letters")
    store.delete("bull:letters:one:logs")
