"""Logs: what a line holds, whichever code writes it, and what it never holds."""

from __future__ import annotations

import asyncio
import contextvars
import io
import json
import logging
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import structlog
from opentelemetry import trace

from corral import Job, Payload, Queue
from corral.errors import ConfigurationError
from corral.job import RunState, current_job
from corral.loggers import Logger
from corral.observe import logs
from corral.observe.logs import configure_logs, formatter
from corral.redactor import MASK
from corral.settings import Settings

PROGRAM = """
import logging, warnings
import structlog
from corral.observe.logs import configure_logs
from corral.settings import Settings

configure_logs(Settings.read())
log = structlog.get_logger("acme")
log.debug("quiet")
log.info("logged", n=1)
logging.getLogger("library").debug("body: %s", "secret")
logging.getLogger("library").warning("stdlib %s", "too")
logging.getLogger("library").warning("wrong %d", "arguments")
warnings.warn("deprecated")
with structlog.contextvars.bound_contextvars(worker="w1"):
    log.error("last")
"""


class Empty(Payload):
    pass


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def job_of(queue: Queue[Any], payload: Payload) -> Job[Any]:
    return Job(
        id="01J",
        queue=queue,
        name=queue.name,
        payload=payload,
        attempt=2,
        max_attempts=3,
        starts=2,
        _run=RunState(),
    )


@pytest.fixture
def job() -> Iterator[Job[Empty]]:
    job = job_of(Queue("emails", Empty), Empty())
    token = current_job.set(job)
    yield job
    current_job.reset(token)


def raise_(error: Exception) -> None:
    raise error


def logger(
    stream: io.StringIO, *, console: bool = False, colours: bool = False, added: Any = ()
) -> Any:
    """What `structlog.get_logger("acme")` is in a worker whose logs go to a stream."""
    handler = logs._Handler(stream)
    handler.setFormatter(formatter(console=console, colours=colours, added=added))
    target = logs._StructlogLogger("acme")
    target._logger = logging.Logger("acme")  # noqa: LOG001  # one of its own, which no other test has
    target._logger.addHandler(handler)
    return structlog.wrap_logger(
        target, processors=[], wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG)
    )


def line(event: str, *, console: bool = False, colours: bool = False, **values: object) -> str:
    stream = io.StringIO()
    logger(stream, console=console, colours=colours).info(event, **values)
    return stream.getvalue().removesuffix("\n")


def run(**environ: str) -> list[str]:
    """What a program says on stderr, which is no terminal here."""
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith("CORRAL_")
    } | environ
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


# --- the whole set-up, in programs of their own


def test_without_a_terminal_everybody_writes_json_lines_to_stderr() -> None:
    lines = [json.loads(line) for line in run()]
    assert [(line["level"], line["logger"], line["event"]) for line in lines[:3]] == [
        ("info", "acme", "logged"),
        ("warning", "library", "stdlib too"),
        ("warning", "library", "wrong %d (its arguments do not fit)"),
    ]
    assert lines[3]["logger"] == "py.warnings"
    assert "UserWarning: deprecated" in lines[3]["event"]
    assert lines[4]["worker"] == "w1"
    assert len(lines) == 5


def test_debug_is_for_our_own_lines_because_libraries_log_what_they_send() -> None:
    logged = "\n".join(run(CORRAL_LOG_LEVEL="debug"))
    assert "quiet" in logged
    assert "secret" not in logged


def test_the_level_holds_for_everybody() -> None:
    assert [json.loads(line)["event"] for line in run(CORRAL_LOG_LEVEL="error")] == ["last"]


def test_the_console_can_be_asked_for_and_has_no_colours_without_a_terminal() -> None:
    first = run(CORRAL_LOG_FORMAT="console")[0]
    assert first.endswith("info     logged logger=acme n=1")
    assert "\x1b" not in first


@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_terminal_gets_text_for_people(no_color: str) -> None:
    ours, theirs = pty.openpty()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CORRAL_")}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=environ | {"NO_COLOR": no_color}, stderr=theirs
    ) as program:
        assert program.wait(30) == 0
    os.close(theirs)
    said = os.read(ours, 65536).decode()
    os.close(ours)
    assert "logged" in said
    assert "{" not in said
    assert ("\x1b[" in said) is not bool(no_color)


