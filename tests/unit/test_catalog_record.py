"""What processes tell each other about their catalogs, and when that is worth a warning."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from corral.catalog import Catalog
from corral.catalog.record import Record, differences, dumped, parsed, recorded

WORKER = Record("corral-emails", "0.1.0", "02071a546d444bae", "worker", 1_900_000_000_000)
PRODUCER = replace(WORKER, role="producer")


def test_a_process_records_what_it_serves_and_what_it_may_produce_for(site: Any) -> None:
    site.module(
        "acme",
        "a, b = Queue('a', P), Queue('b', P)\n@hookimpl\ndef corral_queues(): return [a, b]\n"
        "async def process(job): pass\n"
        "@hookimpl\ndef corral_processors(): return [a.processed_by(process)]",
    )
    site.install("acme", "a = acme", "b = acme")
    catalog = Catalog.build(site.load(), role="worker", serves=["a"], lock=None)
    records = recorded(catalog, 1_900_000_000_000)
    shape = catalog.get("a").fingerprint
    assert json.loads(dumped(records)) == {
        "a": {
            "distribution": "acme",
            "version": "1.0",
            "fingerprint": shape,
            "role": "worker",
            "time": 1900000000000,
        },
        "b": {
            "distribution": "acme",
            "version": "1.0",
            "fingerprint": shape,
            "role": "producer",
            "time": 1900000000000,
        },
    }
    assert parsed(dumped(records)) == records


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b'{"a": 1}', b'{"a": {"distribution": "acme"}}', b"\xff"]
)
def test_what_another_release_wrote_and_this_one_cannot_read_says_nothing(raw: bytes) -> None:
    assert parsed(raw) == {}


def test_what_another_release_added_is_ignored() -> None:
    raw = json.dumps(
        {"emails": json.loads(dumped({"emails": WORKER}))["emails"] | {"host": "a"}}
    ).encode()
    assert parsed(raw) == {"emails": WORKER}


def test_agreement_is_silent() -> None:
    assert (
        differences({"emails": PRODUCER}, {"w1": {"emails": WORKER}, "p2": {"emails": PRODUCER}})
        == ()
    )
    assert differences({"emails": WORKER}, {}) == ()


def test_another_version_with_the_same_payload_is_a_rolling_deployment() -> None:
    assert (
        differences({"emails": PRODUCER}, {"w1": {"emails": replace(WORKER, version="0.2.0")}})
        == ()
    )


def test_another_distribution_or_another_payload_is_reported_with_both_sides() -> None:
    foreign = replace(
        WORKER, distribution="acme-mail", version="2.3.1", fingerprint="cafe000000000000"
    )
    newer = replace(WORKER, version="0.2.0", fingerprint="beef000000000000")
    others = {
        "w2": {"emails": newer},
        "w1": {"emails": newer},
        "p1": {"emails": replace(foreign, role="producer")},
    }
    of_foreign, of_newer = differences({"emails": WORKER}, others)
    here = "queue 'emails' is corral-emails 0.1.0 with payload 02071a546d444bae here, and"
    assert of_foreign == f"{here} acme-mail 2.3.1 with payload cafe000000000000 in producer p1"
    assert (
        of_newer
        == f"{here} corral-emails 0.2.0 with payload beef000000000000 in worker w1 and 1 more"
    )
