"""A partner's webhook receiver: verifies deliveries (Standard Webhooks), acts once per event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import uvicorn
from standardwebhooks import Webhook, WebhookVerificationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from examples.saas.demo.sockets import listening

__all__ = ["Delivery", "Partner", "open_partner"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A request that came.

    Attributes:
        event_id: The event's id.
        answer: What it was answered.
    """

    event_id: str
    answer: str


class Partner:
    """What the receiver has done.

    It is too busy for the first delivery, and says when to come back.

    Attributes:
        url: Where it listens.
        secret: What deliveries are signed with; known when the endpoint was added.
        deliveries: The requests, in order.
        events: The verified events that were acted upon, once each, by their ids.
        reached: Set when the first request has come.
        answers: While this is not set, no request is answered.
    """

    def __init__(self, on_delivery: Callable[[Delivery], None]) -> None:
        self.url = ""
        self.secret = ""
        self.deliveries: list[Delivery] = []
        self.events: dict[str, dict[str, object]] = {}
        self.reached = asyncio.Event()
        self.answers = asyncio.Event()
        self.answers.set()
        self._on_delivery = on_delivery

    async def receive(self, request: Request) -> Response:
        """Answer a delivery."""
        body = await request.body()
        self.reached.set()
        await self.answers.wait()
        event_id = request.headers.get("webhook-id", "")
        try:
            event = Webhook(self.secret).verify(body, dict(request.headers))
        except WebhookVerificationError as error:
            return self._record_answer(event_id, f"refused: {error}", Response(status_code=401))
        if not self.deliveries:
            return self._record_answer(
                event_id, "too busy, come back in 1 s", Response(None, 503, {"Retry-After": "1"})
            )
        repeated = event_id in self.events
        self.events[event_id] = event
        return self._record_answer(
            event_id, "known already" if repeated else "verified", Response(status_code=204)
        )

    def _record_answer(self, event_id: str, answer: str, response: Response) -> Response:
        self.deliveries.append(Delivery(event_id, answer))
        self._on_delivery(self.deliveries[-1])
        return response


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the demo."""
        yield


@asynccontextmanager
async def open_partner(on_delivery: Callable[[Delivery], None]) -> AsyncIterator[Partner]:
    """Listen on a port of the kernel's choice until the block ends.

    Args:
        on_delivery: Called with each delivery.
    """
    partner = Partner(on_delivery)
    app = Starlette(routes=[Route("/hooks", partner.receive, methods=["POST"])])
    server = _Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
    with listening() as listener:
        partner.url = f"http://127.0.0.1:{listener.getsockname()[1]}/hooks"
        serving = asyncio.create_task(server.serve([listener]), name="partner")
        try:
            yield partner
        finally:
            partner.answers.set()
            server.should_exit = True
            await serving
