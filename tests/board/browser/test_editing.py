"""In a real browser, an edit changes the bytes of what was changed in the form, and no others."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, expect

from board.asking import DIGEST, form_in
from board.browser.site import Site, served
from board.generated_forms import (
    JOB,
    MODULE,
    GeneratedQueue,
    changed_value,
    generated_queues,
    install_queues,
    is_same_text,
    put_job,
    type_value,
)
from chaos.fixtures import is_at_length

pytestmark = pytest.mark.asyncio(loop_scope="session")

WaitUntil = Callable[..., Awaitable[None]]
MODELS = 45 if is_at_length() else 30
"""45 have every kind of field."""
DAY = timedelta(days=1)


@pytest.fixture
def queues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[GeneratedQueue]:
    """The generated queues; their plugin is on the path, here and in processes."""
    made = generated_queues(MODELS)
    folder = tmp_path / "plugin"
    folder.mkdir()
    install_queues(folder, made)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return made


@pytest_asyncio.fixture(loop_scope="session")
async def generated_site(
    store_url: str,
    tmp_path: Path,
    browser: Browser,
    wait_until: WaitUntil,
    monkeypatch: pytest.MonkeyPatch,
    queues: list[GeneratedQueue],
) -> AsyncIterator[Site]:
    """The board over the generated queues, each with one job."""
    monkeypatch.setenv("REDIS_URL", store_url)
    password = {"CORRAL_BOARD_PASSWORD": str(DIGEST)}
    async with served(store_url, tmp_path, browser, wait_until, **password) as running:
        for queue in queues:
            for command in put_job(queue):
                await running.raw.execute_command(*command)
        yield running
        for window in browser.contexts:
            await window.close()
    sys.modules.pop(MODULE, None)


def mail(name: str) -> dict[str, Any]:
    variables = {"name": name, "url": "https://app.example"}
    return {"to": "ada@example.com", "template": "welcome", "variables": variables}


def field(page: Page, name: str) -> Locator:
    return page.locator(f'[id="data.{name}"]')


async def stored(site: Site, queue: GeneratedQueue) -> str:
    return str(await site.raw.hget(f"bull:{queue.name}:{JOB}", "data"))


async def replace_payload(page: Page) -> str:
    """Press the button, and return what the next page says was done; empty if it was refused."""
    async with page.expect_navigation():
        await page.get_by_role("button", name="Replace the payload").click()
    notice = page.get_by_role("status")
    return await notice.inner_text() if "notice=" in page.url else ""


async def test_a_form_keeps_every_byte_that_is_not_changed_in_the_browser(
    generated_site: Site, queues: list[GeneratedQueue]
) -> None:
    tab = await generated_site.tab("/")
    page, counts, chance = tab.page, Counter[str](), random.Random(1)
    for queue in queues:
        address = f"{generated_site.url}/queues/{queue.name}/jobs/{JOB}/edit"
        opened = await page.goto(address)
        assert opened is not None
        form = form_in(await opened.text())
        counts["models"] += 1
        counts["fields"] += len(queue.kinds)
        said = await replace_payload(page)
        assert said == f"Nothing was changed: job {JOB} keeps its payload.", queue.name
        assert await stored(generated_site, queue) == queue.stored, queue.name

        name = chance.choice([*queue.kinds])
        new = json.loads(chance.choice(queue.kinds[name].values))
        before = dict(form.fields)
        if not type_value(form, name, new):
            continue
        await page.goto(address)
        for control, text in form.fields.items():
            if text != before[control]:
                place = page.locator(f'[name="{control}"]')
                is_select = form.controls[control].tag == "select"
                await (place.select_option(text) if is_select else place.fill(text))
        said = await replace_payload(page)
        after = await stored(generated_site, queue)
        if not said.startswith("Replaced"):
            assert after == queue.stored, (queue.name, name)
            counts["unchanged" if said else "refused"] += 1
            tab.forgive(422)
            continue
        was = next((each for each in queue.members if each.field == name), None)
        assert is_same_text(changed_value(queue, was, after), new), (queue.name, name, after)
        counts["corrected"] += 1
    print(", ".join(f"{number} {what}" for what, number in counts.items()))
    assert counts["models"] >= 30
    assert counts["corrected"] >= 10
    assert tab.complaints == []


async def test_what_somebody_else_changes_meanwhile_is_kept_or_asked_about(
    generated_site: Site,
) -> None:
    job = await generated_site.jobs.enqueue("emails", mail("Ada"), delay=DAY)
    tab = await generated_site.tab(f"/queues/emails/jobs/{job.id}/edit")
    other = await generated_site.tab(f"/queues/emails/jobs/{job.id}/edit")
    await field(other.page, "variables").fill(json.dumps(mail("Grace")["variables"]))
    assert (await replace_payload(other.page)).startswith("Replaced")

    await field(tab.page, "to").fill("eve@example.com")
    assert (await replace_payload(tab.page)).startswith("Replaced")
    both = mail("Grace") | {"to": "eve@example.com"}
    data = (await generated_site.inspector.get("emails", job.id)).data
    assert {name: data[name] for name in both} == both

    await tab.page.goto(f"{generated_site.url}/queues/emails/jobs/{job.id}/edit")
    await other.page.goto(f"{generated_site.url}/queues/emails/jobs/{job.id}/edit")
    await field(other.page, "to").fill("first@example.com")
    assert (await replace_payload(other.page)).startswith("Replaced")
    await field(tab.page, "to").fill("second@example.com")
    assert await replace_payload(tab.page) == ""
    await expect(tab.page.locator(".wrong")).to_contain_text("It is now: first@example.com")
    tab.forgive(422)
    assert (await generated_site.inspector.get("emails", job.id)).data["to"] == "first@example.com"
    assert (await replace_payload(tab.page)).startswith("Replaced")
    assert (await generated_site.inspector.get("emails", job.id)).data["to"] == "second@example.com"
    assert tab.complaints == other.complaints == []
    await generated_site.inspector.remove("emails", job.id)
