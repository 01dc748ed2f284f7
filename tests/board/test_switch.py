"""Whether the board is on: one exact rule (S-01), and what its settings refuse."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from board.asking import DIGEST, PAGE, Host, ask
from corral.board import Board
from corral.board.board_settings import BoardSettings
from corral.board.request_guard import HEADERS
from corral.board.routes import ROUTES
from corral.cli import cli
from corral.errors import ConfigurationError

TABLE = """
environment  flag     none     set
-            -        off      off
-            empty    off      off
-            0        off      off
-            1        refused  on
-            true     refused  on
-            TRUE     refused  refused
-            yes      refused  refused
-            garbage  refused  refused
production   -        off      off
production   empty    off      off
production   0        off      off
production   1        refused  on
production   true     refused  on
production   TRUE     refused  refused
production   yes      refused  refused
production   garbage  refused  refused
staging      -        off      off
staging      empty    off      off
staging      0        off      off
staging      1        refused  on
staging      true     refused  on
staging      TRUE     refused  refused
staging      yes      refused  refused
staging      garbage  refused  refused
development  -        on       on
development  empty    on       on
development  0        off      off
development  1        on       on
development  true     on       on
development  TRUE     refused  refused
development  yes      refused  refused
development  garbage  refused  refused
test         -        off      off
test         empty    off      off
test         0        off      off
test         1        refused  on
test         true     refused  on
test         TRUE     refused  refused
test         yes      refused  refused
test         garbage  refused  refused
"""
"""`-`: not set; `empty`: an empty text. The last columns: without and with an authenticator."""

CASES = [
    (environment, flag, authenticator, outcome)
    for environment, flag, *outcomes in map(str.split, TABLE.strip().splitlines()[1:])
    for authenticator, outcome in zip(("none", "set"), outcomes, strict=True)
]
NOT_OURS = "192.0.2.1"
"""An address for documentation (RFC 5737).

