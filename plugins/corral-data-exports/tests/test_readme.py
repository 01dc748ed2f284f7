"""The README's hooks, word for word, in a shop that has the tables they speak of."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from sqlalchemy import column, func, select, table

from corral import Exponential, hookimpl
from corral_data_exports import data_exports
from corral_data_exports.processor import export_data

pytestmark = pytest.mark.asyncio

PAGE = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
IN_THE_APPLICATION = {
    "hookimpl": hookimpl,
    "func": func,
    "select": select,
    "posts": table("posts", column("author"), column("title"), column("text")),
    "people": table("people", column("id"), column("email"), column("language")),
}

TABLES = """
CREATE TABLE posts (author INTEGER, title TEXT, text TEXT);
CREATE TABLE people (id TEXT, email TEXT, language TEXT);
INSERT INTO posts VALUES (7, 'First', 'Hello'), (8, 'Not mine', ''), (7, 'Second', 'Again');
INSERT INTO people VALUES ('7', 'grace@example.org', 'en')
"""


def example(hook: str) -> Any:
    (text,) = re.findall(rf"```python\n((?:(?!```).)*async def {hook}\(.*?)```", PAGE, re.DOTALL)
    defined: dict[str, Any] = dict(IN_THE_APPLICATION)
    exec(compile(text, "README.md", "exec"), defined)
    assert isinstance(defined[hook], FunctionType)
    return defined[hook]


async def test_a_participant_and_an_application_that_knows_its_users(shop) -> None:
    await shop.run(TABLES)
    hooks = {name: example(name) for name in ("data_exports_records", "data_exports_recipient")}
    async with shop.exports(**hooks) as exports:
        made = await export_data(shop.job("7"), exports)
    assert json.loads(shop.read(made.key)["posts.json"]) == [
        {"title": "First", "text": "Hello"},
        {"title": "Second", "text": "Again"},
    ]
    (mail,) = shop.jobs.jobs
    assert (mail.payload.to, mail.payload.locale) == ("grace@example.org", "en")


async def test_what_it_says_of_attempts_and_settings_is_so() -> None:
    options = data_exports.options
    assert options == options.retrying_for(timedelta(days=1))
    assert options.backoff == Exponential(
        delay=timedelta(minutes=1), jitter=0.25, max=timedelta(hours=1)
    )
    assert data_exports.concurrency == 2
    assert data_exports.timeout is not None
    assert data_exports.timeout.total_seconds() == 4 * 3600