def test_a_closed_pipe_is_no_error() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM + "\nprint('went on')"], stderr=theirs, stdout=-1
    ) as program:
        os.close(theirs)
        said, _ = program.communicate(timeout=30)
    assert said.strip() == b"went on"


def test_a_logger_that_was_used_before_follows_a_new_set_up() -> None:
    script = """
import sys, structlog
from structlog.testing import capture_logs
from corral.observe.logs import configure_logs
from corral.settings import Settings
log = structlog.get_logger("acme")
configure_logs(Settings(log_format="json"))
log.info("one")
configure_logs(Settings(log_format="console"))
log.info("two")
with capture_logs() as captured:
    log.info("three")
print(captured[0]["event"])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    first, second = done.stderr.splitlines()
    assert json.loads(first)["event"] == "one"
    assert second.endswith("info     two logger=acme")
    assert done.stdout == "three\n"


# --- what a line holds


def test_keys_have_one_order_and_unknown_ones_follow() -> None:
    said = line(
        "retry", reason="451", worker="w1", duration_ms=12, attempt=1, job_id="1", queue="emails"
    )
    assert list(json.loads(said)) == [
        "timestamp", "level", "event", "logger", "queue", "job_id", "attempt", "duration_ms", "worker", "reason",
    ]  # fmt: skip


def test_times_are_utc_with_their_zone() -> None:
    assert json.loads(line("now"))["timestamp"].endswith("Z")


def test_a_line_names_the_job_in_whose_task_it_is_written(job: Job[Empty]) -> None:
    assert {key: json.loads(line("sent"))[key] for key in ("queue", "job_id", "attempt")} == {
        "queue": "emails",
        "job_id": "01J",
        "attempt": 2,
    }


def test_a_line_names_the_job_in_threads_that_run_in_its_context(job: Job[Empty]) -> None:
    said: list[str] = []
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(lambda: said.append(line("sent")),))
    thread.start()
    thread.join(10)
    assert json.loads(said[0])["job_id"] == "01J"


def test_what_a_line_says_itself_comes_before_the_current_job(job: Job[Empty]) -> None:
    assert json.loads(line("enqueued", queue="other"))["queue"] == "other"


def test_without_a_job_a_line_has_no_job_keys() -> None:
    assert not {"queue", "job_id", "attempt"} & json.loads(line("idle")).keys()


def test_tasks_do_not_share_their_job(job: Job[Empty]) -> None:
    async def other() -> str:
        current_job.set(None)
        return line("other")

    async def both() -> str:
        return await asyncio.create_task(other())

    assert "job_id" not in json.loads(asyncio.run(both()))
    assert json.loads(line("mine"))["job_id"] == "01J"


# --- what a line never holds, nor does


@pytest.mark.parametrize("console", [False, True])
def test_a_traceback_has_no_local_variables(console: bool) -> None:
    stream = io.StringIO()
    try:
        letter = "to: " + "alice"
        raise_(LookupError("no such user"))
    except LookupError:
        logger(stream, console=console).exception("failed")
    said = stream.getvalue()
    assert "LookupError: no such user" in said
    assert "test_logs.py" in said
    assert letter not in said


@pytest.mark.parametrize("console", [False, True])
def test_control_characters_neither_move_the_cursor_nor_forge_lines(console: bool) -> None:
    said = line(
        "done\n2026 error forged\x1b[2J",
        console=console,
        name="x\x07\u202e",
        listed=["\x1b"],
        key="\x9b",
    )
    assert said.isprintable()
    assert "\\u001b[2J" in said or "\\x1b[2J" in said


def test_a_traceback_on_the_console_keeps_its_lines_and_nothing_worse() -> None:
    stream = io.StringIO()
    try:
        raise_(ValueError("\x1b[2J"))
    except ValueError:
        logger(stream, console=True).exception("failed")
    said = stream.getvalue()
    assert "\nTraceback (most recent call last):\n" in said
    assert "\x1b" not in said


@pytest.mark.parametrize("console", [False, True])
def test_passwords_of_urls_are_masked_wherever_they_stand(console: bool) -> None:
    stream = io.StringIO()
    try:
        raise_(ConnectionError("redis://user:hunter2@host is away"))
    except ConnectionError:
        logger(stream, console=console).exception(
            "at redis://:hunter2@host", url="redis://u:hunter2@h", all=["amqp://a:hunter2@b"]
        )
    assert "hunter2" not in stream.getvalue()
    assert "redis://user:***@host is away" in stream.getvalue()


@pytest.mark.parametrize("console", [False, True])
def test_no_value_fails_the_line(console: bool) -> None:
    circle: list[object] = []
    circle.append(circle)
    said = line(
        "odd",
        console=console,
        circle=circle,
        bad=Unprintable(),
        keys={(1, 2): 3},
        lone="\ud800",
        set={1},
    )
    assert "odd" in said
    assert "<Unprintable that cannot be shown>" in said
    if not console:
        assert json.loads(said)["event"] == "odd"


def test_the_console_reads_like_text() -> None:
    said = line("mail sent", console=True, to="Ada L.", size=3, empty="")
    assert said.endswith("info     mail sent logger=acme to='Ada L.' size=3 empty=''")


def test_a_closed_stream_is_no_error() -> None:
    stream = io.StringIO()
    stream.close()
    logger(stream).info("nobody reads this")


def test_lines_of_many_threads_stay_whole() -> None:
    stream = io.StringIO()
    log = logger(stream)
    threads = [
        threading.Thread(target=lambda: [log.info("x" * 100) for _ in range(50)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 200
    assert all(json.loads(line)["event"] == "x" * 100 for line in lines)


def test_a_configured_stream_gets_the_lines() -> None:
    """Run apart from this process, whose own logging it would change."""
    script = """
