"""`Login`: who is who where the board runs alone: one administrator's password, one-time links, sessions."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from corral.board.identity import Identity
from corral.board.rendering import Renderer

__all__ = ["Login"]


class Login:
    """Logs people in."""

    login_url: str | None = "/login"

    async def identify(self, request: Request) -> Identity | None:
        """Whose session it is."""
        raise NotImplementedError

    def secret_of(self, request: Request) -> str | None:
        """What the tokens of this session's forms are made of."""
        raise NotImplementedError

    async def answered(self, request: Request, path: str, mount: str, renderer: Renderer) -> Response | None:
        """The answer to `/login` and `/logout`; None for any other path."""
        raise NotImplementedError
