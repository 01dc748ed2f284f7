"""What Stripe sends: its signature, and the event.

It needs nothing of Stripe's, and knows no web framework.

The header `Stripe-Signature` is `t=<unix seconds>,v1=<hex>,v1=<hex>,…`: one `v1` for each secret
that is valid, two while one is replaced. Each is the HMAC-SHA256 of `<t>.<body>` under its secret
(docs.stripe.com/webhooks#verify-manually).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from pydantic_core import from_json

from corral import CorralError, PayloadRefused
from corral.errors import ConfigurationError
from corral_billing_webhooks_retry import BillingEvent, billing_webhooks_retry

__all__ = ["SignatureRefused", "verified"]

TOLERANCE: Final = timedelta(minutes=5)
"""How far a signature's moment may be from now; Stripe's own libraries allow as much."""

SECONDS: Final = re.compile(r"[0-9]{1,11}", re.ASCII)
"""Unix seconds, until the year 5138."""


class SignatureRefused(CorralError):
    """A request that Stripe did not send, or sent too long ago.

    Answer it with 400 and do nothing else.
    """


def verified(
    body: bytes,
    signature_header: str | None,
    secret: str,
    *,
    tolerance: timedelta = TOLERANCE,
    now: datetime | None = None,
) -> BillingEvent:
    """The event of a request, if Stripe sent it.

    Args:
        body: The request's body, every byte as it came: JSON that was read and written again has
        another signature.
        signature_header: The request's `Stripe-Signature`; None where there is none.
        secret: The endpoint's signing secret, `whsec_…`.
        tolerance: How far the signature's moment may be from `now`, in the past or in the future.
        now: Aware; by default this machine's clock.

    Raises:
        SignatureRefused: The signature is missing, damaged, of another secret or another body, or
        too old.
        PayloadRefused: It is Stripe's, and no event.
        ConfigurationError: The secret is empty: everybody could sign with that.
    """
    if not secret:
        raise ConfigurationError(
            "the signing secret is empty", hint="Stripe shows it with the endpoint: whsec_…"
        )
    signed_at, signatures = _read(signature_header or "")
    expected = (
        hmac.new(secret.encode(), b"%s.%s" % (signed_at.encode(), body), hashlib.sha256)
        .hexdigest()
        .encode()
    )
    # bytes: of two texts, compare_digest takes ASCII only
    if not any(
        hmac.compare_digest(expected, given.encode("utf-8", "replace")) for given in signatures
    ):
        raise SignatureRefused(
            "no signature of the request fits its body",
            hint="is it the secret of this endpoint, and the body as it came, byte by byte?",
        )
    moment = datetime.fromtimestamp(int(signed_at), UTC)
    if abs((now or datetime.now(UTC)) - moment) > tolerance:
        raise SignatureRefused(
            f"the request was signed at {moment:%Y-%m-%dT%H:%M:%SZ}, not within {tolerance} of now"
        )
    return _event(body)


def _read(header: str) -> tuple[str, list[str]]:
    """The moment, as it was signed, and the signatures.

    What is of another scheme (`v0`) counts for nothing.
    """
    parts = [part.partition("=") for part in header.split(",")]
    moments = [value for name, _, value in parts if name == "t"]
    signatures = [value for name, _, value in parts if name == "v1"]
    if len(moments) != 1 or not SECONDS.fullmatch(moments[0]) or not signatures:
        raise SignatureRefused("the request has no signature of the form t=…,v1=…")
    return moments[0], signatures


def _event(body: bytes) -> BillingEvent:
    try:
        parsed = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise PayloadRefused(
            billing_webhooks_retry.name, (("body", f"is no JSON: {error}"),)
        ) from None
    if not isinstance(parsed, Mapping):
        raise PayloadRefused(billing_webhooks_retry.name, (("body", "is no JSON object"),))
    named = {"eventId": "id", "type": "type", "occurredAt": "created"}
    fields = {ours: parsed[theirs] for ours, theirs in named.items() if theirs in parsed}
    return billing_webhooks_retry.validated({"provider": "stripe", **fields, "body": parsed})
