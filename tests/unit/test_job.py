"""A job as its processor sees it: its times, its keys, its fence, its progress and log lines."""

from __future__ import annotations

import threading
import tracemalloc
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from corral import Job, Payload, Queue, testing
from corral.job import MAX_LINE_BYTES, MAX_PROGRESS_BYTES, MAX_WAITING_CHARS, RunState
from corral.options import check_job_id


class Order(Payload):
    order_id: str = ""


orders = Queue("orders", Order)


def job(job_id: str = "a", run: RunState | None = None, queue: Queue[Any] = orders) -> Job[Any]:
    return Job(
        id=job_id,
        queue=queue,
        name="orders",
        payload=Order(),
        attempt=2,
        max_attempts=3,
        starts=4,
        _run=run or RunState(),
    )


def timed_job() -> Job[Any]:
    """A job that was enqueued, was due and was started at known times."""
    return job(run=RunState(1_900_000_000_123, 1_900_000_001_000, 1_900_000_000_500))


def test_its_carrier_is_the_one_that_was_given() -> None:
    assert testing.job(orders, {}, carrier={"traceparent": "00-1"}).carrier == {
        "traceparent": "00-1"
    }
    assert testing.job(orders, {}).carrier == {}


def test_its_times_are_aware_and_exact_to_the_millisecond() -> None:
    assert timed_job().enqueued_at == datetime(2030, 3, 17, 17, 46, 40, 123_000, tzinfo=UTC)
    assert timed_job().processed_on == datetime(2030, 3, 17, 17, 46, 41, tzinfo=UTC)
    assert timed_job().scheduled_for == datetime(2030, 3, 17, 17, 46, 40, 500_000, tzinfo=UTC)


