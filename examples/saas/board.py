"""The board at `/admin/queues`, behind this application's own session and its grants."""

from __future__ import annotations

from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel

from corral.board import Board, Identity, Role
from examples.saas import accounts
from examples.saas.callers import InWork, operator
from examples.saas.work import working

__all__ = ["mount_board", "router"]

SESSION = "session"
MOUNT = "/admin/queues"

LOGIN = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Acme</title>
<link rel="icon" href="data:,">
<h1>Log in</h1>
<form method="post" action="/login">
<label>Your token <input name="token" type="password" autofocus></label>
<button>Log in</button></form>"""

router = APIRouter(include_in_schema=False)


class Grant(BaseModel):
    """The body of `PUT /board-grants`."""

    email: str
    role: Role | None = None


@router.get("/login")
async def login_page() -> HTMLResponse:
    """A form for the token that `POST /signup` has answered."""
    return HTMLResponse(LOGIN)


@router.post("/login")
async def log_in(request: Request, work: InWork) -> Response:
    """A session, kept in a cookie that no script and no other site can use."""
    token = parse_qs((await request.body()).decode(errors="replace")).get("token", [""])[0]
    if await accounts.authenticate(work.connection, token) is None:
        return HTMLResponse(LOGIN, 401)
    response = RedirectResponse(MOUNT + "/", 303)
    secure = request.url.scheme == "https"
    response.set_cookie(SESSION, token, secure=secure, httponly=True, samesite="strict")
    return response


@router.put("/board-grants", status_code=204, dependencies=[Depends(operator)])
async def grant(body: Grant, work: InWork) -> None:
    """Let somebody see the board, or no longer."""
    if not await accounts.grant_board(work.connection, body.email, body.role):
        raise HTTPException(404, "nobody has this address")


def mount_board(app: FastAPI) -> Board:
    """Mount the board; whoever mounts it closes it."""

    async def who(request: Request) -> Identity | None:
        token = request.cookies.get(SESSION, "")
        async with working(app.state.engine, app.state.jobs) as work:
            return await accounts.board_identity(work.connection, token)

    board = Board(authorize=who, login_url="/login")
    app.mount(MOUNT, board)
    return board
