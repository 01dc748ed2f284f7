"""Who makes a request, and the transaction that it runs in."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Header, HTTPException, Request

from examples.saas import accounts
from examples.saas.accounts import User
from examples.saas.work import Work, working

__all__ = ["InWork", "Me", "operator"]


async def begin_work(request: Request) -> AsyncIterator[Work]:
    """Begin the transaction of a request.

    It is committed before the answer is sent; an error rolls it back.
    """
    async with working(request.app.state.engine, request.app.state.jobs) as work:
        yield work


# scope="function": committed before the answer leaves, not after it
InWork = Annotated[Work, Depends(begin_work, scope="function")]


async def require_user(work: InWork, authorization: Annotated[str, Header()] = "") -> User:
    """Return the user whose token came with the request.

    Raises:
        HTTPException: 401: there is no token, or it is nobody's.
    """
    user = await accounts.authenticate(work.connection, authorization.removeprefix("Bearer "))
    if user is None:
        raise HTTPException(401, "log in first", {"WWW-Authenticate": "Bearer"})
    return user


Me = Annotated[User, Depends(require_user)]


def operator(request: Request, authorization: Annotated[str, Header()] = "") -> None:
    """Let an operator in, and nobody else."""
    expected = request.app.state.settings.admin_token.get_secret_value()
    if not hmac.compare_digest(authorization.encode(), f"Bearer {expected}".encode()):
        raise HTTPException(403, "for operators only")
