"""`/metrics`: what a Prometheus server reads."""

from __future__ import annotations

from corral.board.desk import Desk
from corral.board.exchange import Answer, Request
from corral.observe.metrics import CONTENT_TYPE, render_metrics

__all__ = ["show"]


async def show(_request: Request, desk: Desk) -> Answer:
    """The store's figures; one round trip per queue."""
    return Answer(await render_metrics(desk.link, desk.prefix, desk.inspector.queues), CONTENT_TYPE)
