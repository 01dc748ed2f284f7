"""mypy and pyright, both strict, refuse exactly the lines that are marked, and no others."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
ACCEPTED, REFUSED = "accepted.py", "refused.py"
SOURCES = [str(ROOT / "core"), str(ROOT / "plugins" / "corral-emails" / "src")]
"""Checked as they are here, installed or not."""

SECONDS = 240

Findings = dict[str, dict[int, list[str]]]
"""What a checker says, by file and line."""


def run(module: str, *arguments: str, **environment: str) -> str:
    if importlib.util.find_spec(module) is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            f"{module} is not installed"
        )
    command = [sys.executable, "-m", module, *arguments]
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert ended.returncode in {0, 1}, f"{module} could not run: {ended.stdout}{ended.stderr}"
    return ended.stdout


def of_mypy(folder: Path) -> Findings:
    """What mypy says. The sources that it follows are checked elsewhere."""
    output = run(
        *(
            "mypy",
            "--strict",
            "--python-version=3.11",
            "--follow-imports=silent",
            "--no-error-summary",
            "--no-pretty",
        ),
        *(
            f"--cache-dir={folder / 'cache'}",
            "--config-file=",
            str(folder / ACCEPTED),
            str(folder / REFUSED),
        ),
        MYPYPATH=os.pathsep.join(SOURCES),
    )
    findings: Findings = {ACCEPTED: {}, REFUSED: {}}
    for line in output.splitlines():
        if found := re.fullmatch(r"(.+?):(\d+): error: (.*)", line):
            findings[Path(found[1]).name].setdefault(int(found[2]), []).append(found[3])
    return findings


def of_pyright(folder: Path) -> Findings:
    """What pyright says: errors, not hints."""
    config = folder / "pyrightconfig.json"
    config.write_text(
        json.dumps(
            {
                "include": [ACCEPTED, REFUSED],
                "extraPaths": SOURCES,
                "pythonVersion": "3.11",
                "typeCheckingMode": "strict",
                # about taste, not about types: an expression that stands alone, a name that nobody
                # uses
                "reportUnusedExpression": False,
                "reportUnusedFunction": False,
                "reportUnusedImport": False,
                # typeshed would rather see AsyncGenerator above @asynccontextmanager; AsyncIterator
                # is right too
                "reportDeprecated": False,
            }
        ),
        "utf-8",
    )
    output = json.loads(
        run("pyright", "--outputjson", "--pythonpath", sys.executable, "--project", str(config))
    )
    assert output["summary"]["filesAnalyzed"] == 2
    findings: Findings = {ACCEPTED: {}, REFUSED: {}}
    for found in output["generalDiagnostics"]:
        if found["severity"] == "error":
            line = found["range"]["start"]["line"] + 1
            findings[Path(found["file"]).name].setdefault(line, []).append(found["message"])
    return findings


@pytest.mark.parametrize("checker", [of_mypy, of_pyright], ids=["mypy", "pyright"])
def test_refuses_every_marked_line_and_no_other(
    checker: Callable[[Path], Findings], tmp_path: Path
) -> None:
    for name in (ACCEPTED, REFUSED):
        shutil.copy(FOLDER / name, tmp_path)
    findings = checker(tmp_path)
    lines = dict(enumerate((FOLDER / REFUSED).read_text("utf-8").splitlines(), 1))
    marked = {number: line for number, line in lines.items() if re.search(r"# error: \w+", line)}
    assert len(marked) > 20
    assert findings[ACCEPTED] == {}
    assert {
        number: line for number, line in marked.items() if number not in findings[REFUSED]
    } == {}, "not refused"
    assert {
        number: message for number, message in findings[REFUSED].items() if number not in marked
    } == {}, "refused"