No machine has it, so listening fails, and only after the rule has been applied.
"""
FLAGS = ("CORRAL_BOARD_ENABLED", "BULL_BOARD_ENABLED")


@pytest.fixture
def environ(on: str, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without a variable of the board."""
    for name in ("CORRAL_ENV", "CORRAL_BOARD_ENABLED", "CORRAL_BOARD_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def say(environ: pytest.MonkeyPatch, environment: str, flag: str, flag_name: str) -> None:
    for name, word in (("CORRAL_ENV", environment), (flag_name, flag)):
        if word != "-":
            environ.setenv(name, "" if word == "empty" else word)


def test_the_table_has_all_eighty_cases() -> None:
    assert len(CASES) == len(set(CASES)) == 80


@pytest.mark.asyncio
@pytest.mark.parametrize("flag_name", FLAGS)
@pytest.mark.parametrize(("environment", "flag", "authenticator", "outcome"), CASES)
async def test_the_rule(
    environ: pytest.MonkeyPatch,
    environment: str,
    flag: str,
    authenticator: str,
    outcome: str,
    flag_name: str,
) -> None:
    say(environ, environment, flag, flag_name)
    board = Board(authorize=None if authenticator == "none" else Host().who)
    if outcome == "refused":
        with pytest.raises(ConfigurationError) as refused:
            board.start()
        assert refused.value.exit_code == 2
        assert not board.is_on
        return
    statuses = {
        (await ask(board, "GET", path, headers=PAGE, host="localhost")).status
        for path in ("/", "/login")
    }
    assert board.is_on == (outcome == "on")
    assert (statuses == {404}) == (outcome == "off")
    await board.close()


@pytest.mark.parametrize(("environment", "flag", "password", "outcome"), CASES)
def test_the_rule_at_the_command(
    environ: pytest.MonkeyPatch, environment: str, flag: str, password: str, outcome: str
) -> None:
    """`corral board` also ends with 2 where the board is off: there is nothing to serve."""
    say(environ, environment, flag, FLAGS[0])
    if password == "set":
        environ.setenv("CORRAL_BOARD_PASSWORD", str(DIGEST))
    with pytest.raises(ConfigurationError) as ended:
        cli.main(["board", "--host", NOT_OURS, "--port", "0"], standalone_mode=False)
    text = str(ended.value)
    assert ended.value.exit_code == 2
    assert ("cannot listen" in text) == (outcome == "on")
    assert ("is switched off" in text) == (outcome == "off")


@pytest.mark.asyncio
@pytest.mark.parametrize("authenticator", ["none", "set"])
async def test_off_is_404_everywhere_with_nothing_in_it(
    environ: pytest.MonkeyPatch, authenticator: str
) -> None:
    board = Board(authorize=None if authenticator == "none" else Host().who)
    paths = {route.pattern.format(queue="letters", job_id="1") for route in ROUTES}
    paths |= {"", "/login", "/logout", "/live", "/static/board.css", "//", "/nothing"}
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
        for path in paths:
            for host in ("localhost", "evil.example"):
                got = await ask(board, method, path, headers={"x-user": "admin"}, host=host)
                assert (got.status, got.body, got.cookies) == (404, b"Not Found", {})


@pytest.mark.asyncio
async def test_in_development_a_board_without_authenticator_logs_a_link_that_works_once(
    environ: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    environ.setenv("CORRAL_ENV", "development")
    board = Board()
    assert "/login?link=" not in caplog.text
    board.start()
    found = re.search(r"/login\?link=([\w-]{43})", caplog.text)
    assert found
    statuses = []
    for _ in range(2):
        headers = {"sec-fetch-site": "same-origin"}
        got = await ask(
            board, "POST", "/login", headers=headers, body={"link": found[1]}, host="localhost"
        )
        statuses.append(got.status)
    assert statuses == [200, 401]
    await board.close()


WRONG = {"CORRAL_BOARD_ENABLED": "yes", "CORRAL_BOARD_PASSWORD": "hunter2hunter2"}


def test_making_a_board_reads_nothing(environ: pytest.MonkeyPatch) -> None:
    for name, value in WRONG.items():
        environ.setenv(name, value)
    board = Board(authorize=Host().who)
    assert not board.is_on
    environ.setenv("CORRAL_BOARD_ENABLED", "true")
    environ.delenv("CORRAL_BOARD_PASSWORD")
    board.start()
    assert board.is_on
    environ.setenv("CORRAL_BOARD_ENABLED", "yes")
    board.start()
    assert board.is_on, "a second start does nothing"


@pytest.mark.asyncio
async def test_a_wrong_setting_is_one_error_and_500_for_every_request(
    environ: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A host application that does not call `start` finds out with the first request."""
    for name, value in WRONG.items():
        environ.setenv(name, value)
    board = Board(authorize=Host().who)
    for path in ("/", "/login", "/static/board.css", "/nothing"):
        got = await ask(board, "GET", path, headers={**PAGE, "x-user": "admin"}, host="localhost")
        assert (got.status, got.text) == (500, "the board cannot start: the log says why")
        assert {name: got.header(name) for name in HEADERS} == dict(HEADERS)
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert all(name in caplog.text for name in WRONG)
    assert "hunter2" not in caplog.text


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("flag", "answer"), [("yes", "lifespan.startup.failed"), ("true", "lifespan.startup.complete")]
)
async def test_the_server_learns_at_its_start_whether_the_board_can_start(
    environ: pytest.MonkeyPatch, flag: str, answer: str
) -> None:
    environ.setenv("CORRAL_BOARD_ENABLED", flag)
    board, sent = Board(authorize=Host().who), []
    events = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive() -> dict[str, str]:
        return {"type": next(events)}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await board({"type": "lifespan"}, receive, send)
    assert sent[0]["type"] == answer
    if flag == "yes":
        assert "CORRAL_BOARD_ENABLED: write true or 1" in sent[0]["message"]
    else:
        assert sent[1:] == [{"type": "lifespan.shutdown.complete"}]


@pytest.mark.parametrize(
    ("one", "other", "outcome"),
    [
        ("true", "1", True),
        ("0", "false", False),
        ("", "true", True),
        ("1", "", True),
        ("", "", None),
    ],
)
def test_the_two_names_of_the_flag_may_agree(
    environ: pytest.MonkeyPatch, one: str, other: str, outcome: bool | None
) -> None:
    environ.setenv(FLAGS[0], one)
    environ.setenv(FLAGS[1], other)
    assert BoardSettings().enabled is outcome


@pytest.mark.parametrize(
    ("one", "other"), [("true", "false"), ("0", "1"), ("true", "yes"), ("on", "true")]
)
def test_the_two_names_of_the_flag_must_not_contradict(
    environ: pytest.MonkeyPatch, one: str, other: str
) -> None:
    environ.setenv(FLAGS[0], one)
    environ.setenv(FLAGS[1], other)
    with pytest.raises(ConfigurationError, match=r"CORRAL_BOARD_ENABLED: .*BULL_BOARD_ENABLED"):
        BoardSettings()


def test_everything_that_is_wrong_is_reported_at_once_without_its_values(
    environ: pytest.MonkeyPatch,
) -> None:
    wrong = {
        "CORRAL_BOARD_ENABLED": "TRUE",
        "CORRAL_BOARD_PASSWORD": "hunter2hunter2",
        "CORRAL_BOARD_HOSTS": "https://board.example.org",
        "CORRAL_BOARD_METRICS_TOKEN": "short",
        "CORRAL_BOARD_PASWORD": "hunter3hunter3",
    }
    for name, value in wrong.items():
        environ.setenv(name, value)
    with pytest.raises(ConfigurationError) as refused:
        Board(authorize=Host().who).start()
    text = str(refused.value)
    assert [name for name in wrong if name not in text] == []
    assert [value for value in wrong.values() if value in text] == []
    assert "did you mean CORRAL_BOARD_PASSWORD?" in text
    assert "corral board --hash-password" in text


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("CORRAL_BORD_ENABLED", "CORRAL_BOARD_ENABLED"),
        ("CORRAL_BOARD_ENABELD", "CORRAL_BOARD_ENABLED"),
        ("CORRAL_BOARD_HOST", "CORRAL_BOARD_HOSTS"),
    ],
)
def test_a_misspelt_name_is_refused(environ: pytest.MonkeyPatch, name: str, meant: str) -> None:
    environ.setenv(name, "true")
    with pytest.raises(ConfigurationError, match=f"did you mean {meant}"):
        Board(authorize=Host().who).start()


@pytest.mark.parametrize(
    ("value", "networks"),
    [
        ("", ()),
        ("10.0.0.7", ("10.0.0.7/32",)),
        (" 10.0.0.0/24 ,2001:db8::7, ", ("10.0.0.0/24", "2001:db8::7/128")),
    ],
)
def test_proxies(environ: pytest.MonkeyPatch, value: str, networks: tuple[str, ...]) -> None:
    environ.setenv("CORRAL_BOARD_PROXY", value)
    assert BoardSettings().proxy == networks


@pytest.mark.parametrize(
    "value", ["*", "nginx", "0.0.0.0/0", "::/0", "10.0.0.7/24", "10.0.0.7:443", "127.0.0.1 ::1"]
)
def test_a_proxy_that_is_not_an_address_or_is_everybody_is_refused(
    environ: pytest.MonkeyPatch, value: str
) -> None:
    environ.setenv("CORRAL_BOARD_PROXY", value)
    with pytest.raises(ConfigurationError, match=r"CORRAL_BOARD_PROXY.*write the proxy's address"):
        BoardSettings()


@pytest.mark.parametrize(
    ("value", "hosts"),
    [
        ("Board.Example.org , queues", ("board.example.org", "queues")),
        ("::1,10.0.0.1", ("::1", "10.0.0.1")),
        ("", ()),
    ],
)
def test_hosts(environ: pytest.MonkeyPatch, value: str, hosts: tuple[str, ...]) -> None:
    environ.setenv("CORRAL_BOARD_HOSTS", value)
    assert BoardSettings().hosts == hosts


@pytest.mark.parametrize(
    "value", ["*", "*.example.org", "a:80", "http://a", "a b", "a/b", "a@b", "."]
)
def test_unusable_hosts(environ: pytest.MonkeyPatch, value: str) -> None:
    environ.setenv("CORRAL_BOARD_HOSTS", value)
    with pytest.raises(ConfigurationError, match="CORRAL_BOARD_HOSTS"):
        BoardSettings()


def corral(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start the program in an environment without any other variable of ours."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CORRAL_", "BULL_", "REDIS"))
    }
    return subprocess.Popen(
        [sys.executable, "-m", "corral", *arguments],
        env={**inherited, "PYTHONPATH": str(folder), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """The exit code and the output of a process; it is killed if it does not end."""
    try:
        out, err = process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return process.returncode, out, err


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({}, "the board is switched off"),
        ({"CORRAL_BOARD_ENABLED": "true"}, "nothing checks who uses it"),
        ({"CORRAL_BOARD_ENABLED": "yes"}, "write true or 1 for on"),
        (
            {"CORRAL_BOARD_ENABLED": "true", "CORRAL_BOARD_PASSWORD": "hunter2"},
            "never the password itself",
        ),
    ],
)
def test_the_program_ends_with_2_and_one_sentence(
    plugin_folder: Path, environment: dict[str, str], text: str
) -> None:
    code, out, err = ended(corral(plugin_folder, "board", "--port", "0", **environment))
    assert (code, out) == (2, "")
    assert text in err
    assert "Traceback" not in err
    assert "hunter2" not in err


def test_a_password_is_hashed_by_the_program(plugin_folder: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "corral", "board", "--hash-password"],
        env={**os.environ, "PYTHONPATH": str(plugin_folder)},
        input="correct horse battery\n",
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert re.fullmatch(r"scrypt:32768:8:3:[\w-]{22}:[\w-]{43}\n", run.stdout)


def test_without_the_extra_one_sentence_names_it(plugin_folder: Path, tmp_path: Path) -> None:
    for name in ("starlette", "uvicorn"):
        blocked = tmp_path / name
        blocked.mkdir()
        (blocked / "sitecustomize.py").write_text(f"import sys; sys.modules[{name!r}] = None\n")
        path = f"{blocked}{os.pathsep}{plugin_folder}"
        code, out, err = ended(
            corral(plugin_folder, "board", CORRAL_BOARD_ENABLED="true", PYTHONPATH=path)
        )
        assert (code, out) == (2, "")
        assert err.startswith("error: the board needs ")
        assert "install the extra 'board' from where you got corral" in err
        assert "Traceback" not in err