def test_its_fence_grows_with_every_start() -> None:
    assert timed_job().fence == (1_900_000_000_123, 4)


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
    def test_a_key_is_always_a_legal_job_id_and_always_the_same(
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


class TestNotes:
    def test_notes_are_kept_in_order_until_they_are_taken(self) -> None:
        run = RunState()
        job(run=run).progress({"done": 1})
        job(run=run).log("half way")
        assert list(run.notes) == [("progress", b'{"done":1}'), ("log", "half way")]

    def test_anything_but_a_text_is_converted_in_the_caller(self) -> None:
        class Text(str):
            def encode(self, *_: object) -> bytes:
                raise SystemExit("on the worker's loop")

        run, anything = RunState(), cast("Any", 7)
        job(run=run).log(anything)
        job(run=run).log(Text("half way"))
        assert list(run.notes) == [("log", "7"), ("log", "half way")]
        assert [type(text) for _, text in run.notes] == [str, str]

    @pytest.mark.parametrize("raises", [ValueError, SystemExit, KeyboardInterrupt])
    def test_a_line_that_cannot_be_converted_raises_in_the_caller_and_adds_no_note(
        self, raises: type[BaseException]
    ) -> None:
        class Bad(list):
            def __str__(self) -> str:
                raise raises("no text")

            def __iter__(self) -> Any:
                raise raises("no text")

        run, bad = RunState(), cast("Any", Bad())
        with pytest.raises(raises, match="no text"):
            job(run=run).log(bad)
        with pytest.raises(BaseException, match="no text"):
            job(run=run).progress(each for each in bad)
        assert list(run.notes) == []

    def test_progress_is_strict_json(self) -> None:
        run = RunState()
        job(run=run).progress([float("nan"), float("inf"), 0.5])
        assert list(run.notes) == [("progress", b"[null,null,0.5]")]

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
    def test_a_long_line_is_cut_between_characters_and_ends_with_an_ellipsis(
        self, line: str, kept: str
    ) -> None:
        run = RunState()
        job(run=run).log(line)
        assert run.take_notes() == [("log", kept)]

    def test_progress_that_is_too_large_raises_an_error_with_the_limit(self) -> None:
        run = RunState()
        job(run=run).progress("x" * (MAX_PROGRESS_BYTES - 2))
        with pytest.raises(ValueError, match=r"^the progress has 65537 bytes, more than 65536$"):
            job(run=run).progress("x" * (MAX_PROGRESS_BYTES - 1))
        assert [len(text) for _, text in run.take_notes()] == [MAX_PROGRESS_BYTES]

    def test_a_flood_costs_nothing_and_its_last_lines_are_kept(self) -> None:
        calls: list[None] = []
        run = RunState(on_note=lambda *_: calls.append(None))
        flooding = job(run=run)
        flooding.progress(50)
        tracemalloc.start()
        try:
            for number in range(100_000):
                flooding.log(f"row {number}")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 500_000
        assert len(calls) == 1, "it was announced already"
        assert run.take_notes() == [
            ("log", f"row {number}") for number in range(99_000, 100_000)
        ] + [("progress", b"50")]
        assert run.take_notes() == []
        flooding.log("more")
        assert len(calls) == 2

    @pytest.mark.parametrize(
        ("method", "size"), [("log", MAX_LINE_BYTES), ("progress", MAX_PROGRESS_BYTES)]
    )
    def test_notes_of_any_size_wait_within_the_same_limit(self, method: str, size: int) -> None:
        run = RunState(max_notes=10**6)  # as a job's own keepLogs may want it
        for _ in range(100_000_000 // size):
            getattr(job(run=run), method)("x" * (size - 2))
            assert sum(len(text) for _, text in run.notes) <= 2 * MAX_WAITING_CHARS
        kept = run.take_notes()
        assert sum(len(text) for _, text in kept) >= MAX_WAITING_CHARS - size
        assert {kind for kind, _ in kept} == {method}

    def test_the_last_progress_is_taken_once(self) -> None:
        run = RunState()
        job(run=run).progress(1)
        job(run=run).progress(1)
        assert run.take_notes() == [("progress", b"1")] * 2

    def test_two_threads_that_add_their_first_notes_at_once_lose_none(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = RunState()
        second = threading.Thread(target=job(run=run).log, args=("second",))

        def slow(maxlen: int) -> deque[Any]:
            monkeypatch.undo()
            second.start()
            second.join(timeout=0.1)  # it ends in here only if it can make a buffer of its own
            return deque(maxlen=maxlen)

        monkeypatch.setattr("corral.job.deque", slow)
        job(run=run).log("first")
        second.join(timeout=30)
        assert {text for _, text in run.take_notes()} == {"first", "second"}

    def test_a_job_without_notes_has_no_buffer_for_them(self) -> None:
        run = RunState()
        assert run.take_notes() == []
        assert run.buffer is None

    def test_the_worker_is_called_on_the_thread_that_added_the_note(self) -> None:
        calls: list[str] = []
        run = RunState(on_note=lambda *_: calls.append(threading.current_thread().name))
        thread = threading.Thread(target=job(run=run).log, args=("half way",), name="author")
        thread.start()
        thread.join()
        assert calls == ["author"]

    def test_it_shows_that_its_result_is_no_longer_wanted(self) -> None:
        run = RunState()
        assert not job(run=run).cancelled
        run.cancelled = True
        assert job(run=run).cancelled

    def test_its_duration_is_zero_until_the_processor_has_ended(self) -> None:
        run = RunState()
        assert job(run=run).duration == timedelta(0)
        run.seconds = 1.5
        assert job(run=run).duration == timedelta(seconds=1.5)


def test_an_author_sees_no_parts_of_the_framework() -> None:
    shown = {name for name in dir(job()) if not name.startswith("_")}
    assert shown == {
        *("id", "queue", "name", "payload", "attempt", "max_attempts", "starts"),
        *("enqueued_at", "processed_on", "scheduled_for", "duration"),
        *("idempotency_key", "key", "fence", "carrier", "cancelled", "progress", "log"),
    }
