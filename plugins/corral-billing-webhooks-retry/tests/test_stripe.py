"""Signatures: what Stripe signed passes, and nothing else, however it is written."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral import PayloadRefused
from corral.errors import ConfigurationError
from corral_billing_webhooks_retry import BillingEvent
from corral_billing_webhooks_retry.stripe import SignatureRefused, verified

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = (
    b'{"id":"evt_1Abc","object":"event","type":"invoice.paid","created":1767225598,'
    b'"data":{"object":{"id":"in_1","amount_paid":1200}}}'
)
SIGNED = 1767225600
NOW = datetime.fromtimestamp(SIGNED, UTC)
BY_OPENSSL = "b7a857cadb797dc6a66fc29da4dd9cf02b9953a7d88e477026caf5c4ceff5317"
"""`printf '%s.%s' 1767225600 "$body" | openssl dgst -sha256 -hmac "$secret"`"""


def signature(body: bytes = BODY, secret: str = SECRET, signed: object = SIGNED) -> str:
    """HMAC-SHA256 as RFC 2104 writes it down, for keys of up to 64 bytes; nothing of the code under
    test.
    """
    key = secret.encode().ljust(64, b"\0")
    inner = hashlib.sha256(
        bytes(byte ^ 0x36 for byte in key) + f"{signed}.".encode() + body
    ).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in key) + inner).hexdigest()


GOOD = signature()
OTHER = signature(secret="whsec_other")


def refused(header: str | None, body: bytes = BODY, now: datetime = NOW) -> bool:
    try:
        verified(body, header, SECRET, now=now)
    except SignatureRefused:
        return True
    return False


def test_two_ways_to_compute_it_agree() -> None:
    assert BY_OPENSSL == GOOD


def test_what_stripe_signed_becomes_an_event() -> None:
    assert verified(
        BODY, f"t={SIGNED},v1={BY_OPENSSL},v0={OTHER}", SECRET, now=NOW
    ) == BillingEvent(
        provider="stripe",
        event_id="evt_1Abc",
        type="invoice.paid",
        occurred_at=datetime.fromtimestamp(1767225598, UTC),
        body=json.loads(BODY),
    )


@pytest.mark.parametrize(
    "header",
    [
        f"v1={GOOD},t={SIGNED}",
        f"t={SIGNED},v1={OTHER},v1={GOOD}",
        f"t={SIGNED},v1={GOOD},v1={OTHER}",
        f"t={SIGNED},v1=é,v1=,v1={GOOD},v0=x,,x,y=",
    ],
)
def test_one_of_several_signatures_is_enough(header: str) -> None:
    assert not refused(header)


HOSTILE = [
    None,
    "",
    ",",
    "=",
    "t",
    GOOD,
    f"t={SIGNED}",
    f"v1={GOOD}",
    f"t=,v1={GOOD}",
    f"t={SIGNED},v1=",
    f"t={SIGNED},v1={OTHER}",
    f"t={SIGNED},v0={GOOD}",
    f"t={SIGNED},v2={GOOD}",
    f"t={SIGNED},V1={GOOD}",
    f"T={SIGNED},v1={GOOD}",
    f"t={SIGNED}, v1={GOOD}",
    f"t={SIGNED};v1={GOOD}",
    f"t={SIGNED},v1={GOOD.upper()}",
    f"t={SIGNED},v1={GOOD[:-1]}",
    f"t={SIGNED},v1={GOOD[:32]}",
    f"t={SIGNED},v1={GOOD}0",
    f"t={SIGNED},v1={GOOD} ",
    f"t={SIGNED},v1={GOOD}\n",
    f"t={SIGNED},v1={GOOD}\0",
    f't={SIGNED},v1="{GOOD}"',
    f"t={SIGNED},v1=={GOOD}",
    f"t={SIGNED},t={SIGNED},v1={GOOD}",
    f"t={SIGNED},t=1,v1={GOOD}",
    f"t=1,v1={signature(signed=1)}",
    f"t={SIGNED + 1},v1={GOOD}",
    f"t=-{SIGNED},v1={signature(signed=f'-{SIGNED}')}",
    f"t=+{SIGNED},v1={signature(signed=f'+{SIGNED}')}",
    f"t= {SIGNED},v1={signature(signed=f' {SIGNED}')}",
    f"t={SIGNED:_},v1={signature(signed=f'{SIGNED:_}')}",
    f"t={SIGNED}.0,v1={signature(signed=f'{SIGNED}.0')}",
    f"t=0x69564b80,v1={signature(signed='0x69564b80')}",
    f"t=１７６７２２５６００,v1={signature(signed='１７６７２２５６００')}",  # noqa: RUF001  # digits, and not ASCII
    f"t={'9' * 5000},v1={signature(signed='9' * 5000)}",
    f"t=nan,v1={signature(signed='nan')}",
    f"t={SIGNED},v1=é",
    f"t={SIGNED},v1=\ud83d",
    f"t={SIGNED},v1={'0' * 64}",
    f"t={SIGNED}," + ",".join(["v1="] * 20_000),
    "t=" * 50_000,
    "\0" * 100,
]


@pytest.mark.parametrize("header", HOSTILE, ids=lambda header: repr(header)[:40])
def test_everything_else_is_refused_in_the_same_way(header: str | None) -> None:
    """One kind of error: what a stranger can write into a header is no bug of ours."""
    assert refused(header)


@given(st.text(), st.binary())
def test_so_is_whatever_a_stranger_thinks_of(header: str, body: bytes) -> None:
    assert refused(header, body)
    assert refused(f"t={SIGNED},v1={header}", body)


@pytest.mark.parametrize(
    "body",
    [b"", BODY + b" ", BODY.replace(b"1200", b"9999"), json.dumps(json.loads(BODY)).encode()],
)
def test_another_body_is_refused(body: bytes) -> None:
    assert refused(f"t={SIGNED},v1={GOOD}", body)


@pytest.mark.parametrize("seconds", [-300, -1, 0, 1, 300])
def test_a_request_may_be_some_minutes_old_or_its_clock_ahead(seconds: int) -> None:
    assert not refused(f"t={SIGNED},v1={GOOD}", now=NOW + timedelta(seconds=seconds))


@pytest.mark.parametrize("seconds", [-86_400, -301, 301, 86_400])
def test_a_request_that_was_kept_is_refused(seconds: int) -> None:
    assert refused(f"t={SIGNED},v1={GOOD}", now=NOW + timedelta(seconds=seconds))


def test_the_window_is_yours_to_choose_and_the_clock_is_the_machines() -> None:
    header = f"t={SIGNED},v1={GOOD}"
    late = NOW + timedelta(hours=1)
    assert (
        verified(BODY, header, SECRET, tolerance=timedelta(hours=1), now=late).event_id
        == "evt_1Abc"
    )
    with pytest.raises(
        SignatureRefused, match=r"signed at 2026-01-01T00:00:00Z, not within 0:05:00 of now"
    ):
        verified(BODY, header, SECRET, now=late)
    now = int(datetime.now(UTC).timestamp())
    assert verified(BODY, f"t={now},v1={signature(signed=now)}", SECRET).event_id == "evt_1Abc"


def test_an_empty_secret_is_refused_before_anybody_signs_with_it() -> None:
    with pytest.raises(ConfigurationError, match="the signing secret is empty"):
        verified(BODY, f"t={SIGNED},v1={signature(secret='')}", "", now=NOW)


def test_a_refusal_tells_neither_secret_nor_signature() -> None:
    with pytest.raises(SignatureRefused) as parsed:
        verified(BODY, f"t={SIGNED},v1={OTHER}", SECRET, now=NOW)
    said = f"{parsed.value} {parsed.value.hint}"
    assert [secret for secret in (SECRET, GOOD, OTHER) if secret in said] == []


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        (b"", ["body"]),
        (b"\xff", ["body"]),
        (b"[]", ["body"]),
        (b'{"id":NaN}', ["body"]),
        (b"[" * 100_000, ["body"]),
        (b"{}", ["eventId", "type", "occurredAt"]),
        (b'{"id":4711,"type":"x","created":1}', ["eventId"]),
        (b'{"id":"","type":"x","created":1}', ["eventId"]),
        (b'{"id":"' + b"x" * 10_240 + b'","type":"x","created":1}', ["eventId"]),
        (b'{"id":"evt_1","type":"x","created":true}', ["occurredAt"]),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_signed_and_no_event_is_reported_by_its_fields(
    body: bytes, paths: list[str]
) -> None:
    with pytest.raises(PayloadRefused) as parsed:
        verified(body, f"t={SIGNED},v1={signature(body)}", SECRET, now=NOW)
    assert [path for path, _ in parsed.value.errors] == paths


def test_an_event_that_tells_its_moment_as_text_is_read_too() -> None:
    body = b'{"id":"evt_2","type":"v2.core.event","created":"2026-01-01T00:00:00.5Z"}'
    event = verified(body, f"t={SIGNED},v1={signature(body)}", SECRET, now=NOW)
    assert event.occurred_at == NOW + timedelta(milliseconds=500)
