"""`/metrics`: what a Prometheus server reads."""

from __future__ import annotations

from corral.board.desk import Desk
from corral.board.exchange import Answer, Request
from corral.observe.metrics import CONTENT_TYPE

__all__ = ["show"]


async def show(_request: Request, desk: Desk) -> Answer:
    """The store's figures; one round trip per queue."""
    return Answer(await desk.metrics(), CONTENT_TYPE)
