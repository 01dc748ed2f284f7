"""A job as its processor sees it: its times, its keys, its fence, and what it says while it runs."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from corral import Job, Payload, Queue, testing
from corral.job import Run
from corral.options import check_job_id


class Order(Payload):
    order_id: str = ""


orders = Queue("orders", Order)


def job(job_id: str = "a", run: Run | None = None, queue: Queue[Any] = orders) -> Job[Any]:
    return Job(
        id=job_id,
        queue=queue,
        name="orders",
        payload=Order(),
        attempt=2,
        max_attempts=3,
        starts=4,
        enqueued_ms=1_900_000_000_123,
        processed_ms=1_900_000_001_000,
        scheduled_ms=1_900_000_000_500,
        run=run or Run(),
    )


def test_its_carrier_is_what_was_put_in() -> None:
    assert testing.job(orders, {}, carrier={"traceparent": "00-1"}).carrier == {"traceparent": "00-1"}
    assert testing.job(orders, {}).carrier == {}


def test_its_times_are_aware_and_exact_to_the_millisecond() -> None:
    assert job().enqueued_at == datetime(2030, 3, 17, 17, 46, 40, 123_000, tzinfo=UTC)
    assert job().processed_on == datetime(2030, 3, 17, 17, 46, 41, tzinfo=UTC)
    assert job().scheduled_for == datetime(2030, 3, 17, 17, 46, 40, 500_000, tzinfo=UTC)


def test_its_fence_grows_with_every_start() -> None:
    assert job().fence == (1_900_000_000_123, 4)


class TestKeys:
    def test_a_key_names_queue_job_and_follow_up(self) -> None:
        assert job().idempotency_key == "orders.a"
        assert job().key("welcome") == "orders.a.welcome"

    @pytest.mark.parametrize(
        ("job_id", "follow_up"),
        [
            ("x" * 128, None),
            ("x" * 122, None),
            ("repeat:daily:1900000000000", None),
            ("a", "größe"),
            ("a", "a b"),
            ("a", "x" * 200),
            ("42", None),
            ("a", ""),
        ],
    )
    def test_a_key_is_always_a_legal_job_id_and_the_same_again(self, job_id: str, follow_up: str | None) -> None:
        key = job(job_id).key(follow_up)
        check_job_id(key)
        assert key == job(job_id).key(follow_up)
        assert key.startswith("orders.")

    def test_a_key_is_legal_for_the_longest_queue_name_too(self) -> None:
        check_job_id(job("x" * 128, queue=Queue("q" * 64, Order)).key("welcome"))

    def test_keys_that_had_to_be_hashed_differ(self) -> None:
        long = job("x" * 128)
        assert len({long.key(), long.key("a"), long.key("b"), job("y" * 128).key()}) == 4


class TestSaying:
    def test_what_it_says_is_kept_in_order_until_somebody_takes_it(self) -> None:
        said = Run()
        job(run=said).progress({"done": 1})
        job(run=said).log("half way")
        assert list(said.said) == [("progress", b'{"done":1}'), ("log", "half way")]

    def test_what_is_no_text_becomes_one_in_the_caller(self) -> None:
        class Text(str):
            def encode(self, *_: object) -> bytes:
                raise SystemExit("on the worker's loop")

        said, anything = Run(), cast("Any", 7)
        job(run=said).log(anything)
        job(run=said).log(Text("half way"))
        assert list(said.said) == [("log", "7"), ("log", "half way")]
        assert [type(text) for _, text in said.said] == [str, str]

    @pytest.mark.parametrize("raises", [ValueError, SystemExit, KeyboardInterrupt])
    def test_what_cannot_become_one_is_the_caller_s_fault_and_says_nothing(self, raises: type[BaseException]) -> None:
        class Bad(list):
            def __str__(self) -> str:
                raise raises("no text")

            def __iter__(self) -> Any:
                raise raises("no text")

        said, bad = Run(), cast("Any", Bad())
        with pytest.raises(raises, match="no text"):
            job(run=said).log(bad)
        with pytest.raises(BaseException, match="no text"):
            job(run=said).progress(each for each in bad)
        assert list(said.said) == []

    def test_progress_is_strict_json(self) -> None:
        said = Run()
        job(run=said).progress([float("nan"), float("inf"), 0.5])
        assert list(said.said) == [("progress", b"[null,null,0.5]")]

    def test_whoever_writes_it_down_is_told_on_the_thread_that_spoke(self) -> None:
        told: list[str] = []
        run = Run(spoke=lambda: told.append(threading.current_thread().name))
        speaking = threading.Thread(target=job(run=run).log, args=("half way",), name="speaker")
        speaking.start()
        speaking.join()
        assert told == ["speaker"]

    def test_it_sees_that_it_is_no_longer_wanted(self) -> None:
        run = Run()
        assert not job(run=run).cancelled
        run.cancelled = True
        assert job(run=run).cancelled
