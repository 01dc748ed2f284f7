"""What a page's handler receives and what it returns: plain values.

This module imports no web framework, so that handlers can be read and tested without one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from corral.board.identity import Identity

__all__ = [
    "BoardPage",
    "BoardRequest",
    "EventStream",
    "RawBody",
    "Redirect",
    "RequestRefused",
    "first_value",
    "parse_whole_number",
]


def first_value(form: Mapping[str, Sequence[str]], name: str, default: str = "") -> str:
    """The first value of a form field, or `default` where the form does not have the field."""
    return next(iter(form.get(name, ())), default)


def parse_whole_number(
    typed: str, what: str, *, least: int = 0, most: int = 1_000_000_000, status: int = 400
) -> int:
    """Parse a whole number from a form field or from an address.

    Args:
        typed: The text.
        what: What the number is called in the error text.
        least: The lowest number that is accepted.
        most: The highest number that is accepted.
        status: The HTTP status of the refusal.

    Raises:
        RequestRefused: The text is not a whole number within these bounds.
    """
    if not typed.isdecimal() or len(typed) > 10 or not least <= int(typed) <= most:
        raise RequestRefused(status, f"{what} is a whole number from {least} to {most}")
    return int(typed)


@dataclass(frozen=True, slots=True)
class BoardRequest:
    """One request by a reader who may see the board.

    Attributes:
        method: `GET` or `POST`; a `HEAD` is answered as a `GET`, without its body.
        path: The path below the mount, with a leading slash and with its escapes as they were sent.
        mount: The path at which the board is mounted, without a trailing slash; empty at the root.
        query: The query's fields; the last value of a repeated one.
        form: The body's fields, each with all of its values, from a form or from a JSON object.
        parts: What the route's pattern took from the path, decoded: `queue`, `job_id`.
        identity: Who sends the request.
        csrf: The token that forms of the answer must send back.
        can_log_out: Whether the board itself logged this reader in, and so can log them out.
        is_data: Whether the client wants JSON instead of a page.
    """

    method: str
    path: str
    mount: str
    query: Mapping[str, str]
    identity: Identity
    csrf: str = ""
    can_log_out: bool = False
    is_data: bool = False
    form: Mapping[str, Sequence[str]] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)

    def first(self, name: str, default: str = "") -> str:
        """The first value of a form field, or `default` where the form does not have the field."""
        return first_value(self.form, name, default)

    def number(self, name: str, *, least: int = 0, status: int = 400) -> int | None:
        """The whole number in a form field; None where the field is empty or missing.

        Raises:
            RequestRefused: The field holds something else, or a number below `least`.
        """
        typed = self.first(name).strip()
        if not typed:
            return None
        return parse_whole_number(typed, name.replace("_", " "), least=least, status=status)


@dataclass(frozen=True, slots=True)
class BoardPage:
    """A page: HTML made from a template, or the same values as JSON for a client that wants data.

    Attributes:
        template: The template's name, without `.html`.
        title: The title of the HTML page.
        values: What the template shows; plain values and dataclasses.
        status: The HTTP status.
        live: Whether an open page reloads its content when something has changed.
    """

    template: str
    title: str
    values: Mapping[str, Any]
    status: int = 200
    live: bool = False


@dataclass(frozen=True, slots=True)
class Redirect:
    """The answer to a write: the page to show next, and what was done.

    Attributes:
        path: The page's path below the mount.
        notice: A key of `page_renderer.NOTICES`: the sentence at the top of that page.
        values: The numbers and ids in that sentence.
    """

    path: str
    notice: str = ""
    values: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RawBody:
    """An answer whose bytes are sent unchanged: a static file, or metrics.

    Attributes:
        body: The bytes.
        content_type: Their media type.
        status: The HTTP status.
        cacheable: Whether a browser may keep it for good. Only for static files, whose address
            changes with their content.
    """

    body: bytes
    content_type: str
    status: int = 200
    cacheable: bool = False


@dataclass(frozen=True, slots=True)
class EventStream:
    """Server-sent events, until the browser disconnects or the process ends.

    Attributes:
        events: The events, each as the text that is sent.
    """

    events: AsyncIterator[str]


class RequestRefused(Exception):  # an answer to the reader, not an error of ours
    """The request cannot be carried out; the reader gets a page with the reason.

    Attributes:
        status: The HTTP status.
        message: One sentence: why.
        hint: What the reader can do about it, or None.
    """

    def __init__(self, status: int, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.hint = hint
