"""Writes the calls of `BlockingJobScheduler`: `python tests/repo/blocking.py`.

Run it after a change to `JobScheduler`: signatures and docstrings are taken from `corral/jobs.py`.
`test_blocking.py` fails until that is done.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

CORE = Path(__file__).parents[2] / "core" / "corral"
SOURCE, TWIN = CORE / "jobs.py", CORE / "blocking.py"
MARK = "    # written by tests/repo/blocking.py: change corral/jobs.py, and run it\n"
CANCELLED = re.compile(r"^ {12}asyncio\.CancelledError: .*\n(?: {16,}.*\n)*", re.MULTILINE)
"""The paragraph about the cancellation of a task: a blocking call cannot be cancelled."""


def twin() -> str:
    """The text of `corral/blocking.py`: its own upper part, and a blocking call for each of the port."""
    source = SOURCE.read_text("utf-8")
    lines = source.splitlines(keepends=True)
    (port,) = [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == "JobScheduler"
    ]
    calls = [
        node
        for node in port.body
        if isinstance(node, ast.AsyncFunctionDef) and not node.name.startswith("_")
    ]
    return (
        TWIN.read_text("utf-8").partition(MARK)[0]
        + MARK
        + "".join(_blocking(call, lines) for call in calls)
    )


def _blocking(call: ast.AsyncFunctionDef, lines: list[str]) -> str:
    first = min([call.lineno, *(decorator.lineno for decorator in call.decorator_list)])
    docstring = call.body[0]
    written = "".join(lines[first - 1 : docstring.end_lineno]).replace("async def ", "def ", 1)
    if ast.get_docstring(call) is None:  # an overload
        return f"\n{written}"
    given = [argument.arg for argument in call.args.args if argument.arg != "self"]
    given += [f"{argument.arg}={argument.arg}" for argument in call.args.kwonlyargs]
    given += [f"**{call.args.kwarg.arg}"] if call.args.kwarg else []
    body = f"        return self._wait_for(lambda jobs: jobs.{call.name}({', '.join(given)}))\n"
    return "\n" + CANCELLED.sub("", written) + body


if __name__ == "__main__":
    TWIN.write_text(twin(), encoding="utf-8")
    sys.exit(
        subprocess.run(
            [sys.executable, "-m", "ruff", "format", "--quiet", str(TWIN)], check=False
        ).returncode
    )
