"""A job as its processor sees it: its times, its keys, its fence, and what it says while it runs."""

from __future__ import annotations

import threading
import tracemalloc
from collections import deque
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from corral import Job, Payload, Queue, testing
from corral.job import MAX_LINE_BYTES, MAX_PROGRESS_BYTES, MOST_WAITING, Run
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
    assert testing.job(orders, {}, carrier={"traceparent": "00-1"}).carrier == {
        "traceparent": "00-1"
    }
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
    def test_a_key_is_always_a_legal_job_id_and_the_same_again(
        self, job_id: str, follow_up: str | None
    ) -> None:
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
    def test_what_cannot_become_one_is_the_caller_s_fault_and_says_nothing(
        self, raises: type[BaseException]
    ) -> None:
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

    @pytest.mark.parametrize(
        ("line", "kept"),
        [
            ("x" * MAX_LINE_BYTES, "x" * MAX_LINE_BYTES),
            ("\U0001f40e" * (MAX_LINE_BYTES // 4), "\U0001f40e" * (MAX_LINE_BYTES // 4)),
            ("x" * MAX_LINE_BYTES + "y", "x" * (MAX_LINE_BYTES - 3) + "…"),
            ("ä" * 5_000, "ä" * ((MAX_LINE_BYTES - 3) // 2) + "…"),
            ("x" + "\U0001f40e" * 3_000, "x" + "\U0001f40e" * ((MAX_LINE_BYTES - 4) // 4) + "…"),
            ("\ud83d" * 9_000, "?" * (MAX_LINE_BYTES - 3) + "…"),
        ],
        ids=[
            "longest",
            "longest of four bytes",
            "one more",
            "two bytes",
            "four bytes",
            "half characters",
        ],
    )
    def test_a_line_is_cut_between_characters_and_says_so(self, line: str, kept: str) -> None:
        said = Run()
        job(run=said).log(line)
        assert said.take() == [("log", kept)]

    def test_progress_has_a_limit_and_an_error_that_says_it(self) -> None:
        said = Run()
        job(run=said).progress("x" * (MAX_PROGRESS_BYTES - 2))
        with pytest.raises(ValueError, match=r"^the progress has 65537 bytes, more than 65536$"):
            job(run=said).progress("x" * (MAX_PROGRESS_BYTES - 1))
        assert [len(text) for _, text in said.take()] == [MAX_PROGRESS_BYTES]

    def test_a_flood_costs_nothing_and_its_last_lines_are_kept(self) -> None:
        told: list[None] = []
        said = Run(spoke=lambda *_: told.append(None))
        flooding = job(run=said)
        flooding.progress(50)
        tracemalloc.start()
        try:
            for number in range(100_000):
                flooding.log(f"row {number}")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 500_000
        assert len(told) == 1, "the worker knows already"
        assert said.take() == [("log", f"row {number}") for number in range(99_000, 100_000)] + [
            ("progress", b"50")
        ]
        assert said.take() == []
        flooding.log("more")
        assert len(told) == 2

    @pytest.mark.parametrize(
        ("speak", "size"), [("log", MAX_LINE_BYTES), ("progress", MAX_PROGRESS_BYTES)]
    )
    def test_however_large_what_is_said_only_so_much_of_it_waits(
        self, speak: str, size: int
    ) -> None:
        said = Run(kept=10**6)  # as a job's own keepLogs may want it
        for _ in range(100_000_000 // size):
            getattr(job(run=said), speak)("x" * (size - 2))
            assert sum(len(text) for _, text in said.said) <= 2 * MOST_WAITING
        kept = said.take()
        assert sum(len(text) for _, text in kept) >= MOST_WAITING - size
        assert {kind for kind, _ in kept} == {speak}

    def test_the_last_progress_is_told_once(self) -> None:
        said = Run()
        job(run=said).progress(1)
        job(run=said).progress(1)
        assert said.take() == [("progress", b"1")] * 2

    def test_of_two_threads_that_begin_to_speak_at_once_none_is_unheard(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said = Run()
        second = threading.Thread(target=job(run=said).log, args=("second",))

        def slow(maxlen: int) -> deque[Any]:
            monkeypatch.undo()
            second.start()
            second.join(
                timeout=0.1
            )  # it ends here only if nothing keeps it from making a place of its own
            return deque(maxlen=maxlen)

        monkeypatch.setattr("corral.job.deque", slow)
        job(run=said).log("first")
        second.join(timeout=30)
        assert {text for _, text in said.take()} == {"first", "second"}

    def test_a_job_that_says_nothing_keeps_no_room_for_words(self) -> None:
        run = Run()
        assert run.take() == []
        assert run.words is None

    def test_whoever_writes_it_down_is_told_on_the_thread_that_spoke(self) -> None:
        told: list[str] = []
        run = Run(spoke=lambda *_: told.append(threading.current_thread().name))
        speaking = threading.Thread(target=job(run=run).log, args=("half way",), name="speaker")
        speaking.start()
        speaking.join()
        assert told == ["speaker"]

    def test_it_sees_that_it_is_no_longer_wanted(self) -> None:
        run = Run()
        assert not job(run=run).cancelled
        run.cancelled = True
        assert job(run=run).cancelled
