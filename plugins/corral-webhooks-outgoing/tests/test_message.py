"""What is signed: verified by the receiver's own library, and the same on every attempt but for its
time.
"""

from __future__ import annotations

import base64
import hmac
import json
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from corral import Fail, testing
from corral_webhooks_outgoing import webhooks_outgoing
from corral_webhooks_outgoing.endpoints import Endpoint
from corral_webhooks_outgoing.message import sign_message

SECRETS = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")
DELIVERY = {
    "endpointId": "ep_1",
    "eventId": "evt_1",
    "eventType": "user.created",
    "data": {"b": [1.5, None], "a": "é😀"},
}


def message(*secrets: str, attempt: int = 1, now: datetime | None = None, **job: object):
    endpoint = Endpoint("ep_1", "https://hooks.example.org/", secrets or SECRETS[:1])
    return sign_message(
        testing.job(webhooks_outgoing, DELIVERY, attempt=attempt, **job),
        endpoint,
        now or datetime.now(UTC),
    )


def test_the_receivers_library_verifies_it_and_reads_the_event() -> None:
    sent = message(enqueued_at=datetime(2030, 1, 1, 12, 0, 0, 123000, UTC))
    assert Webhook(SECRETS[0]).verify(sent.body, sent.headers) == {
        "type": "user.created",
        "timestamp": "2030-01-01T12:00:00.123Z",
        "data": DELIVERY["data"],
    }
    assert list(json.loads(sent.body)) == ["type", "timestamp", "data"]
    content = f"evt_1.{sent.headers['webhook-timestamp']}.".encode() + sent.body
    key = base64.b64decode(SECRETS[0].removeprefix("whsec_"))
    by_hand = base64.b64encode(hmac.digest(key, content, "sha256")).decode()
    assert sent.headers["webhook-signature"] == f"v1,{by_hand}"
    with pytest.raises(WebhookVerificationError, match="No matching signature"):
        Webhook(SECRETS[1]).verify(sent.body, sent.headers)
    with pytest.raises(WebhookVerificationError, match="No matching signature"):
        Webhook(SECRETS[0]).verify(sent.body.replace(b"user", b"root"), sent.headers)


def test_while_a_secret_is_changed_both_verify_it_the_new_one_first() -> None:
    sent = message(*SECRETS)
    for secret in SECRETS:
        Webhook(secret).verify(sent.body, sent.headers)
    assert (
        sent.headers["webhook-signature"].split()[0]
        == message(SECRETS[0]).headers["webhook-signature"]
    )


def test_of_two_attempts_only_the_time_and_what_follows_from_it_differ() -> None:
    now = datetime.now(UTC)
    first, second = message(now=now), message(attempt=2, now=now + timedelta(minutes=4))
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == "evt_1"
    assert int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) == 240
    Webhook(SECRETS[0]).verify(second.body, second.headers)


def test_a_replay_of_an_old_attempt_is_refused() -> None:
    sent = message(now=datetime.now(UTC) - timedelta(minutes=6))
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(SECRETS[0]).verify(sent.body, sent.headers)


@pytest.mark.parametrize(
    "secrets",
    [
        *(
            ("",),
            ("whsec_",),
            ("whsec_not base64!!",),
            ("whsec_é",),
            (SECRETS[0], "whsec_a"),
            (None,),
        ),
        *(
            ("whsec_eA==",),
            (SECRETS[0].removeprefix("whsec_"),),
            (SECRETS[0].replace("KY", "K Y"),),
            ("password",),
        ),
    ],
)
def test_a_secret_of_the_applications_that_is_none_fails_for_good_and_is_not_repeated(
    secrets,
) -> None:
    with pytest.raises(Fail) as failed:
        message(*secrets)
    assert str(failed.value) == (
        "webhook endpoint 'ep_1' has no secret, or one that is not whsec_ and 24 to 64 bytes in base64"
    )
    assert failed.value.__cause__ is None
    assert failed.value.__suppress_context__


def test_a_secret_without_its_padding_is_one() -> None:
    secret = "whsec_" + base64.b64encode(bytes(32)).decode().rstrip("=")
    sent = message(secret)
    Webhook(secret).verify(sent.body, sent.headers)


def test_an_endpoint_does_not_show_its_secrets_nor_the_tokens_in_its_address() -> None:
    endpoint = Endpoint("ep_1", "https://hooks.example.org/t0ken", SECRETS)
    assert repr(endpoint) == "Endpoint(id='ep_1', enabled=True)"
