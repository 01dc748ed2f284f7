"""An open page's stream ends with its reader's grant, and with the board (S-03)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.requests import Request

from board.asking import Browser, Host
from corral.board import Board, Identity, Role
from corral.board.pages import live_stream


class Asked(Host):
    """A host application that counts how often it is asked."""

    def __init__(self, enough: int) -> None:
        super().__init__()
        self.enough = enough
        self.times = 0
        self.often = asyncio.Event()
        self.instead: Identity | None = None

    def who(self, request: Request) -> Identity | None:
        self.times += 1
        if self.times >= self.enough:
            self.often.set()
        return self.instead or super().who(request)


def no_role(host: Asked) -> None:
    host.roles["viewer"] = None


def nobody(host: Asked) -> None:
    del host.roles["viewer"]


def somebody_else(host: Asked) -> None:
    host.instead = Identity("somebody else", Role.ADMIN)


@pytest.mark.asyncio
@pytest.mark.parametrize("taken_back", [no_role, nobody, somebody_else])
async def test_an_open_stream_ends_when_the_grant_is_taken_back(
    on: str, monkeypatch: pytest.MonkeyPatch, taken_back: Callable[[Asked], None]
) -> None:
    monkeypatch.setattr(live_stream, "TICK_SECONDS", 0.01)
    host = Asked(5)  # the request itself, and four events
    board = Board(authorize=host.who)
    stream = asyncio.create_task(Browser(board, "viewer").ask("GET", "/live", chunks=10_000))
    await asyncio.wait_for(host.often.wait(), 15)
    assert not stream.done()
    taken_back(host)
    got = await asyncio.wait_for(stream, 15)
    assert (got.status, got.text[:6]) == (200, "retry:")
    assert board._contexts._open_pages.count == 0, "and nothing of it goes on"
    await board.close()


@pytest.mark.asyncio
async def test_a_stream_ends_when_it_has_lasted_long_enough(
    on: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The browser then sends a new request, with its present session cookie."""
    monkeypatch.setattr(live_stream, "TICK_SECONDS", 0.01)
    monkeypatch.setattr("corral.board.admission.STREAM_SECONDS", 0.05)
    board = Board(authorize=Host().who)
    got = await asyncio.wait_for(Browser(board, "viewer").ask("GET", "/live", chunks=10_000), 15)
    assert got.status == 200
    await board.close()


@pytest.mark.asyncio
async def test_a_stream_ends_with_the_board(
    on: str, monkeypatch: pytest.MonkeyPatch, wait_until: Callable[..., Any]
) -> None:
    monkeypatch.setattr(live_stream, "TICK_SECONDS", 3600.0)
    board = Board(authorize=Host().who)
    streams = [
        asyncio.create_task(Browser(board, "viewer").ask("GET", "/live", chunks=10_000))
        for _ in range(3)
    ]
    await wait_until(lambda: board._contexts._open_pages.count == 3, "three pages are open")
    board.end_streams()
    answers = await asyncio.wait_for(asyncio.gather(*streams), 15)
    assert [got.status for got in answers] == [200, 200, 200]
    assert board._contexts._open_pages.count == 0
    await board.close()


@pytest.mark.asyncio
async def test_a_stream_of_an_unknown_queue_is_404(board: Board) -> None:
    got = await Browser(board, "viewer").ask("GET", "/live?queue=nothing")
    assert (got.status, got.header("content-type")) == (404, "application/json")


@pytest.mark.asyncio
async def test_a_head_request_for_a_stream_is_answered_at_once(board: Board) -> None:
    got = await Browser(board, "viewer").ask("HEAD", "/live")
    assert (got.status, got.body, got.header("content-type")) == (
        200,
        b"",
        "text/event-stream; charset=utf-8",
    )
