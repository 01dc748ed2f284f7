"""What a form does not change keeps its bytes, for generated models with fields of every kind."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import redis

from board.asking import Browser, Form, Host, form_in
from board.generated_forms import (
    JOB,
    MODULE,
    GeneratedQueue,
    Member,
    changed_value,
    generated_queues,
    install_queues,
    is_same_text,
    put_job,
    type_value,
)
from chaos.fixtures import is_at_length
from corral import PayloadRefused, Queue
from corral.board import Board

MODELS = 1000 if is_at_length() else 320
CORRECTED = 8 if is_at_length() else 2
"""Fields of each model that are corrected, one after the other."""


@pytest.fixture(scope="module")
def queues(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[GeneratedQueue]]:
    """The generated queues, and the folder in which their plugin is installed."""
    queues = generated_queues(MODELS)
    return install_queues(tmp_path_factory.mktemp("generated"), queues), queues


@pytest_asyncio.fixture
async def browser(
    queues: tuple[Path, list[GeneratedQueue]],
    on: str,
    host: Host,
    store: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Browser]:
    """An admin's browser; each queue has one job, with the payload that a client has stored."""
    monkeypatch.syspath_prepend(str(queues[0]))
    for queue in queues[1]:
        store_job(store, queue)
    board = Board(authorize=host.who)
    yield Browser(board, "admin")
    await board.close()
    sys.modules.pop(MODULE, None)


def store_job(store: redis.Redis, queue: GeneratedQueue) -> None:
    for command in put_job(queue):
        store.execute_command(*command)


def stored(store: redis.Redis, queue: GeneratedQueue) -> str:
    return store.hget(f"bull:{queue.name}:{JOB}", "data").decode()


async def opened(browser: Browser, queue: GeneratedQueue) -> Form:
    return form_in((await browser.see(f"/queues/{queue.name}/jobs/{JOB}/edit")).text)


def model(queue: GeneratedQueue) -> Queue[Any]:
    modules = {each.name: each for each in sys.modules[MODULE].queues}
    return modules[queue.name]


def wrong_fields(queue: GeneratedQueue, text: str) -> set[str]:
    """The fields of a payload that a worker refuses."""
    fields = {name: name for name in queue.kinds}
    fields |= {json.loads(each.name): each.field for each in queue.members if each.field}
    return {
        next(fields[name] for name in fields if path == name or path.startswith(f"{name}."))
        for path, _ in problems(queue, text)
    }


def problems(queue: GeneratedQueue, text: str) -> tuple[tuple[str, str], ...]:
    """What a worker finds wrong with a payload."""
    try:
        model(queue).parsed(text.encode())
    except PayloadRefused as refused:
        return refused.errors
    return ()


@pytest.mark.asyncio
async def test_a_form_that_is_sent_back_as_it_was_shown_changes_no_byte(
    browser: Browser, store: redis.Redis, queues: tuple[Path, list[GeneratedQueue]]
) -> None:
    counts: Counter[str] = Counter()
    for queue in queues[1]:
        form = await opened(browser, queue)
        names = {name.partition(".")[2] for name in form.fields if name.startswith("data.")}
        assert names == set(queue.kinds)
        for name, control in form.controls.items():
            one_line = control.tag == "input" and name.startswith("data.")
            assert not one_line or not set(control.get("value")) & {*"\n\r\t\x0b\x7f"}, (
                queue.name,
                name,
            )
        got = await browser.send(form.target, form.sent["csrf"], **without_token(form))
        assert got.status == 303, (queue.name, got.text)
        assert "notice=unchanged" in got.header("location"), queue.name
        counts["models"] += 1
        counts["fields"] += len(names)
        counts["refused by their models"] += bool(problems(queue, queue.stored))
        counts["differences"] += stored(store, queue) != queue.stored
    print(", ".join(f"{number} {name}" for name, number in counts.items()))
    assert counts["differences"] == 0
    assert counts["models"] >= 300
    assert counts["refused by their models"] > 50
    assert not store.exists("corral:bull:audit"), "nothing was done"


def without_token(form: Form) -> dict[str, str]:
    return {name: value for name, value in form.sent.items() if name != "csrf"}


@pytest.mark.asyncio
async def test_a_corrected_field_changes_its_own_bytes_and_no_others(
    browser: Browser, store: redis.Redis, queues: tuple[Path, list[GeneratedQueue]]
) -> None:
    counts: Counter[str] = Counter()
    for number, queue in enumerate(queues[1]):
        chance = random.Random(number)
        chosen = chance.sample([*queue.kinds], min(CORRECTED, len(queue.kinds)))
        for name in chosen:
            store_job(store, queue)
            form = await opened(browser, queue)
            was = next((each for each in queue.members if each.field == name), None)
            new = chance.choice(queue.kinds[name].values)
            if not type_value(form, name, json.loads(new)):
                continue
            got = await browser.send(form.target, form.sent["csrf"], **without_token(form))
            before, after = queue.stored, stored(store, queue)
            counts["corrections"] += 1
            if got.status == 422:
                others = [each for each in queue.members if each is not was]
                tried = queue.text([*others, Member(json.dumps(name), new)])
                blamed = {each for each in queue.kinds if is_wrong(got.text, each)}
                assert after == before
                assert blamed == (wrong_fields(queue, tried) or {name}), (queue.name, name)
                counts["refused"] += 1
                continue
            assert got.status == 303, (queue.name, name, got.text)
            if "notice=unchanged" in got.header("location"):
                assert after == before
                counts["the same"] += 1
                continue
            assert not problems(queue, after), (queue.name, name)
            value = changed_value(queue, was, after)
            assert is_same_text(value, json.loads(new)), (queue.name, name, new, after)
            counts["written"] += 1
            counts["absent before"] += was is None
    print(", ".join(f"{number} {name}" for name, number in counts.items()))
    assert counts["written"] > MODELS / 2
    assert counts["absent before"] > MODELS / 10
    assert counts["refused"] > MODELS / 10


def is_wrong(page: str, name: str) -> bool:
    control = form_in(page).controls.get(f"data.{name}")
    return control is not None and control.get("aria-invalid") == "true"
