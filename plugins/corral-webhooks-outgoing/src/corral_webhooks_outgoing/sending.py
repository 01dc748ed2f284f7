"""Sends a message to an endpoint: checks the URL again, and words what went wrong.

It is loaded for a worker's first delivery: an HTTP client and the certificate authorities take 7
MiB and 0.1 s.
"""

from __future__ import annotations

from corral import Fail
from corral_webhooks_outgoing.answer import Answer, NotDelivered
from corral_webhooks_outgoing.courier import Courier, Unanswered
from corral_webhooks_outgoing.endpoints import Endpoint
from corral_webhooks_outgoing.guard import Guard, NotPublic
from corral_webhooks_outgoing.message import Message
from corral_webhooks_outgoing.settings import WebhookSettings
from corral_webhooks_outgoing.urls import EndpointRefused, accepted_url

__all__ = ["Sender"]


class Sender:
    """Sends messages to endpoints.

    Attributes:
        courier: Makes the requests.

    Args:
        courier: As above; closed by `close`.
        settings: Where requests may go.
    """

    def __init__(self, courier: Courier, settings: WebhookSettings) -> None:
        self.courier = courier
        self._settings = settings

    @classmethod
    def open(cls, settings: WebhookSettings) -> Sender:
        """Open a sender with a courier of its own. Nothing is connected."""
        guard = Guard(allow_private=settings.allow_private)
        return cls(Courier(settings, guard), settings)

    async def close(self) -> None:
        """Close all connections."""
        await self.courier.close()

    async def send(self, message: Message, endpoint: Endpoint) -> Answer:
        """Send a message to an endpoint.

        Raises:
            Fail: Its URL cannot be used, or leads to an address that is not public.
            NotDelivered: There was no answer.
        """
        try:
            url = accepted_url(
                endpoint.url, allow_private=self._settings.allow_private, ports=self._settings.ports
            )
        except EndpointRefused as error:
            raise Fail(f"webhook endpoint {endpoint.id!r} cannot be used: {error}") from error
        try:
            return await self.courier.post(url, message)
        except NotPublic as error:
            raise Fail(
                f"webhook endpoint {endpoint.id!r} leads to an address that is not public: {error}"
            ) from error
        except Unanswered as error:
            raise NotDelivered(
                f"webhook endpoint {endpoint.id!r} ({url.host}) did not answer: {error}"
            ) from error
