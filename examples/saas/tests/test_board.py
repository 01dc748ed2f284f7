"""The board is for those who have a grant on it, as long as they have it; the metrics are for
operators.
"""

from __future__ import annotations

import httpx2
import pytest

from corral.testing import Kit
from examples.saas.tests.conftest import ADMIN_TOKEN

PAGE = {"Accept": "text/html"}
OPERATOR = {"Authorization": f"Bearer {ADMIN_TOKEN}"}


async def session_of(api: httpx2.AsyncClient, name: str) -> dict[str, str]:
    signed_up = await api.post("/signup", json={"email": f"{name}@example.org", "name": name})
    answer = await api.post("/login", data={"token": signed_up.json()["token"]})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/admin/queues/"
    return {"Cookie": answer.headers["set-cookie"].partition(";")[0], **PAGE}


async def grant(api: httpx2.AsyncClient, name: str, role: str | None) -> None:
    body = {"email": f"{name}@example.org", "role": role}
    assert (await api.put("/board-grants", json=body, headers=OPERATOR)).status_code == 204


@pytest.mark.asyncio
async def test_the_board_is_behind_the_application_s_session_and_a_grant(
    api: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = await api.get("/admin/queues/", headers=PAGE)
    assert (nobody.status_code, nobody.headers["location"]) == (302, "/login")
    ada = await session_of(api, "ada")
    api.cookies.clear()
    assert (await api.get("/admin/queues/", headers=ada)).status_code == 403
    await grant(api, "ada", "viewer")
    seen = await api.get("/admin/queues/", headers=ada)
    assert seen.status_code == 200
    assert "webhooks-outgoing" in seen.text
    await grant(api, "ada", None)
    assert (await api.get("/admin/queues/", headers=ada)).status_code == 403


@pytest.mark.asyncio
async def test_a_wrong_token_is_no_session(api: httpx2.AsyncClient) -> None:
    answer = await api.post("/login", data={"token": "guessed"})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


@pytest.mark.asyncio
async def test_metrics_are_for_operators_and_for_anybody_else_not_there(
    api: httpx2.AsyncClient, corral_kit: Kit
) -> None:
    await corral_kit.enqueue("data-exports", {"userId": "u", "exportId": "e", "format": "json"})
    assert (await api.get("/metrics")).status_code == 404
    read = await api.get("/metrics", headers=OPERATOR)
    assert read.status_code == 200
    assert 'bullmq_waiting_jobs{queue="data-exports"} 1.0' in read.text
