"""What commands say about the code that they run, and on a terminal that is not UTF-8."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from corral.cli import cli

ENCODINGS = ("ascii", "latin-1", "cp1252")
TEXT = "Jürgen … 🐎 日本"
EVERY_HELP = """
import sys
from corral.cli import main
for line in sys.stdin:
    sys.argv = ["corral", *line.split(), "--help"]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, line
"""


def command_paths(group: click.Group, *before: str) -> Iterator[tuple[str, ...]]:
    """Every command, groups included."""
    yield before
    for name in group.commands:
        command = group.commands[name]
        if isinstance(command, click.Group):
            yield from command_paths(command, *before, name)
        else:
            yield (*before, name)


@pytest.fixture
def checkout(acme: Path, tmp_path: Path) -> Path:
    """A copy of the installed plugin's module, in a folder of its own."""
    (acme / "acme-1.0.dist-info" / "RECORD").write_text("acme_letters.py,sha256=x,1\n", "utf-8")
    folder = tmp_path / "checkout"
    folder.mkdir()
    shutil.copy(acme / "acme_letters.py", folder)
    return folder


class TestShadowed:
    @pytest.mark.parametrize(
        "arguments",
        [("check",), ("worker", "--burst"), ("worker", "--burst", "--processes", "1")],
        ids=["check", "worker", "parent"],
    )
    def test_it_is_said_once_with_both_paths(
        self, arguments: tuple[str, ...], command: Any, acme: Path, checkout: Path
    ) -> None:
        sentence = (
            f"acme_letters is imported from {checkout / 'acme_letters.py'}, and acme has installed"
            f" it as {acme / 'acme_letters.py'}: a folder that comes first on Python's path hides"
            " it (PYTHONPATH, or the working directory)"
        )
        started = command(*arguments, PYTHONPATH=f"{checkout}{os.pathsep}{acme}")
        assert started.wait() == 0
        assert started.said.count(sentence) == 1

    def test_the_working_directory_comes_first_too(
        self, command: Any, acme: Path, checkout: Path
    ) -> None:
        started = command("check", "--json", cwd=checkout)
        assert started.wait() == 0
        (warning,) = json.loads(started.result)["warnings"]
        assert warning.startswith(f"acme_letters is imported from {checkout}")

    def test_nothing_is_said_of_what_is_installed(self, command: Any, checkout: Path) -> None:
        started = command("check")
        assert (started.wait(), started.said) == (0, "")

    def test_nothing_is_said_of_the_plugins_of_this_environment(self) -> None:
        """Editable in a checkout, wheels elsewhere."""
        own = {name: text for name, text in os.environ.items() if not name.startswith("CORRAL_")}
        ran = subprocess.run(
            [sys.executable, "-P", "-m", "corral", "plugins"],
            env=own,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert "is imported from" not in ran.stderr


@pytest.mark.parametrize("content", [b"[x]\nno equals sign\n", b"[x]\nname = \xff\n"])
def test_a_stranger_s_broken_entry_points_end_no_command(
    content: bytes, command: Any, acme: Path
) -> None:
    """Other libraries read them, too: pydantic does with its first model."""
    info = acme / "stranger-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_bytes(content)
    started = [
        command("check"),
        command("plugins"),
        command("enqueue", "acme-letters", "{}"),
    ]
    assert [each.wait() for each in started] == [0, 0, 0]
    assert f"warning: entry_points.txt of stranger in {acme} cannot be read: " in started[0].said
    worker = command("worker", "--burst", "acme-letters")
    assert worker.wait() == 0
    assert all("Traceback" not in each.said for each in (*started, worker))


class TestEncodings:
    @pytest.mark.parametrize("encoding", ENCODINGS)
    def test_no_help_fails(self, encoding: str) -> None:
        paths = [*command_paths(cli)]
        assert len(paths) > 21
        ran = subprocess.run(
            [sys.executable, "-c", EVERY_HELP],
            env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
            input="".join(f"{' '.join(path)}\n" for path in paths).encode(),
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert (ran.returncode, ran.stderr) == (0, b"")
        assert ran.stdout.count(b"Usage: corral") == len(paths)

    @pytest.mark.corral_untidy("jobs that nobody works off")
    @pytest.mark.parametrize("encoding", ENCODINGS)
    def test_no_result_fails_and_what_is_missing_is_escaped(
        self, encoding: str, command: Callable[..., Any]
    ) -> None:
        payload = json.dumps({"text": TEXT})
        added = command("enqueue", "acme-letters", payload, "--job-id", "j1")
        assert added.wait() == 0, added.said
        shown = TEXT.encode(encoding, "backslashreplace")
        for arguments, has in (
            (("job", "show", "acme-letters", "j1"), True),
            (("job", "list", "acme-letters", "--state", "waiting"), False),
            (("queues",), False),
            (("check",), False),
            (("plugins",), False),
            (("schedules",), False),
            (("job", "show", "acme-letters", TEXT), False),
        ):
            started = command(*arguments, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
            code = started.wait()
            said = started.err.read_bytes()
            assert b"Traceback" not in said, (arguments, said)
            assert code == (1 if TEXT in arguments else 0), (arguments, said)
            assert (shown in started.out.read_bytes()) == has, arguments
