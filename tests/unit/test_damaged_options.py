"""Options that other clients, or a mistake, left in a job's `opts` are read, and never an error."""

from __future__ import annotations

from datetime import timedelta

import pytest

from corral.options import Exponential, Fixed
from corral.store.codec import StoredOptions, decode_job

ODD = (
    "1e400",
    "-1e400",
    "1e300",
    "NaN",
    "Infinity",
    "9" * 400,
    '"abc"',
    "[]",
    "{}",
    "true",
    "null",
    "-5",
    "1.5",
)
PLACES = (
    *(
        '{"attempts":%s}',
        '{"delay":%s}',
        '{"lifo":%s}',
        '{"kl":%s}',
        '{"stackTraceLimit":%s}',
        '{"tm":%s}',
    ),
    *(
        '{"backoff":%s}',
        '{"backoff":{"type":"fixed","delay":%s}}',
        '{"backoff":{"type":"fixed","jitter":%s}}',
        '{"backoff":{"type":"exponential","delay":5,"maxDelay":%s}}',
    ),
    *('{"backoff":{"type":%s}}', '{"removeOnComplete":%s}', '{"removeOnFail":%s}'),
    *(
        '{"removeOnFail":{"count":%s}}',
        '{"removeOnFail":{"age":%s}}',
        '{"removeOnFail":{"limit":%s}}',
    ),
)


def read(opts: str) -> StoredOptions:
    return decode_job(b"a", [b"opts", opts.encode()], "worker:1", 0).options


@pytest.mark.parametrize("place", PLACES)
def test_any_value_anywhere_is_read_as_something(place: str) -> None:
    for value in ODD:
        options = read(place % value)
        assert options.readable, value
        assert options.delay_ms >= 0
        assert options.keep_logs >= 0
        if options.backoff is not None:
            assert timedelta(0) <= options.backoff.delay < timedelta.max
            assert 0 <= options.backoff.jitter <= 1


def test_numbers_that_are_none_count_as_absent_and_endless_waits_are_cut() -> None:
    assert read('{"backoff":1e300}').backoff == Fixed(timedelta(milliseconds=1e14))
    assert read(
        '{"backoff":{"type":"exponential","delay":"5","jitter":NaN}}'
    ).backoff == Exponential(timedelta(milliseconds=5))
    for damaged in ('"x"', "-1", "0", "NaN", "null", "[]"):
        stored = '{"backoff":{"type":"exponential","delay":5,"maxDelay":' + damaged + "}}"
        assert read(stored).backoff == Exponential(timedelta(milliseconds=5)), damaged
    assert read('{"removeOnComplete":1e400,"removeOnFail":7.9}').keep_completed == (0, "", 1000)
    assert read('{"removeOnFail":7.9}').keep_failed == (7, "", 1000)


@pytest.mark.parametrize("field", ["ats", "atm", "attemptsMade", "timestamp"])
@pytest.mark.parametrize("value", [b"", b"abc", b"\xff", b"1e400", b"NaN", b"1.5", b"9" * 5000])
def test_a_count_that_is_no_number_is_none(field: str, value: bytes) -> None:
    job = decode_job(b"a", [field.encode(), value], "worker:1", 0)
    assert job.attempts_made in {0, 1}
    assert job.attempts_started in {1, 2}
    assert job.timestamp_ms in {0, 1}


@pytest.mark.parametrize(
    "opts", ["[" * 100_000, '{"a":' * 500 + "1" + "}" * 500, "{", "[]", '"text"', "null", "\udcff"]
)
def test_what_is_no_json_object_says_so(opts: str) -> None:
    options = decode_job(
        b"a", [b"opts", opts.encode(errors="surrogateescape")], "worker:1", 0
    ).options
    assert options == StoredOptions(readable=False)
