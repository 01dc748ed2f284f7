"""The tutorial, as a reader follows it: its files are written, its commands typed at a terminal,
its outputs compared.

The page is the README of `examples/corral-report-exports`. It is walked once, from an empty folder,
with pip and whatever index pip is configured for; the tests look at what was seen.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import selectors
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "examples" / "corral-report-exports"
PAGE = (PACKAGE / "README.md").read_text("utf-8")
FENCES: list[tuple[str, str, str]] = re.findall(
    r"(?:^\*\*`(\S+)`\*\*\n\n)?^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL
)
"""Each with the file that it is, if it is one, and its language."""
COMMAND = re.compile(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
"""Each with the lines that the page shows below it."""
CHECKOUT = "CORRAL=~/src/corral"
SILENT = ("pip install -q ", "python3 -m venv ")
"""What pip warns of is between it and its configuration."""
COLUMNS = 120
SECONDS = 180.0
"""How long one command may take; the longest installs everything from an index."""
FIRST_JOB_SECONDS = 180.0
"""A stranger's first processed job: the budget of the whole project."""


@dataclass(frozen=True)
class Typed:
    """A command of the page, and what came of it.

    Attributes:
        command: What was typed.
        shown: What the page shows below it.
        seen: What the terminal showed.
        code: Its exit code.
        seconds: When it ended, after the first one had been typed.
    """

    command: str
    shown: str
    seen: str
    code: int
    seconds: float

    @property
    def as_the_page_says(self) -> bool:
        """Whether a reader sees what the page shows, and a failure only where it shows one."""
        if (self.code != 0) != bool(re.search(r"\berror: ", self.shown)):
            return False
        if not self.shown and self.command.startswith(SILENT):
            return True
        return (
            re.fullmatch("\n".join(map(pattern, self.shown.splitlines())), self.seen.rstrip("\n"))
            is not None
        )


def pattern(line: str) -> str:
    """What a line of the page stands for: `…` for any text, alone for any lines; columns may be
    wider or narrower.
    """
    if line == "…":
        return r"[\s\S]*"
    return re.sub(r"(?:\\ ){2,}", "  +", re.escape(line)).replace("…", ".*")


class Shell:
    """A shell at a terminal; commands are typed one after the other.

    Args:
        typing: Where the shell reads.
        screen: The terminal's other end.
    """

    def __init__(self, typing: int, screen: int) -> None:
        self._typing = typing
        self._screen = screen

    def type(self, command: str) -> tuple[str, int]:
        """Run a command to its end.

        Returns:
            What it printed, without colours, and its exit code.
        """
        os.write(self._typing, f"{{ {command}\n}} </dev/null; echo :ended:$?:\n".encode())
        deadline = time.monotonic() + SECONDS
        seen = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._screen, selectors.EVENT_READ)
            while not (ended := re.search(rb":ended:(\d+):\r?\n\Z", seen)):
                assert selector.select(deadline - time.monotonic()), (
                    f"{command}: not ended in {SECONDS} s: {seen!r}"
                )
                seen += os.read(self._screen, 65536)
        return shown_by(seen[: ended.start()].decode()), int(ended[1])


def shown_by(written: str) -> str:
    """What a terminal shows of what was written to it, when it is done: no colours, no progress bar
    that is wiped.
    """
    lines: list[str] = []
    for line in written.replace("\r\n", "\n").split("\n"):
        if "\x1b[1A" in line:  # the cursor goes up one line, and wipes it
            lines.pop()
        plain = re.sub(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\(B)", "", line.rpartition("\x1b[2K")[2])
        lines.append(plain.rstrip())
    return "\n".join(lines)


@contextmanager
def shell(folder: Path, environ: dict[str, str]) -> Iterator[Shell]:
    """A shell at a terminal, in a folder; it ends with the block."""
    screen, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    process = subprocess.Popen(
        ["bash", "--noprofile", "--norc"],
        cwd=folder,
        env=environ | {"TERM": "xterm"},
        stdin=subprocess.PIPE,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    assert process.stdin is not None
    try:
        yield Shell(process.stdin.fileno(), screen)
    finally:
        process.stdin.close()
        process.kill()
        process.wait(timeout=15)
        os.close(screen)


@pytest.fixture(scope="module")
def walk(
    wheels: dict[str, Path], bare_environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> list[Typed]:
    """The whole page, from top to bottom."""
    folder = tmp_path_factory.mktemp("tutorial")
    typed: list[Typed] = []
    with shell(folder, bare_environ) as reader:
        begun = time.monotonic()
        for name, language, text in FENCES:
            if name:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(text, "utf-8")
            elif language == "console":
                for command, shown in COMMAND.findall(text):
                    output, code = reader.type(
                        command.replace(CHECKOUT, f"CORRAL={wheels['corral']}")
                    )
                    typed.append(Typed(command, shown, output, code, time.monotonic() - begun))
    return typed


def test_a_reader_sees_what_the_page_shows(walk: list[Typed]) -> None:
    assert CHECKOUT in [typed.command for typed in walk]
    otherwise = [
        f"$ {typed.command}\n{typed.seen}\n(exit code {typed.code}; the page shows)\n{typed.shown}"
        for typed in walk
        if not typed.as_the_page_says
    ]
    assert not otherwise, "\n".join(["", *otherwise])


@pytest.mark.timing
def test_a_stranger_s_first_job_is_processed_within_three_minutes(walk: list[Typed]) -> None:
    """From an empty folder, installation included; reading and typing are not counted."""
    first = next(typed for typed in walk if typed.command.startswith("corral worker"))
    assert "export starting" in first.seen
    print(f"a stranger's first processed job: {first.seconds:.0f} s")
    print(f"the whole tutorial: {walk[-1].seconds:.0f} s, {len(walk)} commands")
    assert first.seconds < FIRST_JOB_SECONDS


def test_every_block_is_a_file_or_is_typed() -> None:
    assert len(FENCES) == len(re.findall(r"^```", PAGE, re.MULTILINE)) / 2
    assert [text for name, language, text in FENCES if not name and language != "console"] == []
    typed = "".join(
        f"$ {command}\n{shown}" for _, _, text in FENCES for command, shown in COMMAND.findall(text)
    )
    assert typed == "".join(text for name, language, text in FENCES if language == "console")


def test_the_files_of_the_page_are_the_package_s() -> None:
    shown = {name: text for name, _, text in FENCES if name.startswith(f"{PACKAGE.name}/")}
    assert len(shown) > 4
    assert {name: (PACKAGE.parent / name).read_text("utf-8") for name in shown} == shown
    sources = {
        path.relative_to(PACKAGE.parent).as_posix() for path in (PACKAGE / "src").rglob("*.py")
    }
    assert sources <= shown.keys(), "a reader is not shown all of it"
