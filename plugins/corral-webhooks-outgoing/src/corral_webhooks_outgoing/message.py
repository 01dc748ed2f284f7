"""What is sent: the body, and the headers that sign it, by Standard Webhooks 1.0.0.

It knows no network.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic_core import to_json
from standardwebhooks import Webhook

from corral import Fail, Job
from corral_webhooks_outgoing import WebhookDelivery
from corral_webhooks_outgoing.endpoints import Endpoint, accepted_secret

__all__ = ["Message", "sign_message"]


@dataclass(frozen=True, slots=True)
class Message:
    """One request.

    Attributes:
        body: JSON text, the same on every attempt.
        headers: `webhook-id`, the same on every attempt, and what changes: the attempt's time, and
        the signatures.
    """

    body: bytes
    headers: dict[str, str]


def sign_message(job: Job[WebhookDelivery], endpoint: Endpoint, now: datetime) -> Message:
    """Make and sign the request of one attempt.

    `timestamp` in the body is when the event was enqueued. The one in the headers is the attempt's:
    receivers refuse what is more than some minutes old.

    Args:
        job: The delivery.
        endpoint: Whose secrets sign it, all of them.
        now: The time of this attempt (aware).

    Raises:
        Fail: A secret is none, or one that can be guessed: nobody else would find that out. The
            library that signs takes a key of one byte, and drops what is no base64.
    """
    event = job.payload
    timestamp = job.enqueued_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    body = to_json({"type": event.event_type, "timestamp": timestamp, "data": event.data})
    text = body.decode()
    try:
        signatures = [
            Webhook(accepted_secret(secret)).sign(event.event_id, now, text)
            for secret in endpoint.secrets
        ]
    except Exception:  # noqa: BLE001  # of any kind; its text may hold the secret, so it is not repeated
        signatures = []
    if not signatures:
        message = "has no secret, or one that is not whsec_ and 24 to 64 bytes in base64"
        raise Fail(f"webhook endpoint {endpoint.id!r} {message}") from None
    return Message(
        body,
        {
            "webhook-id": event.event_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signatures),
        },
    )
