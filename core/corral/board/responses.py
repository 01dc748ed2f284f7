"""Turns what a handler returns, or why a request was refused, into an HTTP response."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode

from pydantic_core import to_json
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from corral.board.messages import (
    BoardPage,
    BoardRequest,
    EventStream,
    RawBody,
    Redirect,
    RequestRefused,
)
from corral.board.page_renderer import PageRenderer
from corral.errors import CorralError, JobRefused, StoreUnavailable, UnknownQueue
from corral.inspector import (
    CurrentIteration,
    DamagedKey,
    JobLocked,
    JobNotFound,
    PayloadChanged,
    WrongState,
)

__all__ = ["EVENTS", "plain_response", "raw_response", "refusal_page", "render_response"]

EVENTS: Final = "text/event-stream"

_STATUS: Final[Mapping[type[CorralError], int]] = {
    UnknownQueue: 404,
    JobNotFound: 404,
    WrongState: 409,
    JobLocked: 409,
    PayloadChanged: 409,
    CurrentIteration: 409,
    JobRefused: 422,
    StoreUnavailable: 503,
    DamagedKey: 503,
}
"""The HTTP status of an error of the core; 400 for any other."""


def render_response(
    request: BoardRequest,
    answer: BoardPage | Redirect | RawBody | EventStream,
    renderer: PageRenderer,
) -> Response:
    """The HTTP response for a handler's answer: HTML, or JSON for a client that wants data."""
    if isinstance(answer, EventStream):
        return StreamingResponse(
            answer.events, media_type=EVENTS, headers={"x-accel-buffering": "no"}
        )
    if isinstance(answer, RawBody):
        return raw_response(answer)
    if isinstance(answer, Redirect):
        if request.is_data:
            return _json_response({"done": answer.notice, **answer.values}, 200)
        query = urlencode({"notice": answer.notice, **answer.values}) if answer.notice else ""
        separator = ("&" if "?" in answer.path else "?") if query else ""
        return RedirectResponse(f"{request.mount}{answer.path}{separator}{query}", 303)
    if request.is_data:
        return _json_response(dict(answer.values), answer.status)
    return HTMLResponse(renderer.render_page(answer, request), answer.status)


def refusal_page(error: CorralError | RequestRefused) -> BoardPage:
    """The page that says why a request was refused, and what the reader can do about it."""
    if isinstance(error, RequestRefused):
        status, message = error.status, error.message
    else:
        status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 400)
        message = str(error)
    return BoardPage(
        "refused",
        HTTPStatus(status).phrase,
        {"status": status, "message": message, "hint": error.hint},
        status,
    )


def plain_response(status: int, text: str = "") -> Response:
    """A response of plain text; without a text, the status's own phrase."""
    return Response(text or HTTPStatus(status).phrase, status, media_type="text/plain")


def raw_response(answer: RawBody) -> Response:
    """A response of bytes that are sent unchanged."""
    headers = {"cache-control": "public, max-age=31536000, immutable"} if answer.cacheable else {}
    return Response(answer.body, answer.status, headers, answer.content_type)


def _json_response(values: object, status: int) -> Response:
    return Response(to_json(values, inf_nan_mode="null"), status, media_type="application/json")
