"""`/metrics`: what a Prometheus server reads."""

from __future__ import annotations

from corral.board.context import BoardContext
from corral.board.messages import Answer, Request
from corral.observe.metrics import CONTENT_TYPE

__all__ = ["show"]


async def show(_request: Request, context: BoardContext) -> Answer:
    """The store's figures; one round trip per queue."""
    return Answer(await context.metrics(), CONTENT_TYPE)
