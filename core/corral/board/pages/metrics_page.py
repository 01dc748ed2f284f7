"""`/metrics`: what a Prometheus server reads."""

from __future__ import annotations

from corral.board.board_context import BoardContext
from corral.board.messages import BoardRequest, RawBody
from corral.observe.metrics import CONTENT_TYPE

__all__ = ["show_metrics"]


async def show_metrics(_request: BoardRequest, context: BoardContext) -> RawBody:
    """Show the store's figures in Prometheus's text format; costs one round trip per queue."""
    return RawBody(await context.render_metrics(), CONTENT_TYPE)
