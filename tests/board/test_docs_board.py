"""The examples of docs/board.md are run; its tables are compared with the code."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import pytest_asyncio
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from board.asking import HERE, PAGE, Browser, ask, token_in
from corral.board import Action, Board, Identity, Role
from corral.board.board_settings import BoardSettings

TEXT = (Path(__file__).parents[2] / "docs" / "board.md").read_text("utf-8")
EXAMPLES = dict(re.findall(r"```python\n# (\w+)\n(.*?)```", TEXT, re.DOTALL))
MOUNT = "/admin/queues"


@pytest_asyncio.fixture
async def example(on: str, request: pytest.FixtureRequest) -> AsyncIterator[ModuleType]:
    """The example of that name, imported as a module."""
    module = ModuleType(f"example_{request.param}")
    sys.modules[module.__name__] = module
    exec(compile(EXAMPLES[request.param], f"docs/board.md {request.param}", "exec"), vars(module))
    yield module
    await module.board.close()
    del sys.modules[module.__name__]


def test_there_are_three() -> None:
    assert set(EXAMPLES) == {"FastAPI", "Starlette", "Django"}


@pytest.mark.asyncio
@pytest.mark.parametrize("example", ["FastAPI"], indirect=True)
async def test_fastapi(example: ModuleType) -> None:
    async def log_in(request: Request) -> PlainTextResponse:
        request.session["email"] = request.query_params["email"]
        return PlainTextResponse("in")

    example.app.add_route("/login", log_in)
    browser = Browser(example.app, scheme="https")
    away = await browser.ask("GET", f"{MOUNT}/", headers=PAGE)
    assert (away.status, away.header("location")) == (302, "/login")
    statuses = {}
    for email in ("ada@example.org", "grace@example.org", "mallory@example.org"):
        await browser.ask("GET", f"/login?email={email}")
        page = await browser.ask("GET", f"{MOUNT}/queues/letters", headers=PAGE)
        audit = await browser.ask("GET", f"{MOUNT}/audit", headers=PAGE)
        statuses[email[:3]] = (page.status, audit.status)
    assert statuses == {"ada": (200, 200), "gra": (200, 403), "mal": (403, 403)}
    await browser.ask("GET", "/login?email=ada@example.org")
    token = token_in((await browser.ask("GET", f"{MOUNT}/queues/letters", headers=PAGE)).text)
    done = await browser.ask(
        "POST", f"{MOUNT}/queues/letters/pause", headers={**PAGE, **HERE}, body={"csrf": token}
    )
    assert (done.status, done.header("location")) == (303, f"{MOUNT}/queues/letters?notice=paused")


@pytest.mark.asyncio
@pytest.mark.parametrize("example", ["Starlette"], indirect=True)
async def test_starlette(example: ModuleType) -> None:
    assert (await ask(example.app, "GET", f"{MOUNT}/", headers=PAGE)).status == 401
    inside = await ask(
        example.app, "GET", f"{MOUNT}/", headers={**PAGE, "cookie": "session=the key of a session"}
    )
    assert (inside.status, "operator" in inside.text) == (200, True)


@pytest.mark.asyncio
@pytest.mark.parametrize("example", ["FastAPI", "Starlette"], indirect=True)
async def test_the_application_starts_and_closes_its_board(example: ModuleType) -> None:
    assert not example.board.is_on
    async with example.app.router.lifespan_context(example.app):
        assert example.board.is_on


@pytest.mark.asyncio
async def test_django(on: str, tmp_path: Path) -> None:
    from django.conf import settings

    settings.configure(
        SECRET_KEY="for this test",
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=__name__,
        SESSION_ENGINE="django.contrib.sessions.backends.db",
        INSTALLED_APPS=[
            "django.contrib.contenttypes",
            "django.contrib.auth",
            "django.contrib.sessions",
        ],
        DATABASES={
            "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": tmp_path / "django.db"}
        },
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    )
    example: dict[str, Any] = {}
    exec(compile(EXAMPLES["Django"], "docs/board.md Django", "exec"), example)
    from asgiref.sync import sync_to_async
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.auth.models import User
    from django.contrib.sessions.backends.db import SessionStore
    from django.core.management import call_command
    from django.db import connections

    def session(**rights: bool) -> str:
        user = User.objects.create_user("-".join(rights) or "nobody", password="x", **rights)
        made = SessionStore()
        made[SESSION_KEY] = str(user.pk)
        made[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
        made[HASH_SESSION_KEY] = user.get_session_auth_hash()
        made.save()
        return str(made.session_key)

    await sync_to_async(call_command)("migrate", verbosity=0)
    statuses = []
    for rights in (
        {"is_superuser": True},
        {"is_staff": True},
        {},
        {"is_superuser": True, "is_active": False},
    ):
        key = await sync_to_async(session)(**rights)
        got = await ask(
            example["application"],
            "GET",
            f"{MOUNT}/audit",
            headers={**PAGE, "cookie": f"sessionid={key}"},
        )
        statuses.append(got.status)
    assert statuses == [200, 403, 403, 302]
    away = await ask(example["application"], "GET", f"{MOUNT}/queues/letters", headers=PAGE)
    assert (away.status, away.header("location")) == (302, "/admin/login/?next=/admin/queues/")
    await example["board"].close()
    await sync_to_async(connections.close_all)()


urlpatterns: list[object] = []


def test_the_table_of_roles_is_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w*) ?\| ?(\w*) ?\| (\w*) \|$", TEXT, re.MULTILINE)
    written = {action: [bool(cell) for cell in cells] for action, *cells in rows}
    assert written == {
        str(action): [Identity("x", role).may(action) for role in Role] for action in Action
    }


def test_the_table_of_settings_is_the_code() -> None:
    names = re.findall(r"^\| `(CORRAL_BOARD_\w+)` \| none \|", TEXT, re.MULTILINE)
    assert names == [f"CORRAL_BOARD_{name.upper()}" for name in BoardSettings.model_fields]
    assert all(field.default in (None, ()) for field in BoardSettings.model_fields.values())


def test_the_methods_that_the_page_names_exist() -> None:
    assert all(
        f"board.{name}()" in TEXT and callable(getattr(Board, name))
        for name in ("close", "end_streams", "start")
    )
