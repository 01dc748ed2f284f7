"""Run the Python examples of a page, or of a module's docstrings, as one program.

`python run_page.py PAGE`. What a page takes for granted (an engine, a table, an application) is in
`around/`, in a file of the page's or module's name, and is run before. An example may `await`.
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FENCE = re.compile(r"^( *)```python\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)

COMPILED = {
    "hooks.md": {"deps.": "asks the hooks of a plugin that the page only sketches"},
    "producing.md": {
        'durability="replicated"': "needs a store with a replica",
        "connect_blocking().__enter__()": "stays open for the life of a program",
    },
}
"""Examples that are compiled and not run, by a piece of their text, each with the reason."""


def examples(page: Path) -> Iterator[tuple[int, str]]:
    """The examples of a page, each with the line that it begins at.

    The README's first queue is not among them: `tests/wheels/test_readme.py` builds and runs it.
    """
    text = page.read_text("utf-8")
    if page.name == "README.md":
        before, _, rest = text.partition("## Your first queue\n")
        first, heading, after = rest.partition("\n## ")
        text = before + "\n" * (first.count("\n") + 1) + heading + after
    for found in FENCE.finditer(text):
        yield text.count("\n", 0, found.start()) + 2, textwrap.dedent(found[2])


def is_a_test(source: str) -> bool:
    """Whether an example is shown from a file of this folder, which pytest runs."""
    files = [path.read_text("utf-8") for path in HERE.glob("test_*.py")]
    return any(source.strip() in text for text in files)


async def run(source: str, name: str, line: int, namespace: dict[str, Any]) -> None:
    """Run a piece of a program in a namespace."""
    text, flags = "\n" * (line - 1) + source, ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    # without this module's future import: pydantic could not resolve an example's annotations
    code = compile(text, name, "exec", flags, dont_inherit=True)
    if code.co_flags & inspect.CO_COROUTINE:
        await eval(code, namespace)  # noqa: S307  # that is what running an example means
    else:
        exec(code, namespace)  # noqa: S102  # as above


async def run_page(page: Path) -> int:
    """Run a page's examples; how many there are."""
    namespace: dict[str, Any] = {}
    around = HERE / "around" / f"{page.stem}.py"
    if page.suffix == ".py":
        module = ".".join(page.relative_to(HERE.parents[1] / "core").with_suffix("").parts)
        namespace.update(vars(importlib.import_module(module)))
        around = HERE / "around" / "docstrings.py"
    namespace["__name__"] = "__page__"
    if around.exists():
        await run(around.read_text("utf-8"), str(around), 1, namespace)
    count = 0
    for line, source in examples(page):
        count += 1
        if any(piece in source for piece in COMPILED.get(page.name, ())):
            compile(source, page.name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        elif not is_a_test(source):
            await run(source, str(page), line, namespace)
    return count


if __name__ == "__main__":
    print(asyncio.run(run_page(Path(sys.argv[1]))))