import io, logging
from corral.observe.logs import configure_logs
from corral.settings import Settings
stream = io.StringIO()
configure_logs(Settings(log_format="json"), stream)
configure_logs(Settings(log_format="json"), stream)
logging.getLogger("library").error("once")
assert stream.getvalue().count("once") == 1, stream.getvalue()
"""
    subprocess.run([sys.executable, "-c", script], timeout=30, check=True)


# --- a team's own processors


def test_a_team_s_processors_see_every_line_before_it_is_masked_and_rendered(
    tmp_path: Path,
) -> None:
    (tmp_path / "acme_logs.py").write_text(
        "import structlog\n"
        "def add_region(logger, method, event):\n"
        "    return {**event, 'region': 'eu', 'api_key': 'k-1234'}\n"
        "def drop_health(logger, method, event):\n"
        "    if event['event'] == 'stdlib too':\n"
        "        raise structlog.DropEvent\n"
        "    return event\n"
        "def broken(logger, method, event):\n"
        "    raise LookupError('no region')\n"
        "PROCESSORS = [add_region, drop_health, broken]\n",
        "utf-8",
    )
    lines = [
        json.loads(line)
        for line in run(CORRAL_LOG_PROCESSORS="acme_logs:PROCESSORS", PYTHONPATH=str(tmp_path))
    ]
    assert [line["event"] for line in lines] == [
        "logged",
        "wrong %d (its arguments do not fit)",
        ANY,
        "last",
    ]
    assert {line["region"] for line in lines} == {"eu"}
    assert {line["api_key"] for line in lines} == {MASK}
    assert {line["log_processor_failed"] for line in lines} == {"broken: LookupError: no region"}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("acme_nowhere:PROCESSORS", "ModuleNotFoundError: No module named 'acme_nowhere'"),
        ("json:PROCESSORS", "AttributeError: module 'json' has no attribute 'PROCESSORS'"),
        ("json:dumps", "TypeError: Value after * must be an iterable"),
        ("json:__all__", "'dump' in it cannot be called"),
    ],
)
def test_processors_that_cannot_be_used_refuse_the_start(path: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match="CORRAL_LOG_PROCESSORS") as refused:
        configure_logs(Settings(log_processors=path))
    assert message in str(refused.value)


# --- Corral's own loggers, in whatever program they are


def record_of(caplog: pytest.LogCaptureFixture) -> logging.LogRecord:
    (record,) = caplog.records
    return record


def test_a_host_gets_a_line_of_text_with_all_fields_and_each_as_an_attribute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    Logger("corral.acme").warning(
        "100 % done", queue="emails", reason="no space", n=2, url="redis://u:hunter2@h"
    )
    record = record_of(caplog)
    assert (
        record.getMessage() == "100 % done queue=emails reason='no space' n=2 url=redis://u:***@h"
    )
    assert (record.event, record.queue, record.n) == ("100 % done", "emails", 2)
    assert (record.name, record.levelname, record.funcName) == (
        "corral.acme",
        "WARNING",
        "test_a_host_gets_a_line_of_text_with_all_fields_and_each_as_an_attribute",
    )


def test_every_record_of_an_event_has_one_template_by_which_a_tracker_groups(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for number in range(2):
        Logger("corral.acme").error("job failed", job_id=str(number))
    first, second = caplog.records
    assert first.msg == second.msg == "job failed job_id=%(job_id)s"


def test_a_host_gets_tracebacks_as_text_and_no_frames_to_read_local_variables_from(
    caplog: pytest.LogCaptureFixture,
) -> None:
    letter = "dear " + "alice"
    try:
        raise_(LookupError("no such user"))
    except LookupError as error:
        Logger("corral.acme").error("failed", exc_info=error)
        Logger("corral.acme").error("failed", exc_info=True)
    for record in caplog.records:
        assert record.exc_info is None
        assert record.getMessage() == "failed error='LookupError: no such user'"
        text = logging.Formatter("%(message)s").format(record)
        assert "\nTraceback (most recent call last):\n" in text
        assert text.endswith("\nLookupError: no such user")
        assert letter not in text


def test_a_line_below_the_host_s_level_is_not_written(caplog: pytest.LogCaptureFixture) -> None:
    Logger("corral.acme").info("quiet")
    assert caplog.records == []
    with caplog.at_level(logging.DEBUG, "corral"):
        Logger("corral.acme").debug("logged")
    assert record_of(caplog).levelname == "DEBUG"


@pytest.mark.parametrize("name", ["args", "name", "message", "exc_text", "a%b", "(", "event_"])
def test_a_field_may_have_any_name(name: str, caplog: pytest.LogCaptureFixture) -> None:
    Logger("corral.acme").warning("odd", **{name: "v"})
    assert record_of(caplog).getMessage().startswith("odd ")
    assert record_of(caplog).getMessage().endswith("=v")


def test_what_is_secret_in_the_job_reaches_no_handler(caplog: pytest.LogCaptureFixture) -> None:
    class Login(Payload):
        password: str
        code: int

    job = job_of(Queue("logins", Login), Login(password="hunter2-hunter2", code=1))
    token = current_job.set(job)
    try:
        Logger("corral.acme").warning(
            "got hunter2-hunter2",
            logged=["hunter2-hunter2", {"x": "hunter2-hunter2"}],
            token="abc",
            error=Exception("x"),
        )
    finally:
        current_job.reset(token)
    record = record_of(caplog)
    assert "hunter2" not in f"{vars(record)}"
    assert "abc" not in record.getMessage()
    assert (record.queue, record.job_id) == ("logins", "01J")


def test_a_line_says_in_which_trace_it_was_written(caplog: pytest.LogCaptureFixture) -> None:
    span = trace.NonRecordingSpan(trace.SpanContext(0xA, 0xB, is_remote=False))
    with trace.use_span(span):
        Logger("corral.acme").warning("traced")
    Logger("corral.acme").warning("not traced")
    first, second = caplog.records
    assert (first.trace_id, first.span_id) == (f"{0xA:032x}", f"{0xB:016x}")
    assert not hasattr(second, "trace_id")


def test_a_worker_s_line_of_anybody_has_the_trace() -> None:
    span = trace.NonRecordingSpan(trace.SpanContext(0xA, 0xB, is_remote=False))
    with trace.use_span(span):
        said = json.loads(line("traced"))
    assert (said["trace_id"], said["span_id"]) == (f"{0xA:032x}", f"{0xB:016x}")
